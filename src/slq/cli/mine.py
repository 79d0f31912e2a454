"""`slq mine`: add hard negatives to pairs."""

from __future__ import annotations

from pathlib import Path

from slq import console
from slq.cli.command import command
from slq.config import MiningConfig, ModelConfig
from slq.errors import ConfigError, InputError


@command("mine")
def app(config: MiningConfig, model: ModelConfig) -> None:
    """Add hard negatives to pairs: what the model ranks high for a query although it belongs to another pair.

    A candidate with the content of one of the query's positives, in whichever pair, is never taken. Others may be matches all the same:
    hard negatives can cost more than they bring, so train with and without them, and compare on pairs that neither has seen.

        slq mine data/train/captions.jsonl -m my-adapter -o mined.jsonl

        slq train mined.jsonl -o with-negatives
    """
    from slq.data import ImageRoot, read_pairs, write_pairs
    from slq.encoders.opening import open_encoder, tell_of_miniature
    from slq.io.files import write_atomic
    from slq.io.outputs import check_output_file
    from slq.training.mining import items_of, mine

    output = config.output
    assert config.data is not None and output is not None
    if output.suffix != ".jsonl":
        raise ConfigError(f"Pairs are written as JSON lines: name --output {output.with_suffix('.jsonl')}, not {output}.")
    check_output_file(output, [config.data, model.model, model.base_model], overwrite=config.overwrite)
    read = read_pairs(config.data, **config.reading)
    console.list_failures(read.failures)
    console.check_skipped(read.failures, read.num_rows, config.max_skipped)
    with console.waiting("loading the model"):
        encoder = open_encoder(model)
    tell_of_miniature(encoder.model)
    with console.progress_bar("encoding", items_of(read.pairs)) as advance:
        options = (config.num_negatives, config.range_min, config.absolute_margin, config.batch_size)
        mined = mine(encoder, read.pairs, *options, advance, direction=config.direction, workers=config.num_workers)
    console.list_failures(mined.failures)
    console.check_skipped(mined.failures, items_of(read.pairs), config.max_skipped)
    skipped = len(read.failures) + len(mined.failures)
    found = sum(len(pair.negatives) for pair in mined.pairs)
    if not found:
        raise InputError(
            f"None of {len(mined.pairs)} pairs got a negative, and nothing is written: lower --absolute-margin or --range-min."
        )
    write_atomic(output, lambda path: write_pairs(path, mined.pairs))
    document = {"output": str(output), "pairs": len(mined.pairs), "negatives": found, "short": mined.short, "skipped": skipped}

    def text() -> None:
        fewer = f"{mined.short} got fewer than {config.num_negatives}"
        console.result(f"{len(mined.pairs)} pairs with {found} negatives written to {output}; {fewer}; {skipped} skipped.")
        root = ImageRoot.of(output)
        images = {item.image for pair in mined.pairs for item in (pair.query, *pair.positives) if isinstance(item.image, Path)}
        outside = "" if all(map(root.holds, images)) else " --allow-outside"
        console.note(f"They may hurt: compare slq train {output}{outside} with slq train {config.data}, by slq eval on other pairs.")

    console.show(document, text)
