"""``poolport doctor``: what this machine can do.

A finding is got by doing what it tells about, wherever that is possible: a server is opened on each
back end, a pool asks for huge pages, each allocator is loaded.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

from analysis.benchmarks.alignment import MALLOC_OFFSET, receive_cost
from analysis.commands.demo import OUTPUT
from analysis.commands.terminal import poolport_words, print_json, print_next, print_table
from analysis.results import document
from analysis.units import bytes_text

NAME = "doctor"
HELP = "tell what this machine can do: back ends and why, memory, allocators, limits, extras"

_EXTRAS = {
    "analysis": ("numpy", "matplotlib", "jinja2"),
    "cli": ("rich", "shtab"),
    "notebook": ("ipykernel", "nbclient", "nbformat"),
    "bench": ("cmeel",),
}


# What a server has only where it is asked for: whether it would get it.
_EVERYTHING: dict[str, Any] = {
    "zero_copy_bytes": 1 << 20,
    "ring_blocks": 8,
    "ring_bytes": 4096,
    "registered_files": True,
    "registered_buffers": True,
}

_SLOW_RATIO = 1.5


class Finding(NamedTuple):
    """One line: what was looked at, whether it is there, and what it means or how to get it."""

    what: str
    good: bool
    text: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def _backends() -> list[Finding]:
    from iocp_adapter import PortError, Server  # noqa: PLC0415  # compiled: only when it is needed
    from pools import SlabPool  # noqa: PLC0415

    findings = []
    for backend in ("auto", "iocp") if os.name == "nt" else ("auto", "io_uring", "epoll"):
        pool = SlabPool(4096, 64, name="doctor")
        try:
            server = Server("127.0.0.1", 0, lambda *_: None, provider=pool, backend=backend, **_EVERYTHING)
        except (PortError, OSError) as error:
            findings.append(Finding(f"back end {backend}", False, str(error)))
        else:
            features = server.features
            lacking = [f"; without {name}: {found.why}" for name, found in features.items() if not found.on]
            counted = f"; {len(features) - len(lacking)} of {len(features)} features" if features else ""
            text = f"{server.backend}: {server.reason}{counted}{''.join(lacking)}"
            findings.append(Finding(f"back end {backend}", True, text))
            server.close(1.0)
    return findings


def _memory() -> list[Finding]:
    from pools import PoolError, SlabPool  # noqa: PLC0415

    pool = SlabPool(4096, 1024, name="doctor", huge_pages=True)
    findings = [_huge_pages(pool.memory.huge_pages)]
    try:
        pool.set_idle(60.0)
    except PoolError as error:
        findings.append(Finding("idle memory goes back", False, str(error)))
    else:
        findings.append(Finding("idle memory goes back", True, "by itself, with idle_seconds="))
    pool.close()
    return findings


def _huge_pages(outcome: str) -> Finding:
    """What a pool got, and what the system then does about it."""
    what = "huge pages"
    switch = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if outcome == "held":
        return Finding(what, True, "large pages, kept until the pool is closed")
    if outcome == "asked for" and switch.exists() and "[never]" in switch.read_text():
        return Finding(what, False, f"the system takes the wish and grants none: echo madvise > {switch}")
    if outcome == "asked for":
        return Finding(what, True, "as the system finds them, with huge_pages=True")
    remedy = (
        'give the account the right "Lock pages in memory", and sign in again'
        if os.name == "nt"
        else "this system has none to give on request"
    )
    return Finding(what, False, f"refused: {remedy}")


def _processor() -> list[Finding]:
    """What a receive costs where malloc's large blocks begin."""
    what = "unaligned buffers"
    try:
        cost = receive_cost()
    except OSError as error:
        return [Finding(what, False, f"not measured, since there is no loopback: {error}")]
    slow = cost.ratio > _SLOW_RATIO
    text = (
        f"{'slow' if slow else 'as fast as others'}: a receive of 100 KiB costs {cost.ratio:.1f} times as "
        f"much {MALLOC_OFFSET} bytes behind a page's beginning, where glibc's large blocks lie, as at it, "
        "where a pool's lie"
    )
    return [Finding(what, not slow, text)]


def _allocators() -> list[Finding]:
    from pools import MallocPool, PoolError  # noqa: PLC0415

    findings = []
    for library in ("mimalloc", "jemalloc", "tcmalloc"):
        try:
            pool = MallocPool(library=library, name="doctor")
        except PoolError as error:
            findings.append(Finding(library, False, str(error)))
        else:
            findings.append(Finding(library, True, f"as a baseline: MallocPool(library={library!r})"))
            pool.close()
    return findings


def _limits() -> list[Finding]:
    try:
        import resource  # noqa: PLC0415  # not on Windows
    except ModuleNotFoundError:
        return []
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    return [
        Finding(
            "open files",
            files >= 4096,
            f"{files} at most; for more connections: ulimit -n {max(files, 65536)}",
        ),
        Finding(
            "locked memory",
            True,
            "no limit" if locked == resource.RLIM_INFINITY else f"{bytes_text(locked)} at most",
        ),
    ]


def _extras() -> list[Finding]:
    findings = []
    for extra, packages in _EXTRAS.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        remedy = f'lacks {", ".join(missing)}: pip install "poolport[{extra}]"'
        findings.append(Finding(f"extra {extra}", not missing, remedy if missing else "installed"))
    return findings


def findings() -> list[Finding]:
    """Everything that was found out."""
    system = f"{platform.system()} {platform.release()}, {platform.machine()}, {os.cpu_count()} processors"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return [
        Finding("system", True, system),
        Finding("Python", True, python),
        *_backends(),
        *_memory(),
        *_processor(),
        *_allocators(),
        *_limits(),
        *_extras(),
    ]


def run(arguments: argparse.Namespace) -> int:
    """Print what was found; exit code 4 where no back end works."""
    found = findings()
    usable = any(finding.good for finding in found if finding.what == "back end auto")
    if arguments.json:
        rows: list[dict[str, Any]] = [finding._asdict() for finding in found]
        print_json(document("doctor", usable=usable, findings=rows))
    else:
        print_table(
            "What this machine can do",
            ["", "", "what it means"],
            [(finding.what, "yes" if finding.good else "no", finding.text) for finding in found],
            texts=3,
        )
    print_next(poolport_words("demo", output=OUTPUT))
    return 0 if usable else 4
