"""What is a tag, what is none, and which blocks carry it."""

from __future__ import annotations

import pytest

from pools import PoolValueError


def test_blocks_carry_their_tag(pool):
    tags = ["conn-1", pool.tag("conn-1"), 0]
    leases = [pool.acquire(10, tag) for tag in tags]
    assert [lease.tag for lease in leases] == ["conn-1", "conn-1", ""]
    assert sorted(info.tag for info in pool.walk() if info.handle) == ["", "conn-1", "conn-1"]
    assert pool.tag_text(pool.tag("conn-1")) == "conn-1"
    assert pool.tag_text(0) == pool.tag_text(99) == ""
    pool.release_many(leases)


@pytest.mark.parametrize("text", ["", "x" * 4097, "é" * 2049])
def test_an_impossible_tag_is_refused(pool, text):
    with pytest.raises(PoolValueError, match="4096"):
        pool.tag(text)
    with pytest.raises(PoolValueError):
        pool.acquire(10, text)


def test_any_other_text_is_a_tag(pool):
    for text in ("é" * 2048, "a\0b", "line\nbreak", "\ud800 half a character"):
        assert pool.tag(text) == pool.tag(text)
    assert pool.tag_text(pool.tag("a\0b")) == "a\0b"


@pytest.mark.parametrize("number", [1, 2**24, 2**24 + 1, 2**32, 2**64, -1])
def test_a_number_that_tag_did_not_give_is_no_tag(pool, number):
    for call in (lambda: pool.acquire(64, number), lambda: pool.acquire_many(2, 64, tag=number)):
        with pytest.raises(PoolValueError, match=rf"tag {number} .*tag\(\)"):
            call()
    given = pool.tag("given")
    assert given == 1
    with pool.acquire(64, given) as lease:
        assert lease.tag == "given"
    with pool.acquire(64, 0) as lease:
        assert lease.tag == ""


@pytest.mark.parametrize("tag", [None, b"x", 1.5, ["a"], object])
def test_what_is_no_text_is_no_tag(pool, tag):
    for call in (lambda: pool.acquire(64, tag), lambda: pool.tag(tag)):
        with pytest.raises(TypeError, match="give a text"):
            call()
