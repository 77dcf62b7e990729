"""Looking at every block of a pool, or at some."""

from __future__ import annotations

import math
import threading

import pytest

from pools import BlockInfo, PoolValueError, SlabPool, Walk, WrongThread

from .conftest import make, release


@pytest.fixture
def pool():
    """Eight blocks: three owned, of which one is pinned, and one in flight."""
    with SlabPool(64, 8) as pool:
        leases = [pool.acquire(10 + number, tag=f"tag {number}") for number in range(4)]
        with leases[1].pin(), leases[3].pin():
            leases.pop().release()
            yield pool
        release(leases)


def test_a_walk_is_a_sequence_of_all_blocks(pool):
    blocks = pool.walk()
    assert isinstance(blocks, Walk)
    assert len(blocks) == 8
    assert [block.offset for block in blocks] == [64 * number for number in range(8)]
    assert blocks[0] == next(iter(blocks)) == blocks[-8]
    assert isinstance(blocks[0], BlockInfo)
    assert blocks[2:5] == list(blocks)[2:5]
    assert blocks[0] in blocks
    assert blocks == list(blocks)
    assert [block.offset for block in pool.walk()] == [block.offset for block in blocks]  # and older by now
    assert blocks != blocks[1:]
    with pytest.raises(IndexError):
        blocks[8]


def test_only_those_in_some_states_may_be_asked_for(pool):
    assert [block.tag for block in pool.walk("owned")] == ["tag 0", "tag 2"]
    assert [block.tag for block in pool.walk("owned and in flight", "owned")] == ["tag 0", "tag 1", "tag 2"]
    assert [block.pins for block in pool.walk("in flight")] == [(0, 0, 1)]
    assert len(pool.walk("free")) == 4
    assert pool.walk("cached") == []
    with pytest.raises(PoolValueError, match="'busy'"):
        pool.walk("busy")


def test_it_is_the_pool_of_one_moment(pool):
    blocks = iter(pool.walk("free"))
    first = next(blocks)
    leases = [pool.acquire() for _ in range(4)]
    assert first.state == "free"
    assert [block.state for block in blocks] == ["free"] * 3
    assert len(pool.walk("free")) == 0
    release(leases)


def test_many_blocks_are_read_in_pieces_and_none_is_missed():
    with SlabPool(64, 5000) as pool:
        batch = pool.acquire_many(3000, tag="many")
        assert [block.offset for block in pool.walk()] == [64 * number for number in range(5000)]
        owned = pool.walk("owned")
        assert len(owned) == len({block.handle for block in owned}) == 3000
        assert {block.tag for block in owned} == {"many"}
        batch.release()


def test_every_tag_and_site_has_its_text(strategy):
    with make(strategy) as pool:
        pool.record_sites()
        leases = {f"tag {number}": pool.acquire(64, tag=f"tag {number}") for number in range(10)}
        seen = {block.tag: block.site for block in pool.walk("owned")}
        assert seen == {tag: lease.site for tag, lease in leases.items()}
        release(leases.values())


def test_another_thread_than_the_owner_may_not_look(pool):
    errors = []

    def look():
        for call in (pool.walk, pool._repr_html_, lambda: pool.held(0), pool.trim, pool.close):
            try:
                call()
            except WrongThread as error:
                errors.append(str(error))

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert [text.split(" of pool")[0] for text in errors] == ["walk", "strip", "held blocks", "trim", "close"]


def test_ages_that_no_block_can_have(pool):
    assert list(pool.held(math.inf)) == []
    with pytest.raises(PoolValueError, match="nan"):
        pool.held(math.nan)
