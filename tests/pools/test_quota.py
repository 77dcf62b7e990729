"""How much a pool gives to whom, and whom it tells."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

from pools import (
    Crossing,
    Quota,
    QuotaExceeded,
    SlabPool,
    Unsupported,
    quota_levels,
    set_quota,
)

from .conftest import BLOCK, make, release

# ---- quotas -----------------------------------------------------------------------------


def test_a_quota_of_bytes_says_who_has_how_much(strategy):
    with make(strategy, quota=10_000, name="bounded") as pool:
        leases = [pool.acquire(BLOCK) for _ in range(2)]
        with pytest.raises(QuotaExceeded, match=r"8192 of 10000 bytes live") as caught:
            pool.acquire(1809)
        error = caught.value
        assert (error.tag, error.live, error.limit, error.unit, error.status) == (
            "", 8192, 10_000, "bytes", "QUOTA",
        )  # fmt: skip
        leases.append(pool.acquire(1808))
        levels = quota_levels(pool)
        assert (levels.bytes, levels.blocks, levels.refusals, levels.above) == (10_000, 3, 1, False)
        release(leases)
        assert quota_levels(pool).bytes == 0


def test_every_tag_or_some_have_quotas(strategy):
    with make(strategy, tag_quota=Quota(blocks=2)) as pool:
        leases = [pool.acquire(100, tag) for tag in ("a", "a", "b")]
        with pytest.raises(QuotaExceeded, match=r"'a'.*2 of 2 blocks"):
            pool.acquire(100, "a")
        leases.append(pool.acquire(100))
        release(leases)
    with make(strategy, tag_quota={"a": 100, "b": Quota(blocks=3)}) as pool:
        leases = [pool.acquire(100, tag) for tag in ("a", "b", "b", "b", "c", "c", "c", "c")]
        for tag in ("a", "b"):
            with pytest.raises(QuotaExceeded) as caught:
                pool.acquire(100, tag)
            assert caught.value.tag == tag
        set_quota(pool, 200, "a")
        leases.append(pool.acquire(100, "a"))
        assert quota_levels(pool, "a") == (Quota(bytes=200), 200, 2, 1, False)
        release(leases)


def test_a_release_from_another_thread_counts_once(strategy):
    with make(strategy, quota=Quota(blocks=2), tag_quota=1 << 20) as pool:
        leases = [pool.acquire(BLOCK, "t") for _ in range(2)]
        thread = threading.Thread(target=release, args=[leases])
        thread.start()
        thread.join()
        assert quota_levels(pool).blocks == quota_levels(pool, "t").bytes == 0
        release([pool.acquire(BLOCK, "t") for _ in range(2)])
        pool.check()


def test_a_block_that_grows_counts_for_its_new_size(strategy):
    with make(strategy, quota=3000) as pool, pool.acquire(1000) as lease:
        with pytest.raises(QuotaExceeded, match="1000 of 3000"):
            lease.resize(3001)
        lease.resize(3000)
        assert quota_levels(pool).bytes == 3000
        lease.resize(1)
        assert quota_levels(pool).bytes == 1


def test_without_a_quota_there_are_no_levels():
    with SlabPool(64, 1) as pool:
        for call in (lambda: quota_levels(pool), lambda: set_quota(pool, 1)):
            with pytest.raises(Unsupported, match="quota="):
                call()
    with SlabPool(64, 1, quota=1) as pool, pytest.raises(Unsupported, match="tag_quota="):
        quota_levels(pool, "t")


# ---- watermarks -------------------------------------------------------------------------


def test_watermarks_are_edges(strategy):
    seen = []
    with make(strategy, high_watermark=400, low_watermark=200, on_watermark=seen.append, name="w") as pool:
        leases = [pool.acquire(100) for _ in range(5)]
        assert seen == [Crossing("w", "", True, 400, 400)]
        release(leases[:2])
        leases[:2] = [pool.acquire(100)]
        assert len(seen) == 1
        thread = threading.Thread(target=release, args=[leases[1:]])
        thread.start()
        thread.join()
        assert seen[1:] == [Crossing("w", "", False, 200, 200)]
        leases[0].release()
        assert len(seen) == 2


def test_a_tags_watermarks_name_the_tag():
    seen = []
    with SlabPool(64, 8, tag_quota={"route": Quota(high=128, low=64)}, on_watermark=seen.append) as pool:
        release([pool.acquire(64, tag) for tag in ("route", "other", "route", "route")])
    assert [(crossing.tag, crossing.rising, crossing.bytes) for crossing in seen] == [
        ("route", True, 128),
        ("route", False, 64),
    ]


def test_what_on_watermark_raises_is_told_and_stops_nothing(monkeypatch):
    told = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: told.append(unraisable.exc_value))

    def fail(crossing):
        raise LookupError(crossing.rising)

    with SlabPool(64, 8, high_watermark=64, on_watermark=fail) as pool:
        pool.acquire().release()
    assert [(type(error), error.args) for error in told] == [(LookupError, (True,)), (LookupError, (False,))]


def test_callbacks_live_as_long_as_anything_of_the_pool():
    seen = []
    pool = SlabPool(64, 8, high_watermark=64, on_watermark=seen.append)
    lease = pool.acquire()
    view = lease.view
    lease.release()  # the view holds the block
    del pool, lease
    gc.collect()
    del view
    gc.collect()
    assert [crossing.rising for crossing in seen] == [True, False]


@pytest.mark.parametrize("exhausted", ["raise", "wait"])
@pytest.mark.parametrize(
    ("quota", "told"),
    [
        (Quota(blocks=1), "it asks for 2 blocks, the quota is 1;"),
        (Quota(bytes=100), "it asks for 128 bytes, the quota is 100;"),
    ],
)
def test_a_request_larger_than_its_quota_is_told_both(exhausted, quota, told):
    pool = SlabPool(64, 8, quota=quota, on_exhausted=exhausted)
    with pytest.raises(QuotaExceeded, match=told):
        pool.acquire_many(2)


def test_the_interpreters_own_hook_tells_what_on_watermark_raises():
    program = """if True:
        from pools import SlabPool
        with SlabPool(64, 8, high_watermark=64, on_watermark=lambda crossing: 1 / 0) as pool:
            pool.acquire().release()
        print("went on")
    """
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "went on\n"
    assert run.stderr.count("ZeroDivisionError: division by zero") == 2
    assert "on_watermark" in run.stderr
    assert "in <lambda>" in run.stderr  # the traceback leads into the function
    assert "TypeError" not in run.stderr
