"""Figures of one trace. Each function takes Metrics or a Trace, and axes or None; each returns axes.

    from analysis import figures, load

    ax = figures.water_levels(load("run.pptrace"))
    ax.figure.savefig("levels.png")

Without axes a new matplotlib Figure is made, with a footer (trace, strategy, seed, version). The
titles state what was found, with its number. All texts from a trace are drawn literally.
"""

from analysis.figures.address_by_time import occupancy
from analysis.figures.bytes_by_tag import outstanding_by_tag
from analysis.figures.fragmentation_over_time import fragmentation
from analysis.figures.leak_bars import leaks
from analysis.figures.levels_over_time import water_levels
from analysis.figures.rates_over_time import rates

__all__ = ["fragmentation", "leaks", "occupancy", "outstanding_by_tag", "rates", "water_levels"]
