"""Where a C or C++ program finds the headers and the libraries that came with this package."""

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
    """The directory for the compiler's ``-I``: it holds ``poolport/poolport.h`` and ``poolport/port.h``."""
    return _part("include")


def get_library_dir() -> str:
    """The directory for the linker's ``-L``: ``libpoolport.a``, ``libpoolport_engine.a`` (MSVC: ``.lib``)."""
    return _part("lib")


def get_pkgconfig_dir() -> str:
    """The directory for ``PKG_CONFIG_PATH``: it holds ``poolport.pc`` and ``poolport-engine.pc``."""
    return _part("lib", "pkgconfig")


def get_cmake_dir() -> str:
    """The directory for CMake's ``poolport_DIR``.

    ``find_package(poolport)`` gives ``poolport::poolport``, and ``poolport::engine`` as the component
    ``engine``.
    """
    return _part("lib", "cmake", "poolport")


def _flags(kind: str, library: str) -> list[str]:
    lines = (Path(get_pkgconfig_dir()) / f"{library}.pc").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    below = _flags(kind, fields["Requires"].split()[0]) if "Requires" in fields else []
    return [*fields[kind].split(), *below]


def get_flags(kind: str, library: str = "poolport") -> str:
    """What a library's ``.pc`` file says of ``kind``, "Cflags" or "Libs", for those without pkg-config.

    With that of the library that it requires. Paths with spaces are not quoted, as everywhere in this trade:
    use CMake for those.
    """
    flags = " ".join(dict.fromkeys(_flags(kind, library)))
    return flags.replace("${includedir}", get_include()).replace("${libdir}", get_library_dir())
