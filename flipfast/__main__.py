"""`python -m flipfast` is the command line."""

import sys

from flipfast.cli import main

if __name__ == "__main__":
    sys.exit(main())
