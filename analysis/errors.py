"""What can go wrong in the analysis, and which exit code the command line gives it.

| exception | exit code | meaning |
|---|---|---|
| `TraceError` | 3 | an input file is not a readable trace |
| `MissingExtra` | 4 | an optional dependency is not installed |
| `PlatformLacks` | 4 | the machine has no such library, limit or kernel feature |
| `UsageError` | 2 | an argument is out of its range |
| `OutputError` | 2 | the result cannot be written where it was asked for |
| `BalanceError` | 1 | a law that must hold in every trace does not |

Each message is one or two sentences: what happened, the value seen, the limit, the remedy.
"""

from typing import ClassVar


class AnalysisError(Exception):
    """Base of everything that the analysis raises on purpose."""

    exit_code: ClassVar[int] = 1


class TraceError(AnalysisError):
    """The file is not a trace, is newer than this reader, or is damaged."""

    exit_code = 3


class MissingExtra(AnalysisError):
    """A package of an optional extra is not installed."""

    exit_code = 4

    def __init__(self, *packages: str, extra: str = "analysis") -> None:
        """Name the packages that were missed, and the extras that bring them, divided by commas."""
        verb = "is" if len(packages) == 1 else "are"
        super().__init__(f'{", ".join(packages)} {verb} not installed: run pip install "poolport[{extra}]"')
        self.packages = packages
        self.extra = extra


class PlatformLacks(AnalysisError):
    """The machine lacks something that was asked for; the message names it and what brings it."""

    exit_code = 4


class UsageError(AnalysisError):
    """An argument is out of its range; the message gives the value and the range."""

    exit_code = 2


class OutputError(AnalysisError):
    """The output exists already, or its place cannot be written."""

    exit_code = 2


class BalanceError(AnalysisError):
    """A trace breaks one of the conservation laws; the message names the first place."""

    exit_code = 1
