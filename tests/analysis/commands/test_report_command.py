"""``poolport report``: a page from traces, and a sentence for everything that is none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from analysis import layout
from pools import SlabPool, Trace

from .conftest import Poolport, parsed, says_in_one_sentence, without


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A small real trace in which one block leaks."""
    path = tmp_path / "run.pptrace"
    pool = SlabPool(4096, 8, name="small")
    with Trace(path) as writer:
        pool.attach(writer)
        with pool.acquire(tag="short"):
            pool.sample()
        lost = pool.acquire(tag="kept for ever")
        pool.sample()
        pool.close()
    lost.release()
    return path


def test_a_trace_becomes_one_page(poolport: Poolport, trace: Path) -> None:
    result = poolport("report", trace)
    assert result.returncode == 0, result.stderr
    assert "Leaked blocks" in result.stdout
    assert "next" not in result.stdout, "what to run next is no part of the result"
    assert result.stderr.strip().splitlines()[-1] == "next: open report.html"
    assert "kept for ever" in (trace.parent / "report.html").read_text("utf-8")


def test_json_follows_the_schema(poolport: Poolport, trace: Path) -> None:
    result = poolport("report", trace, "--json")
    assert parsed(result.stdout)["traces"][0]["leaked_blocks"] == 1


def test_an_existing_page_is_kept_unless_forced(poolport: Poolport, trace: Path) -> None:
    page = trace.parent / "report.html"
    page.write_text("mine")
    says_in_one_sentence(poolport("report", trace), 2, "exists already", "--force")
    says_in_one_sentence(poolport("report", "absent.pptrace"), 3, "absent.pptrace")
    assert page.read_text() == "mine"
    assert poolport("report", trace, "--force").returncode == 0
    assert page.read_text("utf-8") != "mine"


def test_what_is_no_trace_is_refused_with_the_reason(poolport: Poolport, trace: Path, tmp_path: Path) -> None:
    whole = trace.read_bytes()
    cases = {
        "empty": b"",
        "text": b"hello, world\n" * 100,
        "cut": whole[: len(whole) // 2],
        "newer": whole[:8] + struct.pack("<I", 99) + whole[12:],
    }
    for name, content in cases.items():
        path = tmp_path / f"{name}.pptrace"
        path.write_bytes(content)
        says_in_one_sentence(poolport("report", path, "--output", tmp_path / "x.html"), 3, name)
    says_in_one_sentence(poolport("report", tmp_path / "absent.pptrace"), 3, "absent.pptrace")
    assert not (tmp_path / "x.html").exists()


def test_an_unwritable_output_is_refused_before_any_work(
    poolport: Poolport, trace: Path, tmp_path: Path
) -> None:
    says_in_one_sentence(poolport("report", trace, "-o", tmp_path / "no" / "x.html"), 2, "does not exist")
    says_in_one_sentence(poolport("report", trace, "-o", tmp_path), 2, "directory")


@pytest.mark.parametrize(
    ("modules", "extras"),
    [
        (["numpy"], "analysis"),
        (["jinja2"], "analysis"),
        (["rich"], "cli"),
        (["matplotlib", "rich"], "analysis,cli"),
    ],
)
def test_a_missing_extra_is_named(
    poolport: Poolport, trace: Path, tmp_path: Path, modules: list[str], extras: str
) -> None:
    env = without(modules, tmp_path)
    for command in (("report", trace), ("replay", trace), ("demo", "--quick")):
        says_in_one_sentence(poolport(*command, env=env), 4, f"poolport[{extras}]", *modules)
    assert not (tmp_path / "demo").exists(), "no run whose report could not be drawn"


def test_what_needs_no_table_needs_no_table_printer(poolport: Poolport, trace: Path, tmp_path: Path) -> None:
    assert poolport("report", trace, "--json", env=without(["rich"], tmp_path)).returncode == 0


def test_what_is_there_of_a_cut_trace_is_read_when_asked_for(poolport: Poolport, tmp_path: Path) -> None:
    path = tmp_path / "long.pptrace"
    with Trace(path) as writer, SlabPool(64, 16) as pool:
        pool.attach(writer)
        for _ in range(2 * layout.CHUNK_BYTES // layout.RECORD.itemsize):
            pool.acquire().release()
    whole = path.read_bytes()
    cut = tmp_path / "cut.pptrace"
    cut.write_bytes(whole[: layout.HEADER_BYTES + 2 * layout.CHUNK_BYTES])
    says_in_one_sentence(poolport("report", cut), 3, "cut off", "--partial")
    result = poolport("report", cut, "--partial")
    assert result.returncode == 0, result.stderr
    assert "cut off" in result.stderr
    says_in_one_sentence(poolport("replay", cut, "--strategies", "slab"), 3, "--partial")
    early = tmp_path / "early.pptrace"
    early.write_bytes(whole[: layout.HEADER_BYTES + 100])
    said = poolport("report", early, "--partial", "-o", "early.html")
    says_in_one_sentence(said, 3, "holds no allocation", "cut off")
    assert "attach" not in said.stderr
    assert poolport("replay", cut, "--strategies", "slab", "--reps", "0", "--partial").returncode == 0
