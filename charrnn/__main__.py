"""`python -m charrnn`: the same as the command `charrnn`."""

import sys

from charrnn.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
