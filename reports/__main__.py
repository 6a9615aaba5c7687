"""`python -m reports` is `attest`."""

import sys

from reports.cli import main

sys.exit(main())
