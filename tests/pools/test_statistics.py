"""The list of statistics: one source for the struct, the dataclass, the JSON and the documentation."""

from __future__ import annotations

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from pools import STATISTICS, PoolStats, SlabPool
from pools.stats import markdown

DOCS = Path(__file__).parents[2] / "docs" / "statistics.md"


@pytest.mark.skipif(not DOCS.parent.is_dir(), reason="only a checkout has the documentation")
def test_the_documentation_lists_what_there_is():
    assert DOCS.read_text(encoding="utf-8").endswith("\n" + markdown()), (
        "paste what pools.stats.markdown() gives at the end of docs/statistics.md"
    )


def test_the_dataclass_has_the_lists_fields_in_its_order():
    assert [field.name for field in dataclasses.fields(PoolStats)] == [entry.name for entry in STATISTICS]
    assert {entry.kind for entry in STATISTICS} == {"counter", "gauge"}


def test_json_and_dict_say_the_same():
    with SlabPool(64, 8) as pool, pool.acquire(10):
        stats = pool.stats()
        told = json.loads(stats.as_json())
        assert told.pop("version") == 1
        assert told == stats.as_dict() == dataclasses.asdict(stats)
        assert (told["live_blocks"], told["requested_bytes"]) == (1, 10)


def test_a_name_that_is_not_there_is_said_to_be_unknown():
    with SlabPool(64, 8) as pool, pytest.raises(AttributeError, match=r"nonsense.*STATISTICS"):
        _ = pool.stats().nonsense


def test_statistics_can_be_read_from_any_thread_while_the_owner_works():
    with SlabPool(64, 64) as pool:
        done = threading.Event()
        wrong = []

        def read():
            while not done.is_set():
                stats = pool.stats()
                if stats.acquired < stats.released or stats.live_blocks > 64:
                    wrong.append(stats)

        reader = threading.Thread(target=read)
        reader.start()
        for _ in range(2000):
            pool.release_many(pool.acquire_many(8))
        done.set()
        reader.join()
        assert not wrong
