"""A quantity over time that holds each value until the next."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Float64s = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """`values[i]` holds from `times[i]` (ns, ascending) to `times[i + 1]`, the last one to `end`."""

    times: Int64s
    values: npt.NDArray[np.int64] | Float64s
    end: int

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.times)

    @property
    def peak(self) -> float:
        """The largest value; 0 for an empty series."""
        return self.values.max().item() if len(self.values) else 0

    @property
    def widths(self) -> Int64s:
        """Nanoseconds that each value holds."""
        return np.diff(self.times, append=max(self.end, int(self.times[-1]) if len(self.times) else 0))

    def mean(self) -> float:
        """The mean over time; the plain mean where no time passed, 0 for an empty series."""
        if not len(self.values):
            return 0.0
        widths = self.widths
        if not widths.any():
            return float(self.values.mean())
        return float(np.average(self.values, weights=widths))

    def thinned(self, bins: int) -> Series:
        """At most 2 * bins + 1 steps that keep the lowest and the highest value of every time bin."""
        if len(self) <= 2 * bins:
            return self
        start, end = int(self.times[0]), int(self.times[-1])
        edges = np.linspace(start, end, bins + 1)
        first = np.unique(np.searchsorted(self.times, edges[:-1], side="left"))
        first = first[first < len(self)]
        low = np.minimum.reduceat(self.values, first)
        high = np.maximum.reduceat(self.values, first)
        following = np.append(self.times[first[1:]], end)
        middle = (self.times[first] + following) // 2
        # Rising bins show the low first, so that the outline follows the movement.
        rising = self.values[first] <= self.values[np.append(first[1:], len(self)) - 1]
        times = np.stack([self.times[first], middle], axis=1).ravel()
        values = np.stack([np.where(rising, low, high), np.where(rising, high, low)], axis=1).ravel()
        return Series(np.append(times, end), np.append(values, self.values[-1]), self.end)

    def binned(self, bins: int) -> Bands:
        """The lowest, mean and highest value of each of at most `bins` equal time bins."""
        if not len(self):
            return Bands(np.empty(0), np.empty(0), np.empty(0), np.empty(0))
        edges = np.linspace(int(self.times[0]), max(self.end, int(self.times[-1])), bins + 1)
        index = np.clip(np.searchsorted(edges, self.times, side="right") - 1, 0, bins - 1)
        used, first = np.unique(index, return_index=True)
        weights = np.maximum(self.widths, 1)
        mean = np.add.reduceat(self.values * weights, first) / np.add.reduceat(weights, first)
        low, high = np.minimum.reduceat(self.values, first), np.maximum.reduceat(self.values, first)
        return Bands((edges[used] + edges[used + 1]) / 2, low, mean, high)


@dataclass(frozen=True)
class Bands:
    """What a series did within each time bin; arrays of equal length."""

    times: Float64s  # the middle of each bin, ns
    low: npt.NDArray[np.int64] | Float64s
    mean: Float64s
    high: npt.NDArray[np.int64] | Float64s
