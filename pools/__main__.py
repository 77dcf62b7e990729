"""``python -m pools``: what a build system asks for.

cc server.c $(python -m pools --cflags --libs)
cmake -S . -B build -Dpoolport_DIR="$(python -m pools --cmakedir)"
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from pools.embedding import get_cmake_dir, get_flags, get_include, get_library_dir, get_pkgconfig_dir

_ANSWERS: dict[str, tuple[str, Callable[[str], str]]] = {
    "cflags": ("the compiler's flags", lambda library: get_flags("Cflags", library)),
    "libs": ("the linker's flags", lambda library: get_flags("Libs", library)),
    "includedir": ("the directory of the headers", lambda _: get_include()),
    "libdir": ("the directory of the static libraries", lambda _: get_library_dir()),
    "pkgconfigdir": ("the directory of the .pc files, for PKG_CONFIG_PATH", lambda _: get_pkgconfig_dir()),
    "cmakedir": ("the directory of the CMake package, for poolport_DIR", lambda _: get_cmake_dir()),
}


def answer(package: str, library: str, arguments: list[str] | None) -> int:
    """``main`` for any package here, whose ``library`` pkg-config knows by that name."""
    program = f"python -m {package}"
    parser = argparse.ArgumentParser(prog=program, description="Flags and paths for C and C++.")
    for name, (meaning, _) in _ANSWERS.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    chosen = parser.parse_args(arguments)
    wanted = [find for name, (_, find) in _ANSWERS.items() if getattr(chosen, name)]
    if not wanted:
        parser.print_usage(sys.stderr)
        return 2
    try:
        print(" ".join(find(library) for find in wanted))
    except FileNotFoundError as missing:
        print(f"{program}: {missing}", file=sys.stderr)
        return 4
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Print what was asked for on one line; 2 when nothing was, 4 when the files are not there."""
    return answer("pools", "poolport", arguments)


if __name__ == "__main__":
    sys.exit(main())
