"""Replay a recorded program's requests under every strategy.

`side_by_side` is the way in, `requests` what is asked for, `strategies` of whom; `worker` is the
process of one strategy, which is why nothing that needs numpy is imported here.
"""
