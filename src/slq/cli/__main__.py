"""`python -m slq.cli`: the same as `slq`."""

from slq.cli import main

main()
