"""The package itself: its version, and what it says where it was not built."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pools


def test_the_package_tells_the_version_that_was_installed():
    assert pools.__version__ == metadata.version("poolport")


def test_a_source_tree_that_is_not_built_says_so(tmp_path):
    source = Path(pools.__file__).parent
    shutil.copytree(source, tmp_path / "pools", ignore=lambda _, names: [n for n in names if "_pools." in n])
    (tmp_path / "pools" / "bindings").mkdir(exist_ok=True)
    ran = subprocess.run(
        [sys.executable, "-S", "-c", "import pools"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "is not built" in last
    assert "circular" not in ran.stderr
