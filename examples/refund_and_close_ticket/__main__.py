"""`python -m examples.refund_and_close_ticket` plays the demo."""

import sys

from .demo import main

if __name__ == "__main__":
    sys.exit(main())
