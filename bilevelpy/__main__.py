"""``python -m bilevelpy``: the command line."""

import sys

try:
    from bilevelpy.cli.main import main

    code = main()
except KeyboardInterrupt:  # while modules were loaded
    sys.stderr.write("interrupted\n")
    code = 130
sys.exit(code)
