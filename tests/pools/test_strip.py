"""What Jupyter shows for a pool."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from pools import BuddyPool, CompactingPool, MallocPool, SizeClassPool, SlabPool

MAKERS = [
    lambda: SlabPool(4096, 16),
    lambda: SizeClassPool(capacity=1 << 20),
    lambda: BuddyPool(1 << 16),
    lambda: CompactingPool(1 << 20),
    lambda: MallocPool(block_size=4096),
]


def parsed(pool):
    html = pool._repr_html_()
    return html, ElementTree.fromstring(html.replace("&middot;", "-"))  # our own text


@pytest.mark.parametrize("make", MAKERS)
def test_it_is_sound_empty_in_use_and_closed(make):
    with make() as pool:
        parsed(pool)
        leases = [pool.acquire(3000, tag=f"tag {number % 3}") for number in range(9)]
        for lease in leases[::2]:
            lease.release()
        with leases[1].pin():
            html, tree = parsed(pool)
            assert "4 live" in html
            assert tree.findall(".//rect")
        for lease in leases[1::2]:
            lease.release()
    parsed(pool)


def test_the_height_of_a_cell_is_the_share_that_is_owned():
    with SlabPool(4096, 2) as pool, pool.acquire():
        _, tree = parsed(pool)
        blue = [one for one in tree.findall(".//rect") if one.get("fill") == "#0072b2"]
        drawn = sum(float(one.get("height")) for one in blue)
        assert drawn == pytest.approx(240 * 26 / 2, rel=0.02)


def test_names_and_tags_are_text_whatever_they_hold():
    with SlabPool(64, 4, name="<b>&") as pool, pool.acquire(tag="<script>"):
        html, _ = parsed(pool)
        assert "<script>" not in html
        assert "&lt;script&gt; 64 B" in html


def test_blocks_far_apart_are_laid_end_to_end_and_it_is_said():
    with MallocPool() as pool:
        near, far = pool.acquire(100), pool.acquire(64 << 20)
        html, _ = parsed(pool)
        near.release()
        far.release()
        assert re.search(r"2 live", html)
