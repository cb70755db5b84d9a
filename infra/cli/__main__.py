"""`python -m infra.cli`: the command line where no `vamoh` is on the path."""

import sys

from infra.cli import main

sys.exit(main())
