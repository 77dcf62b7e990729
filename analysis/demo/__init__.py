"""The demo: the same real traffic once per strategy, and what it did to the memory."""
