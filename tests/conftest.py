"""What all tests have in common."""

import os
import signal

# A test runner's own terminal, and a narrow one: what is no terminal gets wide tables.
os.environ.pop("COLUMNS", None)

# What a shell starts in the background ignores Ctrl-C, and so do its children. Some tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
