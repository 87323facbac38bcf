"""`python -m seewhy`, and the command `seewhy`."""

import signal
import sys


def main() -> int:
    """Run the command line; Ctrl-C while it is imported, or while Python ends, is quiet too."""
    try:
        from seewhy.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
