"""Where a C or C++ program finds the headers and the library that came with this package."""

from __future__ import annotations

from pathlib import Path

from pools import _pools  # type: ignore[attr-defined]

# Beside the extension module, which is not where this file is when the package is installed as editable.
_TREE = Path(_pools.__file__).resolve().parent


def _part(*names: str) -> str:
    path = _TREE.joinpath(*names)
    if not path.is_dir():
        raise FileNotFoundError(
            f"{path} is missing: this installation of poolport has no files for C programs; "
            "reinstall it by pip from a wheel or from the sources"
        )
    return str(path)


def get_include() -> str:
    """The directory for the compiler's ``-I``: it holds ``poolport/poolport.h``."""
    return _part("include")


def get_library_dir() -> str:
    """The directory for the linker's ``-L``: it holds ``libpoolport.a`` (``poolport.lib`` for MSVC)."""
    return _part("lib")


def get_pkgconfig_dir() -> str:
    """The directory for ``PKG_CONFIG_PATH``: it holds ``poolport.pc``."""
    return _part("lib", "pkgconfig")


def get_cmake_dir() -> str:
    """The directory for CMake's ``poolport_DIR``: ``find_package(poolport)`` gives ``poolport::poolport``."""
    return _part("lib", "cmake", "poolport")


def get_flags(kind: str) -> str:
    """The flags that ``poolport.pc`` gives for ``kind``, "Cflags" or "Libs", for those without pkg-config.

    Paths with spaces are not quoted, as everywhere in this trade: use CMake for those.
    """
    lines = (Path(get_pkgconfig_dir()) / "poolport.pc").read_text(encoding="utf-8").splitlines()
    flags = next(line.split(":", 1)[1].strip() for line in lines if line.startswith(f"{kind}:"))
    return flags.replace("${includedir}", get_include()).replace("${libdir}", get_library_dir())
