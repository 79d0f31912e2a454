"""The pages of --help: plain text in two columns, headings and names emphasised where the terminal can."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts.help import HelpEntry, HelpPanel
    from rich.console import Console, ConsoleOptions

LONGEST_NAME, WIDEST = 26, 100  # of the column of names; of a page


class HelpFormatter:
    """Prints one command's page.

    Args:
        command: as it is called, such as `slq train`.
        text: the command's docstring; indented lines are examples and stay as they are.
        arguments: what stands between the command's name and its options in the usage line.
        hidden: flags that are not shown.
    """

    def __init__(self, command: str, text: str, arguments: str = "", hidden: frozenset[str] = frozenset()):
        self.command, self.text, self.arguments, self.hidden = command, text.strip(), arguments, hidden

    def render_usage(self, console: Console, options: ConsoleOptions, usage: Any) -> None:
        """The usage line stands above the description, see `render_description`.

        Args:
            console: that prints.
            options: of the console.
            usage: what the parser has.
        """

    def render_description(self, console: Console, options: ConsoleOptions, description: Any) -> None:
        """The docstring, its paragraphs wrapped and its examples as they are.

        Args:
            console: that prints.
            options: of the console.
            description: what the parser has; the docstring is printed in its place.
        """
        usage = " ".join(part for part in ("Usage:", self.command, self.arguments, "[OPTIONS]") if part)
        console.print(f"{usage}\n", markup=False, highlight=False, soft_wrap=True)
        for paragraph in _paragraphs(self.text):
            if paragraph.startswith((" ", "slq ")):  # a docstring of examples alone has lost their indentation
                lines = textwrap.indent(textwrap.dedent(paragraph), "    ").splitlines()
            else:
                lines = textwrap.wrap(" ".join(paragraph.split()), _width(console))
            console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
            console.print()

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """One panel: its title, then a line or more for each of its entries.

        Args:
            console: that prints.
            options: of the console.
            panel: its title and entries.
        """
        from rich.text import Text

        if not panel.entries:
            return
        console.print(Text(str(panel.title), style="bold"))
        rows = [(_name(entry, self.hidden), _plain(entry.description)) for entry in panel.entries]
        column = 2 + max(min(len(name), LONGEST_NAME) for name, _ in rows) + 2
        for name, help in rows:
            lines = textwrap.wrap(help, _width(console) - column, break_long_words=False, break_on_hyphens=False) or [""]
            shown = Text(f"  {name}", style="cyan")
            if len(name) > LONGEST_NAME:
                console.print(shown, soft_wrap=True)
            else:
                console.print(shown + Text(" " * (column - 2 - len(name)) + lines.pop(0)), soft_wrap=True)
            for line in lines:
                console.print(Text(" " * column + line), soft_wrap=True)
        console.print()


def _name(entry: HelpEntry, hidden: frozenset[str]) -> str:
    """An argument, a flag with its short form and its value, or a command."""
    if entry.positional_label:
        return entry.positional_label.split()[0]
    names = [*entry.positive_shorts, *entry.positive_names, *(name for name in entry.negative_names if name not in hidden)]
    return ", ".join(names) + (f" {entry.metavar}" if entry.metavar else "")


def _paragraphs(text: str) -> list[str]:
    """A docstring's paragraphs without its own indentation, which is four at most: what is indented more are examples."""
    first, _, rest = text.partition("\n")
    lines = rest.splitlines()
    indent = min([4, *(len(line) - len(line.lstrip()) for line in lines if line.strip())])
    return [part for part in "\n".join([first, *(line[indent:] for line in lines)]).split("\n\n") if part.strip()]


def _plain(text: Any) -> str:
    """The text of what the parser hands over to be rendered."""
    text = getattr(text, "primary_renderable", text)
    return " ".join((text.plain if hasattr(text, "plain") else str(text or "")).split())


def _width(console: Console) -> int:
    return min(console.width, WIDEST)
