"""`python -m research.photo build | report | evaluate | pages | knowledge`."""

from __future__ import annotations

import sys

from research.photo.command import main

if __name__ == "__main__":
    sys.exit(main())
