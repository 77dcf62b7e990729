"""``python -m iocp_adapter``: what a build system asks for.

cc -shared -fPIC handler.c $(python -m iocp_adapter --cflags)
cc server.c $(python -m iocp_adapter --cflags --libs)
cmake -S . -B build -Dpoolport_DIR="$(python -m iocp_adapter --cmakedir)"
"""

from __future__ import annotations

import sys

from pools.__main__ import answer

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Print what was asked for on one line; 2 when nothing was, 4 when the files are not there."""
    return answer("iocp_adapter", "poolport-engine", arguments)


if __name__ == "__main__":
    sys.exit(main())
