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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"length": 2**70}, r"length=.* 1 to 67108864,"),
        ({"length": 2**70, "unit": 2**50}, f"length=.* to {2**62}$"),
        ({"length": 1024, "unit": 3}, "unit=3 .*power of two"),
        ({"length": 1000, "unit": 16}, "length=1000 .*unit=16"),
        ({"length": 1024, "unit": 16, "max_length": 2008}, "max_length=2008 .*unit=16"),
        ({"length": 1024, "max_length": 512}, "max_length=512 .*length=1024"),
    ],
)
def test_a_map_that_cannot_be_is_refused_by_the_parameter_that_is_wrong(options, said):
    with pytest.raises(PoolValueError, match=said):
        BuddyMap(**options)


def test_the_largest_map_that_is_named_can_be():
    assert BuddyMap(2**62, 2**50).levels().length == 2**62


def test_a_range_beyond_every_length_is_told_the_longest():
    ranges = BuddyMap(1024, 16, max_length=2048)
    with pytest.raises(PoolValueError, match=r"max_length=2048 is 2048.*1 to 2048"):
        ranges.take(5000)
    with pytest.raises(PoolExhausted, match=r"extend\(\) the map to as many as 2048"):
        ranges.take(2048)
    ranges.extend(2048)
    assert ranges.take(2048) == 0
    with pytest.raises(PoolExhausted) as refused:
        ranges.take(16)
    assert "extend" not in str(refused.value)


def test_a_range_behind_the_end_is_told_the_end_and_how_far_it_may_be_extended():
    ranges = BuddyMap(1024, 16, max_length=2048)
    with pytest.raises(PoolValueError, match=r"0 to 1024, or extend\(\) it to 1040 or more, at most 2048"):
        ranges.reserve(1024, 16)
    with pytest.raises(PoolValueError, match=r"0 to 1024$"):
        ranges.reserve(2048, 16)
    with pytest.raises(PoolValueError, match=r"^offset=-1 "):
        ranges.reserve(-1, 16)
    with pytest.raises(PoolValueError, match=r"^length=-1 "):
        ranges.reserve(0, -1)


def test_a_reserved_range_that_is_no_block_says_why_it_cannot_be_resized():
    ranges = BuddyMap(1024, 16)
    ranges.reserve(0, 48)
    with pytest.raises(Unsupported, match=r"power of two.*take another"):
        ranges.resize(0, 64)
