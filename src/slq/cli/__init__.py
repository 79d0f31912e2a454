"""The command line: one module a command, which reads its options from `slq.config` and calls the library."""

from slq.cli.app import main

__all__ = ["main"]
