"""`python -m slq.cli`: the same as `slq`."""

import sys

from slq.cli.app import main

sys.exit(main())
