"""What all tests have in common."""

import signal

# What a shell starts in the background ignores Ctrl-C, and so do its children. Some tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
