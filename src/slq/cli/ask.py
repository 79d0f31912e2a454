"""`slq ask`: a question about an item of a collection."""

from __future__ import annotations

from slq import console
from slq.cli.command import command
from slq.cli.search import opened
from slq.config import AskConfig, SearchModelConfig
from slq.errors import InputError, shorten


@command("ask")
def app(config: AskConfig, model: SearchModelConfig) -> None:
    """Ask the frozen model about an item of a collection, such as a result of `slq search`.

    It answers with the weights that it came with; what was learned for searching plays no part.

        slq ask photos/0003.png "what is the dog doing?" -c my-collection
    """
    from slq.index.calibrating import item_of
    from slq.index.store import check_is_folder
    from slq.judge import ask

    assert config.item is not None and config.question is not None
    check_is_folder(config.collection)
    rows, encoder = opened(config.collection, model)
    found = rows.get([config.item])
    if not found:
        raise InputError(f"{config.collection} holds no item {shorten(config.item, 100)!r}: ids are as `slq search` shows them.")
    answer = ask(encoder().model, item_of(rows, found[0]), config.question, config.max_new_tokens)
    if not answer:
        console.note("The model says nothing to this.")
    console.show({"item": config.item, "question": config.question, "answer": answer}, lambda: console.result(answer))
