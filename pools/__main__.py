"""``python -m pools``: what a build system asks for.

cc server.c $(python -m pools --cflags --libs)
cmake -S . -B build -Dpoolport_DIR="$(python -m pools --cmakedir)"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from pools.embedding import get_cmake_dir, get_flags, get_include, get_library_dir, get_pkgconfig_dir

_ANSWERS: dict[str, tuple[str, Callable[[], str]]] = {
    "cflags": ("the compiler's flags", lambda: get_flags("Cflags")),
    "libs": ("the linker's flags", lambda: get_flags("Libs")),
    "includedir": ("the directory of the headers", get_include),
    "libdir": ("the directory of the static library", get_library_dir),
    "pkgconfigdir": ("the directory of poolport.pc, for PKG_CONFIG_PATH", get_pkgconfig_dir),
    "cmakedir": ("the directory of the CMake package, for poolport_DIR", get_cmake_dir),
}


def main(arguments: list[str] | None = None) -> int:
    """Print what was asked for on one line; 2 when nothing was, 4 when the files are not there."""
    parser = argparse.ArgumentParser(prog="python -m pools", description="Flags and paths for C and C++.")
    for name, (meaning, _) in _ANSWERS.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    chosen = parser.parse_args(arguments)
    wanted = [answer for name, (_, answer) in _ANSWERS.items() if getattr(chosen, name)]
    if not wanted:
        parser.print_usage(sys.stderr)
        return 2
    try:
        print(" ".join(answer() for answer in wanted))
    except FileNotFoundError as missing:
        print(f"python -m pools: {missing}", file=sys.stderr)
        return 4
    return 0


if __name__ == "__main__":
    sys.exit(main())
