"""Contracts of the seams, for authors of plugins and for our own tests: each check raises AssertionError that says what does not hold."""

from slq.testing.families import check_family

__all__ = ["check_family"]
