"""`python -m seewhy`."""

import sys

from seewhy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
