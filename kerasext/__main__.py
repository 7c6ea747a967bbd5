"""`python -m kerasext`: the command line."""

import sys

from kerasext.cli import main

sys.exit(main())
