"""``python -m analysis.benchmarks``: one cell's process; see ``cell.py``."""

import sys

from analysis.benchmarks.cell import main

sys.exit(main())
