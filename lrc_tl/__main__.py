"""`python -m lrc_tl`: the command line, as `lrc-tl`."""

import sys

from lrc_tl.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
