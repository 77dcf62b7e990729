"""BuddyMap: offsets without memory."""

from __future__ import annotations

import threading

import pytest

from pools import (
    BuddyMap,
    DoubleRelease,
    ForeignBlock,
    PoolExhausted,
    PoolValueError,
    Unsupported,
)


def test_ranges_are_powers_of_two_and_aligned():
    ports = BuddyMap(1024)
    for length, granted in [(1, 1), (3, 4), (100, 128)]:
        offset = ports.take(length)
        assert ports.granted(offset) == granted
        assert offset % granted == 0
    ports.check()
    assert repr(ports) == "<BuddyMap 133 of 1024 taken>"


def test_levels_tell_extents_and_what_can_be_taken():
    disk = BuddyMap(96 * 4096, unit=4096)
    disk.reserve(0, 5000)
    levels = disk.levels()
    assert (levels.length, levels.taken, levels.taken_blocks) == (96 * 4096, 8192, 1)
    assert (levels.free_extents, levels.largest_free, levels.largest_take) == (1, 94 * 4096, 32 * 4096)
    disk.give(0)
    assert disk.levels().largest_take == 64 * 4096


def test_misuse_is_told_apart():
    rows = BuddyMap(64)
    offset = rows.take(8)
    with pytest.raises(ForeignBlock):
        rows.give(offset + 1)
    with pytest.raises(ForeignBlock):
        rows.give(64)
    rows.give(offset)
    with pytest.raises(DoubleRelease):
        rows.give(offset)
    assert rows.granted(offset) == 0


def test_what_does_not_fit_is_refused_and_changes_nothing():
    rows = BuddyMap(64, max_length=128)
    first, second = rows.take(8), rows.take(8)
    with pytest.raises(PoolExhausted):
        rows.resize(first, 16)
    with pytest.raises(PoolExhausted, match="aligned: 32"):
        rows.take(64)
    with pytest.raises(PoolExhausted):
        rows.reserve(second, 1)
    rows.reserve(33, 3)
    with pytest.raises(Unsupported):
        rows.resize(33, 1)
    rows.extend(128)
    assert rows.take(64) == 64
    rows.resize(first, 4)
    assert rows.granted(first) == 4
    rows.check()


@pytest.mark.parametrize(
    "call",
    [
        lambda rows: rows.take(0),
        lambda rows: rows.take(65),
        lambda rows: rows.take(-1),
        lambda rows: rows.reserve(0, 65),
        lambda rows: rows.reserve(1, 1),
        lambda rows: rows.resize(1 << 63, 1),
        lambda rows: rows.extend(63),
        lambda rows: rows.extend(66),
        lambda rows: BuddyMap(0),
        lambda rows: BuddyMap(64, 3),
        lambda rows: BuddyMap(64, max_length=32),
        lambda rows: BuddyMap(1 << 27),
    ],
)
def test_numbers_out_of_range_are_value_errors(call):
    with pytest.raises(PoolValueError):
        call(BuddyMap(64, 2))


def test_threads_take_turns():
    rows = BuddyMap(1 << 12)
    kept: list[int] = []

    def use():
        for _ in range(300):
            rows.give(rows.take(3))
        kept.append(rows.take(1))

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(kept)) == 4
    assert rows.levels().taken == 4
    rows.check()
