"""`python -m research.paper EXPERIMENT --out FOLDER`."""

from __future__ import annotations

from research.paper.command import main

if __name__ == "__main__":
    main()
