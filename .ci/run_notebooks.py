"""Run a quick demo and execute every notebook on it, in a temporary directory.

Usage: run_notebooks.py [--store]

With ``--store`` the notebooks are written back with their outputs, as they are kept in the
repository; without, they are only executed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
POOLPORT = Path(sys.executable).parent / "poolport"
TIMEOUT_S = 300


def main() -> None:
    """Make the demo, execute the notebooks."""
    store = "--store" in sys.argv[1:]
    with tempfile.TemporaryDirectory() as scratch:
        demo = Path(scratch) / "demo"
        size = [] if store else ["--quick"]
        subprocess.run([POOLPORT, "demo", *size, "--leak", "--output", demo], check=True)
        os.environ["POOLPORT_DEMO_DIR"] = str(demo)
        for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
            notebook = nbformat.read(path, as_version=4)
            NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": scratch}}).execute()
            print(f"executed {path.relative_to(ROOT)}")
            if store:
                nbformat.write(notebook, path)


if __name__ == "__main__":
    main()
