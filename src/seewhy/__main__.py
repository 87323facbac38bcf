"""`python -m seewhy`."""

import sys

from seewhy.cli import main

if __name__ == "__main__":
    sys.exit(main())
