"""C and C++ programs find the headers and the library, wherever the package lies, and run."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pools
from pools.__main__ import main

CLONE = Path(__file__).parents[2]
EXAMPLES = CLONE / "examples" / "three_pools"
STRICT = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
C11 = [*STRICT, "-std=c11", "-x", "c"]
CXX17 = [*STRICT, "-std=c++17", "-x", "c++"]
DIALECTS = {
    "gcc": C11,
    "clang": C11,
    "g++": CXX17,
    "clang++": CXX17,
    "x86_64-w64-mingw32-gcc": C11,
}
HEADERS = sorted(path.name for path in (Path(pools.get_include()) / "poolport").glob("*.h"))

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these are the tools of Unix")


def tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if not path:
        pytest.skip(
            f"{name} is not installed; on Debian or Ubuntu: apt-get install g++ clang pkg-config cmake"
        )
    return path


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(params=["where it was installed", "moved elsewhere"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The directory that holds include and lib."""
    installed = Path(pools.get_include()).parent
    if request.param == "where it was installed":
        return installed
    for part in ("include", "lib"):
        shutil.copytree(installed / part, tmp_path / "a prefix" / part)
    return tmp_path / "a prefix"


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out.split()


def assert_it_works(three_pools: Path, leases: Path | None) -> None:
    lines = run(three_pools).splitlines()
    assert lines[1].startswith("sessions: 100 acquired, 0 live")
    assert lines[2].startswith("messages: 1000 acquired, 0 live")
    assert lines[3].startswith("cache: 300 acquired, 150 live")
    if leases:
        assert run(leases).splitlines()[-1] == "0 blocks are live"


@pytest.mark.parametrize("compiler", DIALECTS)
def test_each_header_compiles_alone_without_a_warning(compiler: str, tmp_path: Path) -> None:
    sources = [tmp_path / f"{header}.source" for header in HEADERS]
    for source in sources:
        source.write_text(f"#include <poolport/{source.stem}>\nint nothing_else;\n", encoding="utf-8")
    run(tool(compiler), "-fsyntax-only", "-I", pools.get_include(), *DIALECTS[compiler], *sources)


def test_there_are_the_headers_of_the_checkout() -> None:
    """Those of the allocators and of the engine, none of which has the name of another one."""
    cores = [
        Path(__file__).parents[2] / package / "core" / "include" for package in ("pools", "iocp_adapter")
    ]
    assert sorted(path.name for core in cores for path in core.glob("poolport/*.h")) == HEADERS


def test_a_program_in_c_needs_only_gcc(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = says(capsys, "--cflags"), says(capsys, "--libs")
    program = tmp_path / "three_pools"
    run(tool("gcc"), *C11, EXAMPLES / "three_pools.c", *flags[0], "-x", "none", *flags[1], "-o", program)
    assert_it_works(program, None)


def test_the_program_in_the_documentation_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = Path(__file__).parents[2] / "docs" / "embedding.md"
    source, program = tmp_path / "sizeclass.c", tmp_path / "sizeclass"
    source.write_text(page.read_text(encoding="utf-8").split("```c\n")[1].split("```")[0], encoding="utf-8")
    flags = says(capsys, "--cflags"), says(capsys, "--libs")
    run(tool("gcc"), *C11, source, *flags[0], "-x", "none", *flags[1], "-o", program)
    assert run(program).startswith("asked for 1000 bytes, got 1024 at ")


def test_pkg_config_finds_the_library(tree: Path, tmp_path: Path) -> None:
    def flags(kind: str) -> list[str]:
        search = {"PKG_CONFIG_PATH": str(tree / "lib" / "pkgconfig")}
        return shlex.split(run(tool("pkg-config"), kind, "poolport", env=search))

    def build(compiler: str, dialect: list[str], source: str) -> Path:
        program = tmp_path / source.replace(".", "-")
        words = [*dialect, EXAMPLES / source, *flags("--cflags"), "-x", "none", *flags("--libs")]
        run(tool(compiler), *words, "-o", program)
        return program

    assert_it_works(build("gcc", C11, "three_pools.c"), build("g++", CXX17, "leases.cpp"))


def test_cmake_finds_the_package(tree: Path, tmp_path: Path) -> None:
    cmake, build = tool("cmake"), tmp_path / "build"
    tool("g++")
    installed = tree == Path(pools.get_include()).parent
    where = f"-Dpoolport_DIR={pools.get_cmake_dir()}" if installed else f"-DCMAKE_PREFIX_PATH={tree}"
    run(cmake, "-S", EXAMPLES, "-B", build, where)
    run(cmake, "--build", build)
    assert_it_works(build / "three_pools", build / "leases")


def test_another_project_takes_the_sources_in_with_a_cmake_of_its_own_age(tmp_path: Path) -> None:
    project, build = tmp_path / "server", tmp_path / "build"
    project.mkdir()
    page = CLONE / "docs" / "embedding.md"
    (project / "server.c").write_text(page.read_text(encoding="utf-8").split("```c\n")[1].split("```")[0])
    lines = ["cmake_minimum_required(VERSION 3.21)", "project(server C)", "add_executable(server server.c)"]
    lines += page.read_text(encoding="utf-8").split("```cmake\nadd_sub")[1].split("```")[0].splitlines()[1:]
    lines.insert(2, f'add_subdirectory("{CLONE}" poolport)')
    (project / "CMakeLists.txt").write_text("\n".join(lines))
    run(tool("cmake"), "-S", project, "-B", build, "-DCMAKE_BUILD_TYPE=Debug")
    run(tool("cmake"), "--build", build, "--target", "server", "--parallel", "2")
    assert run(build / "server").startswith("asked for 1000 bytes, got 1024 at ")


def test_the_paths_are_those_that_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert says(capsys, "--includedir") == [pools.get_include()]
    assert says(capsys, "--libdir") == [pools.get_library_dir()]
    assert says(capsys, "--pkgconfigdir") == [pools.get_pkgconfig_dir()]
    assert says(capsys, "--cmakedir") == [pools.get_cmake_dir()]
    assert says(capsys, "--cflags", "--libs")[:3] == [
        f"-I{pools.get_include()}",
        f"-L{pools.get_library_dir()}",
        "-lpoolport",
    ]


def test_asking_for_nothing_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_missing_files_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pools.embedding._TREE", tmp_path)
    with pytest.raises(FileNotFoundError, match="include"):
        pools.get_include()
    assert main(["--libdir"]) == 4
    assert str(tmp_path / "lib") in capsys.readouterr().err
