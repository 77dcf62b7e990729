"""Makes `synthetic` importable, and keeps a few traces that several tests look at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import synthetic


@pytest.fixture
def builder() -> synthetic.TraceBuilder:
    made = synthetic.TraceBuilder()
    made.pool(1, name="recv", strategy="slab")
    return made


@pytest.fixture
def leaky(tmp_path: Path) -> Path:
    """A trace of 600 events in which two blocks leak."""
    return synthetic.workload(5, steps=600, leak=2).builder.write(tmp_path / "leaky.pptrace")
