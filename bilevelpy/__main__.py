"""``python -m bilevelpy``: the command line."""

import sys

from bilevelpy.cli.main import main

sys.exit(main())
