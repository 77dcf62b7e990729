"""The page: whole, self-contained, honest about what leaked, and safe against its own traces."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic

import analysis
from analysis import OutputError, TraceError, units
from analysis.metrics import Metrics
from analysis.reporting.findings import findings
from analysis.summaries import summary_of


class Page(HTMLParser):
    """Collects tags, addresses and text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.images: list[str] = []
        self.words: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "action", "data", "srcset"}:
                self.addresses.append(value or "")
            if tag == "img" and name == "src":
                self.images.append(value or "")
            assert not name.startswith("on"), (tag, name)

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def malloc_like(tmp_path: Path, name: str = "malloc.pptrace") -> Path:
    builder = synthetic.TraceBuilder()
    builder.pool(1, name="malloc", strategy="malloc")
    builder.note("strategy", "malloc")
    builder.note("throughput_msgs_per_s", 1000)
    for block in range(50):
        builder.alloc(
            block * 10, block + 1, 0x7F00_0000_0000 + block * 9000, 1000, 1008, tag=f"conn-{block % 5}"
        )
        builder.sample(block * 10 + 5, R=200_000, B=(block + 1) * 1008, Q=(block + 1) * 1000, F=9000, L=4000)
    return builder.write(tmp_path / name)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> analysis.Report:
    path = tmp_path_factory.mktemp("traces") / "leaky.pptrace"
    return analysis.report(synthetic.workload(5, steps=600, leak=2).builder.write(path))


@pytest.fixture(scope="module")
def html(report: analysis.Report, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("pages")
    saved = report.save(folder / "report.html")
    assert [entry.name for entry in folder.iterdir()] == ["report.html"]
    return saved.read_text(encoding="utf-8")


def test_one_trace_becomes_one_page_that_needs_no_network(html: str) -> None:
    page = Page(html)
    assert len(html) < 5_000_000
    assert len(page.images) == 6
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed"} & set(page.tags)
    assert re.findall(r"url\(|@import", html) == []


def test_the_page_names_what_leaked(report: analysis.Report, html: str) -> None:
    text = Page(html).text
    assert report.metrics["slab"].certain_leaks
    for leak in report.metrics["slab"].certain_leaks:
        assert leak.tag in text
        assert leak.site in text
        assert units.bytes_text(leak.requested) in text
        assert units.duration_text(leak.oldest_ns) in text


def test_one_leak_is_told_without_a_bar(tmp_path: Path) -> None:
    path = synthetic.workload(5, steps=600, leak=1).builder.write(tmp_path / "one.pptrace")
    report = analysis.report(path)
    page = Page(report.save(tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "leaks" not in report.figures
    assert page.text.count("What was not given back") == 1
    assert "serve (server.py:10)" in page.text


def test_a_pool_that_was_attached_twice_is_listed_once(
    tmp_path: Path, builder: synthetic.TraceBuilder
) -> None:
    builder.pool(2, name="recv", strategy="slab")
    builder.alloc(1, 1, 0, 100, pool=2)
    builder.free(2, 1, 0, 100, pool=2)
    saved = analysis.report(builder.write(tmp_path / "a.pptrace")).save(tmp_path / "r.html")
    assert Page(saved.read_text(encoding="utf-8")).text.count("recv (slab)") == 1


def test_one_block_is_no_plural(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    builder.region(0, 0, 4 << 16)
    builder.alloc(1, 1, 65536, 100)
    path = builder.write(tmp_path / "a.pptrace")
    text = Page(analysis.report(path).save(tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "1 block is live" in text
    assert not re.search(r"\b1 (block|segment|request|record)s\b", text)


def test_several_traces_stand_side_by_side(leaky: Path, tmp_path: Path) -> None:
    report = analysis.report([leaky, malloc_like(tmp_path)])
    text = Page(report.save(tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert [row.label for row in report.summaries] == ["slab", "malloc"]
    assert "2 runs side by side" in text
    assert "The runs compared" in text
    assert "1,000/s" in text
    assert "whole process's heap" in text
    assert all(len(figure.axes) == 2 for figure in report.figures.values())


def test_traces_with_one_label_are_told_apart(tmp_path: Path) -> None:
    paths = [malloc_like(tmp_path, f"{name}.pptrace") for name in "ab"]
    assert [row.label for row in analysis.report(paths).summaries] == ["malloc", "malloc #2"]


def test_texts_of_the_trace_are_escaped(tmp_path: Path, builder: synthetic.TraceBuilder) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&{{7*7}}\u202e\x00"
    builder.note("strategy", evil)
    builder.note("seed", evil)
    builder.note(f"{evil}note", evil)
    builder.pool(2, name=evil, strategy=evil)
    builder.region(0, 0, 4096, pool=2)
    builder.alloc(1, 1, 0, 100, tag=evil, stack=evil, pool=2)
    builder.alloc(1, 2, 100, 50, tag="other", pool=2)
    builder.event(synthetic.LEAK, 9, block=2, requested=50, granted=50, tag="other", pool=2)
    builder.event(synthetic.FAIL, 2, requested=5000, aux=1, tag=evil, pool=2)
    builder.event(synthetic.LEAK, 9, block=1, requested=100, granted=100, tag=evil, stack=evil, pool=2)
    path = builder.write(tmp_path / "evil.pptrace")
    html = analysis.report([path, path]).save(tmp_path / "r.html").read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in page.tags
    assert len(page.images) == page.tags.count("img") == 6
    assert "49" not in re.findall(r"&{\S*", page.text)
    assert "\u202e" not in html
    assert "\x00" not in html
    assert "<script>alert(1)" in page.text


def test_the_page_stays_small_whatever_the_run_was(tmp_path: Path) -> None:
    builder = synthetic.workload(2, steps=6000, slots=500, slot=512, leak=200).builder
    for number in range(500):
        builder.text(synthetic.TAG, f"tag {number} " + "y" * 4000)
    saved = analysis.report([builder.write(tmp_path / "long.pptrace")] * 3).save(tmp_path / "r.html")
    assert saved.stat().st_size < 5_000_000


def test_an_existing_page_is_overwritten_only_by_force(report: analysis.Report, tmp_path: Path) -> None:
    target = tmp_path / "r.html"
    target.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        report.save(target)
    assert target.read_text() == "mine"
    report.save(target, force=True)
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_a_page_that_cannot_be_written_leaves_nothing_behind(report: analysis.Report, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        report.save(tmp_path / "nowhere" / "r.html")
    with pytest.raises(OutputError, match="is a directory"):
        report.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_a_directory_without_permission_is_an_error(report: analysis.Report, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        report.save(locked / "r.html")


def test_jupyter_shows_a_part_of_a_page(report: analysis.Report) -> None:
    part = report._repr_html_()
    assert part.startswith('<div class="poolport-report">')
    assert "<html" not in part
    assert len(part) < 1_500_000


def test_what_is_not_in_the_trace_is_not_on_the_page(html: str) -> None:
    text = Page(html).text
    assert "Throughput" not in text
    assert "Latency" not in text


def test_an_incomplete_trace_says_so_at_the_top(tmp_path: Path) -> None:
    path = tmp_path / "killed.pptrace"
    synthetic.workload(4, steps=300).builder.write(path, closed=False)
    text = Page(analysis.report(path).save(tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "never closed" in text


def test_no_trace_at_all_is_an_error() -> None:
    with pytest.raises(TraceError, match="No trace"):
        analysis.report([])


def test_the_numbers_are_a_json_document(report: analysis.Report) -> None:
    document = json.loads(report.to_json())
    assert document["schema_version"] == 1
    assert document["kind"] == "report"
    assert document["traces"][0]["leaked_blocks"] == 2


def test_what_is_true_of_several_runs_is_said_once(leaky: Path, tmp_path: Path) -> None:
    tight = synthetic.workload(5, steps=600).builder.write(tmp_path / "tight.pptrace")

    def said(*paths: Path) -> list[str]:
        metrics = [Metrics(analysis.load(path)) for path in paths]
        return [finding.text for finding in findings(metrics, [summary_of(each) for each in metrics])]

    assert any(text.startswith("All 3 runs: ") and "leaked 2 blocks" in text for text in said(*[leaky] * 3))
    both = said(leaky, tight)
    assert not any(text.startswith("Both runs: ") and "leaked" in text for text in both)
    assert any(text.startswith("slab: ") and "leaked 2 blocks" in text for text in both)


def test_the_same_leak_of_several_runs_is_said_once_with_the_longest_time(tmp_path: Path) -> None:
    traces = []
    for end in (5_000, 9_000_000):
        builder = synthetic.TraceBuilder()
        builder.pool(1, name="recv", strategy="slab")
        builder.region(0, 0, 4 << 16)
        builder.alloc(1_000, 1, 65536, 100, tag="conn-7")
        builder.event(synthetic.LEAK, end, block=1, requested=100, granted=100, tag="conn-7", aux=end - 1_000)
        traces.append(Metrics(analysis.load(builder.write(tmp_path / f"{end}.pptrace"))))
    said = [each.text for each in findings(traces, [summary_of(each) for each in traces])]
    assert said[0].startswith("Both runs: conn-7 leaked 1 block")
    assert f"held for up to {units.duration_text(9_000_000 - 1_000)}." in said[0]
    assert not any("leaked" in text for text in said[1:])
