"""Hold the Windows run of the tests against the run on this machine.

Usage: account.py HERE.xml WINDOWS.xml... PAGE.md

Prints how many tests ran on each, and what did not run on Windows, by reason. Fails where less than
95 % of what ran here ran there too, where PAGE.md does not name a test that did not run there, and where
a test recorded a property "same on every system" that is not.
A test that ran once for each of several back ends is one test.
"""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

SHARE = 0.95
SAME = "same on every system"
_BACKEND = re.compile(r"\b(?:io_uring|epoll|iocp)\b")


def cases(path: Path) -> dict[tuple[str, str], str | None]:
    """Each test's file and name, and why it was skipped, or None where it ran."""
    found: dict[tuple[str, str], str | None] = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        skipped = case.find("skipped")
        key = (case.get("classname", ""), _BACKEND.sub("*", case.get("name", "")))
        if skipped is None:
            found[key] = None
        else:
            found.setdefault(key, skipped.get("message", ""))
    return found


def properties(path: Path) -> dict[tuple[str, str], str]:
    """What tests recorded that is to be the same on every system."""
    found = {}
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        for recorded in case.iterfind(f"properties/property[@name='{SAME}']"):
            found[case.get("classname", ""), case.get("name", "")] = recorded.get("value", "")
    return found


def differing(here: dict[tuple[str, str], str], there: dict[tuple[str, str], str]) -> list[str]:
    """A line for each test that recorded on both systems, and not the same."""
    return [
        f"{name}: {value} here, {there[module, name]} on Windows"
        for (module, name), value in here.items()
        if there.get((module, name), value) != value
    ]


def main(arguments: list[str]) -> int:
    """Print the account; the exit code."""
    here_path, *windows_paths, page = map(Path, arguments)
    here = cases(here_path)
    windows: dict[tuple[str, str], str | None] = {}
    for path in windows_paths:
        windows |= cases(path)
    ran_here = {case for case, skipped in here.items() if skipped is None}
    ran_there = {case for case, skipped in windows.items() if skipped is None}
    missing: dict[str, list[str]] = defaultdict(list)
    for case in sorted(ran_here - ran_there):
        missing[windows.get(case) or "there is no such test"].append(case[1])
    for reason, names in sorted(missing.items(), key=lambda item: -len(item[1])):
        print(f"not on Windows ({len(names)}): {reason}: {', '.join(sorted(set(names)))}")
    share = len(ran_here & ran_there) / len(ran_here)
    print(
        f"{len(ran_here)} tests ran here, {len(ran_there)} on Windows, {share:.1%} of the former among them "
        f"(at least {SHARE:.0%})"
    )
    text = page.read_text(encoding="utf-8")
    functions = {name.partition("[")[0] for group in missing.values() for name in group}
    unnamed = sorted(name for name in functions if f"`{name}`" not in text)
    for name in unnamed:
        print(f"{page} does not say why {name} does not run on Windows")
    same_here = properties(here_path)
    same_there = {case: value for path in windows_paths for case, value in properties(path).items()}
    different = differing(same_here, same_there)
    print(f"{len(same_here.keys() & same_there.keys())} results were compared between the systems")
    print("\n".join(different), end="\n" if different else "")
    return int(share < SHARE or bool(unnamed) or bool(different))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
