"""`slq plugins`: what is installed, and from which distribution."""

from __future__ import annotations

from dataclasses import asdict

from slq import console
from slq.cli.command import command
from slq.registry import GROUPS, Registry


@command("plugins")
def app() -> int:
    """List what other installed distributions add: benchmarks, losses, commands and so on.

    Ends with code 1 if one of them cannot be imported, saying why. SLQ_LOAD_PLUGINS chooses among them: empty for none, or a list of
    distributions separated by commas.

        slq plugins
    """
    found = [plugin for group in GROUPS for plugin in Registry[object](group).plugins()]
    rows = [[plugin.group, plugin.name, f"{plugin.distribution} {plugin.version}", plugin.error or "ok"] for plugin in found]

    def text() -> None:
        if rows:
            console.table(["group", "name", "distribution", "state"], rows)
        else:
            console.result("No plugins are installed.")

    console.show([asdict(plugin) for plugin in found], text)
    return 1 if any(plugin.error for plugin in found) else 0
