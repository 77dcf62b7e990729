"""Each formula against values worked out by hand, and the properties that it must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.metrics import formulas

holes = st.lists(st.integers(1, 1 << 30), max_size=40).map(lambda sizes: np.array(sizes, np.int64))
sizes = st.integers(1, 1 << 31)


def extents(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def test_internal_fragmentation_is_the_share_not_asked_for() -> None:
    assert formulas.internal_fragmentation(3000, 4096) == 1 - 3000 / 4096
    assert formulas.internal_fragmentation(4096, 4096) == 0
    assert formulas.internal_fragmentation(0, 0) == 0


def test_external_fragmentation_is_the_share_outside_the_largest_hole() -> None:
    assert formulas.external_fragmentation(1000, 250) == 0.75
    assert formulas.external_fragmentation(0, 0) == 0


def test_hole_dispersion_of_equal_holes_is_one_minus_one_nth() -> None:
    assert formulas.hole_dispersion(extents(10, 10, 10, 10)) == pytest.approx(0.75)
    assert formulas.hole_dispersion(extents(30, 10)) == pytest.approx(1 - (900 + 100) / 1600)
    assert formulas.hole_dispersion(extents(7)) == pytest.approx(0)
    assert formulas.hole_dispersion(extents()) == 0


def test_unusable_free_index_counts_the_rests_of_holes() -> None:
    # 10 holds three requests of 3 (rest 1), 5 holds one (rest 2), 2 holds none: 5 of 17 bytes are lost.
    assert formulas.unusable_free_index(extents(10, 5, 2), 3) == pytest.approx(5 / 17)
    assert formulas.unusable_free_index(extents(10, 5, 2), 11) == 1
    assert formulas.unusable_free_index(extents(), 4) == 0


def test_fragmentation_index_tells_too_little_memory_from_fragmentation() -> None:
    assert formulas.fragmentation_index(extents(10, 20), 20) == -1
    # 100 holes of 10 for a request of 500: 1 - (1 + 1000/500)/100
    assert formulas.fragmentation_index(np.full(100, 10), 500) == pytest.approx(0.97)
    # Two holes of 10 for a request of 1000: 1 - (1 + 20/1000)/2
    assert formulas.fragmentation_index(extents(10, 10), 1000) == pytest.approx(0.49)
    assert formulas.fragmentation_index(extents(), 10) == 0


def test_overhead_and_churn_are_plain_ratios() -> None:
    assert formulas.overhead(100, 400) == 0.25
    assert formulas.overhead(100, 0) is None
    assert formulas.churn(1000, 250) == 4
    assert formulas.churn(1000, 0) == 0


@pytest.mark.parametrize("formula", [formulas.unusable_free_index, formulas.fragmentation_index])
def test_a_request_of_no_bytes_is_refused(formula: object) -> None:
    with pytest.raises(ValueError, match="size is 0"):
        formula(extents(1), 0)


@given(holes)
def test_dispersion_lies_between_zero_and_one_minus_one_over_n(found: np.ndarray) -> None:
    value = formulas.hole_dispersion(found)
    assert -1e-9 <= value <= 1 - 1 / max(len(found), 1) + 1e-9


@given(holes, sizes)
def test_unusable_index_is_one_exactly_where_nothing_fits(found: np.ndarray, size: int) -> None:
    value = formulas.unusable_free_index(found, size)
    assert 0 <= value <= 1
    if len(found):
        assert (value == 1) == (int(found.max()) < size)


@given(holes)
def test_requests_of_one_byte_can_use_everything(found: np.ndarray) -> None:
    assert formulas.unusable_free_index(found, 1) == 0


@given(holes, sizes)
def test_index_is_minus_one_exactly_where_the_request_fits(found: np.ndarray, size: int) -> None:
    fits = len(found) > 0 and int(found.max()) >= size
    assert (formulas.fragmentation_index(found, size) == -1) == fits


@given(holes)
def test_one_hole_more_never_lowers_the_number_of_free_bytes_outside_the_largest(found: np.ndarray) -> None:
    free, largest = int(found.sum()), int(found.max(initial=0))
    more = np.append(found, 1)
    outside = free - largest
    assert int(more.sum()) - int(more.max()) >= outside
    assert 0 <= formulas.external_fragmentation(free, largest) < 1
