"""The file of a trace, and who may write it."""

from __future__ import annotations

import errno

import pytest

from pools import SlabPool, Trace


def test_a_trace_that_is_being_written_is_not_replaced(tmp_path):
    path = tmp_path / "run.pptrace"
    with SlabPool(64, 2) as pool, Trace(path) as trace:
        pool.attach(trace)
        with pytest.raises(OSError, match=r"is being written.*close that one") as caught:
            Trace(path, replace=True)
        assert (caught.value.errno, caught.value.filename) == (errno.EBUSY, str(path))
        pool.acquire().release()
        assert trace.dropped == 0
        pool.attach(None)
    Trace(path, replace=True).close()
