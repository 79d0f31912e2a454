"""`slq demo`: everything at once, with a page of results."""

from __future__ import annotations

from slq import console
from slq.cli.command import command
from slq.config import DemoConfig


@command("demo")
def app(config: DemoConfig) -> None:
    """Adapt the built-in miniature, show what that changed, search a folder of images, and write a page of results.

    Needs no download and no other file.

        slq demo -o demo
    """
    from slq.demo import run

    run(config.output, config.seed)
    console.show({"output": str(config.output), "page": str(config.output / "index.html")}, lambda: None)
