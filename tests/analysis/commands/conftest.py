"""The command as a user runs it: a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import analysis.commands

SCHEMA = json.loads(
    (Path(analysis.commands.__file__).parent / "schemas" / "results.schema.json").read_text("utf-8")
)

Poolport = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def poolport(tmp_path: Path) -> Poolport:
    """Run ``poolport`` with the arguments, in a directory of its own."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "import sys; from analysis.commands import main; sys.exit(main())"]
            + [str(argument) for argument in arguments],
            cwd=tmp_path,
            env=os.environ | (env or {}),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def without(modules: list[str], place: Path) -> dict[str, str]:
    """An environment in which these modules are not installed."""
    hidden = place / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {modules!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    return {"PYTHONPATH": str(hidden)}


def parsed(output: str) -> dict[str, Any]:
    """A command's JSON, after it was held against the published schema."""
    document: dict[str, Any] = json.loads(output)
    jsonschema.validate(document, SCHEMA)
    return document


def says_in_one_sentence(result: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """The exit code is right, the last line names what matters, and nobody sees a traceback."""
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    last = result.stderr.strip().splitlines()[-1]
    for part in parts:
        assert part in last
