"""`slq demo`: the whole path on the built-in miniature, in minutes, ending with a page of results."""

from slq.demo.run import run

__all__ = ["run"]
