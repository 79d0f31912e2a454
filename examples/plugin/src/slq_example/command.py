"""A command: `slq example`."""

from cyclopts import App

app = App(name="example", help="Say that the example plugin is installed.")


@app.default
def say() -> None:
    """Say that the example plugin is installed."""
    print("The example plugin is installed.")
