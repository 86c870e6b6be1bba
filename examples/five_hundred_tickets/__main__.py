"""Play it: `python -m examples.five_hundred_tickets [--tickets N] [--dir DIRECTORY]`."""

from __future__ import annotations

import sys

from .play import main

sys.exit(main())
