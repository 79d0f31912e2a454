"""`slq demo`: the whole path on the built-in miniature, in minutes, with a page of results at the end."""

from slq.demo.run import run

__all__ = ["run"]
