"""Programs in C on the installed engine: a handler that a server in Python takes, and a whole server.

On Windows there is no compiler to try them with: they are built elsewhere, against what is installed here,
and POOLPORT_BUILT_EXAMPLES says where they lie.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import iocp_adapter
import pools
from iocp_adapter.__main__ import main

EXAMPLES = Path(__file__).parents[2] / "examples"
SERVER = [EXAMPLES / "c" / name for name in ("port_echo_server.c", "listen_unix.c")]
WINDOWS = os.name == "nt"
STRICT = ["-std=c11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror"]


def tool(name: str) -> str:
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if not path:
        pytest.skip(f"{name} is not installed; on Debian or Ubuntu: apt-get install gcc pkg-config cmake")
    return path


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=env, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def copied(target: Path) -> Path:
    """The installed files in another place, as a prefix of their own."""
    installed = Path(iocp_adapter.get_include()).parent
    for part in ("include", "lib"):
        shutil.copytree(installed / part, target / part)
    return target


@pytest.fixture(scope="module", params=["cross-built"] if WINDOWS else ["where it was installed", "moved"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``examples/engine``, built by CMake against the installed package."""
    if WINDOWS:
        if "POOLPORT_BUILT_EXAMPLES" not in os.environ:
            pytest.skip("there is no compiler here, and nobody has built examples/engine elsewhere")
        return Path(os.environ["POOLPORT_BUILT_EXAMPLES"])
    build = tmp_path_factory.mktemp("build")
    if request.param == "moved":
        where = f"-DCMAKE_PREFIX_PATH={copied(tmp_path_factory.mktemp('a prefix'))}"
    else:
        where = f"-Dpoolport_DIR={iocp_adapter.get_cmake_dir()}"
    run(tool("cmake"), "-S", EXAMPLES / "engine", "-B", build, where)
    run(tool("cmake"), "--build", build)
    return build


def says(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out.split()


def assert_it_echoes(server: Path) -> None:
    """Serves one connection, loses no block, and ends."""
    message = bytes(range(256)) * 1000
    with subprocess.Popen([server, "1"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", process.stdout.readline())
            assert found
            with socket.create_connection(("127.0.0.1", int(found[1])), timeout=20) as peer:
                for _ in range(3):
                    peer.sendall(message)
                    with peer.makefile("rb") as answers:
                        assert answers.read(len(message)) == message
            told = process.communicate(timeout=60)[0]
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0
    assert told.endswith("0 blocks lost\n")


def assert_it_shouts(library: Path) -> None:
    told = run(sys.executable, EXAMPLES / "engine" / "shout.py", library).splitlines()
    assert told == ["IS ANYBODY THERE?", "14 letters, 0 blocks are live"]


def test_a_server_in_python_takes_a_handler_in_c(built: Path) -> None:
    assert_it_shouts(built / ("shout.dll" if WINDOWS else "shout.so"))


def test_a_server_in_c_runs_on_the_installed_engine(built: Path) -> None:
    assert_it_echoes(built / ("port_echo_server.exe" if WINDOWS else "port_echo_server"))


@pytest.mark.skipif(WINDOWS, reason="these are the tools of Unix")
def test_a_handler_needs_a_compiler_and_headers_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, library = says(capsys, "--cflags"), tmp_path / "shout.so"
    source = EXAMPLES / "engine" / "shout.c"
    run(tool("gcc"), *STRICT, "-shared", "-fPIC", *flags, source, "-o", library)
    assert_it_shouts(library)


@pytest.mark.skipif(WINDOWS, reason="these are the tools of Unix")
def test_the_flags_link_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags, server = (says(capsys, "--cflags"), says(capsys, "--libs")), tmp_path / "server"
    run(tool("gcc"), *STRICT, *flags[0], *SERVER, *flags[1], "-o", server)
    assert_it_echoes(server)


@pytest.mark.skipif(WINDOWS, reason="these are the tools of Unix")
def test_pkg_config_finds_the_engine_wherever_it_lies(tmp_path: Path) -> None:
    search = {"PKG_CONFIG_PATH": str(copied(tmp_path / "a prefix") / "lib" / "pkgconfig")}
    asked = run(tool("pkg-config"), "--cflags", "--libs", "poolport-engine", env=search)
    run(tool("gcc"), *STRICT, *SERVER, *shlex.split(asked), "-o", tmp_path / "server")
    assert_it_echoes(tmp_path / "server")


@pytest.mark.skipif(WINDOWS, reason="these are the tools of Unix")
def test_a_component_that_there_is_not_is_refused_by_name(tmp_path: Path) -> None:
    project = "cmake_minimum_required(VERSION 3.16)\nproject(p LANGUAGES C)\n"
    (tmp_path / "CMakeLists.txt").write_text(
        project + "find_package(poolport REQUIRED COMPONENTS motor)\n", encoding="utf-8"
    )
    where = f"-Dpoolport_DIR={iocp_adapter.get_cmake_dir()}"
    done = subprocess.run(
        [tool("cmake"), "-S", tmp_path, "-B", tmp_path / "build", where],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert "motor" in done.stderr


def test_the_paths_are_those_of_the_allocators() -> None:
    """One tree: two would have to match."""
    assert iocp_adapter.get_include() == pools.get_include()
    assert (Path(iocp_adapter.get_include()) / "poolport" / "serve.h").is_file()
    assert list(Path(iocp_adapter.get_library_dir()).glob("*poolport_engine*"))
    assert (Path(iocp_adapter.get_pkgconfig_dir()) / "poolport-engine.pc").is_file()
    assert (Path(iocp_adapter.get_cmake_dir()) / "poolport-config.cmake").is_file()


def test_asking_for_nothing_is_a_usage_error_that_names_the_program(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    assert "usage: python -m iocp_adapter" in capsys.readouterr().err
