"""The label that a connection's blocks carry where the program gives none."""

from __future__ import annotations

__all__ = ["TAGS_OF_THEIR_OWN", "tag_of"]

TAGS_OF_THEIR_OWN = 1 << 16
"""As many connections have one each, and as many share one later."""


def tag_of(number: int, peer: str) -> str:
    """A label of its own for each of the first connections; later ones share one with their neighbours.

    A pool keeps the text of every tag that a block ever had (debug histories, traces and leak reports refer
    to it), so that a label for each connection would grow for as long as the server runs.
    """
    if number <= TAGS_OF_THEIR_OWN:
        return f"conn-{number} {peer}"
    first = number - (number - 1) % TAGS_OF_THEIR_OWN
    return f"conn-{first} to conn-{first + TAGS_OF_THEIR_OWN - 1}"
