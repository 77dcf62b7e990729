"""``python -m analysis.replaying``: one strategy's process; see ``worker.py``."""

import sys

from analysis.replaying.worker import main

sys.exit(main())
