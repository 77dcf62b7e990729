"""When a process under a sanitizer may fork: while its other threads are asleep, and with few pools.

A child has its parent's locks as they were, and one of its threads. The C library therefore brings its
allocator to rest before a fork, and the child may allocate. AddressSanitizer and ThreadSanitizer put an
allocator in its place for which nobody does that in gcc 12, nor in LLVM before 18 and 19: a thread that was
inside it leaves the child a lock that nobody drops, and the child stops for ever in some ``malloc``. Every
thread is inside it at least once, in the first steps that the sanitizer takes in it, before any of the
program's; on a busy machine that is some time after it was begun.

ThreadSanitizer, moreover, follows 64 locks of a thread, and ends the process at the next one. A thread that
forks holds those of all pools and ports, two of each at least: with those of earlier tests that the collector
of garbage has not come to yet, they are soon more.

Programs that are not watched by a sanitizer fork whenever they like, which is what is tested there.
"""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

TASKS = Path("/proc/self/task")


def is_watched() -> bool:
    """Whether a sanitizer's library was loaded before this process's own."""
    return any(name in os.environ.get("LD_PRELOAD", "") for name in ("libasan", "libtsan"))


def look_at_others() -> list[list[str]] | None:
    """State and number of switches of each thread but this one; nothing where one has just ended."""
    seen = []
    try:
        for task in TASKS.iterdir():
            if int(task.name) != threading.get_native_id():
                lines = (task / "status").read_text().splitlines()
                seen.append([line for line in lines if line.startswith("State") or "_ctxt_" in line])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return seen


def come_to_rest() -> None:
    """Returns when no other thread has been awake for a moment; at once where no sanitizer watches."""
    if is_watched():
        gc.collect()
    while is_watched():
        before = look_at_others()
        asleep = before is not None and all("S (" in state for state, *_ in before)
        if asleep and look_at_others() == before:
            return
        os.sched_yield()
