"""`slq plugins`: what is installed, and from which distribution."""

from __future__ import annotations

import os
from dataclasses import asdict
from importlib import import_module

from slq import console
from slq.cli.command import command
from slq.registry import LOAD_PLUGINS, Plugin, Registry, all_left_out, entry_points

# Where the registry of each group is: only that one knows its names and what a value of it must have.
REGISTRIES = {
    "slq.benchmarks": "slq.benchmarks.base:benchmarks",
    "slq.commands": "slq.cli.app:commands",
    "slq.families": "slq.models.families:families",
    "slq.losses": "slq.losses:losses",
    "slq.methods": "slq.training.methods:methods",
    "slq.poolings": "slq.pooling:poolings",
    "slq.stores": "slq.index.store:stores",
}


@command("plugins")
def app() -> int:
    """List what other installed distributions add: benchmarks, losses, commands and so on.

    Ends with code 1 if one of them cannot be used, saying why. SLQ_LOAD_PLUGINS chooses among them: empty for none, or a list of
    distributions separated by commas.

        slq plugins
    """
    found = [plugin for group in REGISTRIES for plugin in _plugins(group)]
    rows = [[plugin.group, plugin.name, f"{plugin.distribution} {plugin.version}", plugin.error or "ok"] for plugin in found]

    def text() -> None:
        if rows:
            console.table(["group", "name", "distribution", "state"], rows)
        else:
            console.result("No plugins are let in." if all_left_out(REGISTRIES) else "No plugins are installed.")

    console.show([asdict(plugin) for plugin in found], text)
    if left := all_left_out(REGISTRIES):
        console.note(f"{LOAD_PLUGINS}={os.environ.get(LOAD_PLUGINS)!r} leaves out {', '.join(left)}.")
    return 1 if any(plugin.error for plugin in found) else 0


def _plugins(group: str) -> tuple[Plugin, ...]:
    """What other distributions add to a group; its registry, which may be slow to import, is asked only if there is anything."""
    if not entry_points(group):
        return ()
    module, _, attribute = REGISTRIES[group].partition(":")
    registry: Registry[object] = getattr(import_module(module), attribute)
    return registry.plugins()
