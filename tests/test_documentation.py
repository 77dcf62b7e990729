"""What the documentation shows in Python runs: each page's examples, in order, as one program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
_EXAMPLE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
# A page that needs a trace of the reader's gets one under the name it uses.
_TRACE = """
from pools import SlabPool, Trace
with Trace("run.pptrace") as trace:
    pool = SlabPool(4096, 16)
    pool.attach(trace)
    for size in (100, 200, 3000):
        pool.acquire(size, tag="example").release()
    pool.close()
del pool, trace
"""

pytestmark = pytest.mark.skipif(not PAGES[0].exists(), reason="only a checkout has the documentation")


def program_of(page: Path) -> str:
    examples = _EXAMPLE.findall(page.read_text(encoding="utf-8"))
    # Servers serve nobody here, and take any free port.
    return "\n".join(examples).replace("server.serve_forever()", "pass").replace("9000", "0")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_run(page: Path, tmp_path: Path) -> None:
    program = program_of(page)
    if not program:
        pytest.skip("it has no example in Python")
    if "run.pptrace" in program and 'Trace("run.pptrace")' not in program:
        program = _TRACE + program
    script = tmp_path / "example.py"
    script.write_text(program, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, f"{run.stderr}\n{program}"


def test_the_page_of_the_readme_s_example_names_the_block_that_was_kept(tmp_path: Path) -> None:
    examples = _EXAMPLE.findall(PAGES[0].read_text(encoding="utf-8"))
    (traced,) = [example for example in examples if "Trace(" in example]
    subprocess.run([sys.executable, "-c", traced], cwd=tmp_path, check=True, timeout=300)
    assert "kept leaked 1 block" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


# ---- the table of docs/testing.md --------------------------------------------------------------

_ROW = re.compile(r"^\| (?P<what>.+?) \| (?P<tests>`.+?) \| .+ \|$", re.MULTILINE)
_NAME = re.compile(r"`(\w+)`")
_IN_PYTHON = re.compile(r"^def (test_\w+)\(", re.MULTILINE)
_IN_C = re.compile(r"\bRUN\w*\((\w+)\)")


def existing(pattern: re.Pattern[str], suffix: str) -> set[str]:
    folder = ROOT / "tests" / "iocp_adapter"
    return {
        name for path in folder.rglob(f"test_*{suffix}") for name in pattern.findall(path.read_text("utf-8"))
    }


def test_every_test_that_is_said_to_force_something_exists() -> None:
    rows = _ROW.findall((ROOT / "docs" / "testing.md").read_text("utf-8"))
    assert len(rows) > 40
    there = existing(_IN_PYTHON, ".py") | existing(_IN_C, ".c")
    for what, tests in rows:
        assert not set(_NAME.findall(tests)) - there, what
