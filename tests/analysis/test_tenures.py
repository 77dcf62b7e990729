"""Blocks' histories, from events in any order that a pool can write them in."""

from __future__ import annotations

from pathlib import Path

import synthetic

import analysis
from analysis.metrics import levels
from analysis.tenures import Tenures


def tenures(builder: synthetic.TraceBuilder, tmp_path: Path) -> Tenures:
    return analysis.load(builder.write(tmp_path / "t.pptrace")).tenures


def test_an_allocation_and_its_release_are_one_life(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.alloc(0, 9, 64, 10, 16, tag="a")
    builder.alloc(1, 8, 80, 10, 16, tag="b")
    builder.free(2, 9, 64, 10, 16, tag="a")
    found = tenures(builder, tmp_path)
    assert found.block.tolist() == [8, 9]
    assert found.start.tolist() == [1, 0]
    assert found.end.tolist() == [3, 2]
    assert found.freed.tolist() == [False, True]


def test_who_is_announced_though_he_was_told_of_does_not_live_twice(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 9, 64, 10, 16)
    builder.alloc(1, 9, 64, 10, 16, flags=synthetic.BORN_BEFORE)
    builder.alloc(2, 8, 80, 10, 16)
    builder.free(3, 8, 80, 10, 16)
    builder.alloc(4, 8, 80, 10, 16, flags=synthetic.BORN_BEFORE)
    builder.free(5, 9, 64, 10, 16)
    found = tenures(builder, tmp_path)
    assert found.block.tolist() == [8, 9]
    assert found.start.tolist() == [2, 0]
    assert found.end.tolist() == [3, 5]
    assert not found.born_before.any()
    assert (found.lost_frees, found.double_frees) == (0, 0)


def test_a_move_and_a_resize_continue_the_life(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.alloc(0, 9, 64, 10, 16)
    builder.event(synthetic.RESIZE, 1, block=9, offset=64, requested=30, granted=32, aux=16)
    builder.event(synthetic.MOVE, 2, block=9, offset=0, requested=30, granted=32, aux=64)
    builder.free(3, 9, 0, 30, 32)
    found = tenures(builder, tmp_path)
    assert found.granted.tolist() == [16, 32, 32]
    assert found.offset.tolist() == [64, 64, 0]
    assert found.first.tolist() == [True, False, False]
    assert found.last.tolist() == [False, False, True]
    level = levels(analysis.load(tmp_path / "t.pptrace"))
    assert level.granted.tolist() == [16, 32, 32, 0]
    assert level.requested.tolist() == [10, 30, 30, 0]


def test_discarding_all_ends_the_blocks_of_that_pool_only(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0, 8, pool=1)
    builder.alloc(0, 2, 0, 8, pool=2)
    builder.event(synthetic.DISCARD_ALL, 1, pool=1)
    builder.alloc(2, 3, 0, 8, pool=1)
    found = tenures(builder, tmp_path)
    assert dict(zip(found.block.tolist(), found.end.tolist(), strict=True)) == {1: 2, 2: 4, 3: 4}


def test_bytes_released_under_a_pin_are_held_until_the_last_unpin(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0, 10, 16)
    builder.event(synthetic.PIN, 1, block=1)
    builder.event(synthetic.PIN, 2, block=1)
    builder.free(3, 1, 0, 10, 16)
    builder.event(synthetic.UNPIN, 4, block=1)
    builder.event(synthetic.UNPIN, 5, block=1)
    found = tenures(builder, tmp_path)
    assert (found.end.tolist(), found.held.tolist()) == ([3], [5])
    level = levels(analysis.load(tmp_path / "t.pptrace"))
    assert level.granted.tolist() == [16, 16, 16, 16, 16, 0]
    assert level.requested.tolist() == [10, 10, 10, 0, 0, 0]
    assert level.blocks.tolist() == [1, 1, 1, 0, 0, 0]


def test_a_block_that_stays_pinned_is_held_for_good(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.alloc(0, 1, 0, 10, 16)
    builder.event(synthetic.PIN, 1, block=1)
    builder.free(2, 1, 0, 10, 16)
    assert tenures(builder, tmp_path).held.tolist() == [3]


def test_blocks_from_before_the_trace_are_shown_as_such(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.alloc(0, 1, 0, 10, 16, flags=synthetic.BORN_BEFORE)
    builder.alloc(1, 2, 16, 10, 16)
    builder.free(2, 3, 32, 20, 32)
    builder.event(synthetic.LEAK, 3, block=4, offset=64, requested=40, granted=64)
    builder.event(synthetic.MOVE, 4, block=5, offset=0, requested=8, granted=8, aux=128)
    found = tenures(builder, tmp_path)
    assert found.block.tolist() == [1, 2, 3, 4, 5, 5]
    assert found.born_before.tolist() == [True, False, True, True, True, True]
    assert found.start.tolist() == [0, 1, -1, -1, -1, 4]
    assert found.offset.tolist() == [0, 16, 32, 64, 128, 0]
    level = levels(analysis.load(tmp_path / "t.pptrace"))
    assert level.granted.tolist() == [16 + 32 + 64 + 8, 136, 104, 104, 104]


def test_misuse_is_counted(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.alloc(0, 1, 0, 8)
    builder.alloc(1, 1, 0, 8)
    builder.free(2, 1, 0, 8)
    builder.free(3, 1, 0, 8)
    found = tenures(builder, tmp_path)
    assert (found.lost_frees, found.double_frees) == (1, 1)


def test_the_same_handle_in_two_pools_is_two_blocks(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.alloc(0, 1, 0, 8, pool=1)
    builder.alloc(1, 1, 0, 8, pool=2)
    builder.free(2, 1, 0, 8, pool=1)
    found = tenures(builder, tmp_path)
    assert found.end.tolist() == [2, 3]
    assert (found.lost_frees, found.double_frees) == (0, 0)
