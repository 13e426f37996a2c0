"""`python -m derecho` is `derecho`."""

import sys

from derecho.cli import main

if __name__ == "__main__":
    sys.exit(main())
