"""`slq model info | push`: an adapter, shown or uploaded."""

from __future__ import annotations

from slq import console
from slq.cli.command import command, group
from slq.config import ModelInfoConfig, ModelPushConfig


@command("model info")
def info(config: ModelInfoConfig) -> None:
    """Show what an adapter is: its base model, its latent queries, and how it was trained. Loads no model.

    slq model info my-adapter
    """
    from slq.encoders.opening import describe_adapter

    told = describe_adapter(str(config.adapter))

    def text() -> None:
        for title, values in told.items():
            console.result(f"{title}:")
            console.pairs_of({f"  {name}": value for name, value in values.items()})

    console.show(told, text)


@command("model push")
def push(config: ModelPushConfig) -> None:
    """Upload an adapter with a card to a repository of the Hugging Face hub; the base model is named in it, not copied.

    slq model push my-adapter me/my-adapter
    """
    from slq.adapters.card import push_to_hub
    from slq.adapters.files import Adapter

    assert config.adapter is not None and config.repository is not None
    address = push_to_hub(Adapter.load(config.adapter), config.repository, config.branch, private=config.private)
    console.show({"repository": config.repository, "address": address}, lambda: console.result(f"Uploaded: {address}"))


app = group("model", "An adapter: show it, or upload it to the hub.", info, push)
