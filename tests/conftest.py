"""What all tests have in common."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

# A test runner's own terminal, and a narrow one: what is no terminal gets wide tables.
os.environ.pop("COLUMNS", None)

# What a shell starts in the background ignores Ctrl-C, and so do its children. Some tests send one.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def at_once() -> Iterator[Callable[..., list[Any]]]:
    """Runs work(number) in each of some threads, all begun together; what each gave, or the first exception.

    Threads lose the interpreter at every opportunity meanwhile, as they do now and then by themselves.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield _at_once
    sys.setswitchinterval(before)


def _at_once(work: Callable[[int], Any], threads: int = 4) -> list[Any]:
    start = threading.Barrier(threads)
    results: list[Any] = [None] * threads
    errors: list[BaseException] = []

    def run(number: int) -> None:
        try:
            start.wait()
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    running = [threading.Thread(target=run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    if errors:
        raise errors[0]
    return results
