"""What holds for every subcommand, and the small ones."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import analysis.commands
from iocp_adapter import CompletionPort
from pools import SlabPool

from .conftest import Poolport, parsed, says_in_one_sentence

STOPS = [signal.CTRL_BREAK_EVENT] if sys.platform == "win32" else [signal.SIGINT, signal.SIGTERM]


def test_the_version_is_the_core_s(poolport: Poolport) -> None:
    result = poolport("--version")
    assert result.returncode == 0
    assert result.stdout.startswith("poolport 0.")


@pytest.mark.parametrize("command", analysis.commands._COMMANDS)
def test_each_subcommand_explains_itself(poolport: Poolport, command: str) -> None:
    result = poolport(command, "--help")
    assert result.returncode == 0
    assert command in result.stdout
    assert "3 an input cannot be read" in " ".join(result.stdout.split())


def test_no_subcommand_is_a_usage_error(poolport: Poolport) -> None:
    says_in_one_sentence(poolport(), 2, "COMMAND")


def test_completion_prints_a_script(poolport: Poolport) -> None:
    result = poolport("completion", "bash")
    assert result.returncode == 0
    assert "poolport" in result.stdout


def test_doctor_tells_which_back_end_works_and_why(poolport: Poolport) -> None:
    result = poolport("doctor", "--json")
    document = parsed(result.stdout)
    assert document["usable"] == (result.returncode == 0)
    auto = next(finding for finding in document["findings"] if finding["what"] == "back end auto")
    assert auto["text"]


def test_doctor_tells_of_memory_and_allocators(poolport: Poolport) -> None:
    found = {finding["what"]: finding for finding in parsed(poolport("doctor", "--json").stdout)["findings"]}
    for what in ("huge pages", "idle memory goes back", "mimalloc", "jemalloc", "tcmalloc"):
        assert found[what]["good"] in (True, False)
        assert found[what]["text"]
    with SlabPool(4096, 1024, huge_pages=True) as pool:
        assert found["huge pages"]["text"].startswith("refused") == (pool.memory.huge_pages == "refused")


def test_doctor_asks_for_all_features_and_counts_those_there_are(poolport: Poolport) -> None:
    found = {finding["what"]: finding for finding in parsed(poolport("doctor", "--json").stdout)["findings"]}
    with CompletionPort("auto") as port:
        known = len(port.features)
    text = found["back end auto"]["text"]
    assert "not asked for" not in text
    assert (f"of {known} features" in text) == bool(known)


def test_doctor_measures_unaligned_buffers(poolport: Poolport) -> None:
    found = {finding["what"]: finding for finding in parsed(poolport("doctor", "--json").stdout)["findings"]}
    finding = found["unaligned buffers"]
    ratio = float(re.search(r"costs ([\d.]+) times", finding["text"])[1])
    assert finding["good"] == (ratio <= 1.5)


@pytest.mark.skipif(os.name == "nt", reason="io_uring is of Linux")
def test_doctor_without_io_uring_falls_back_and_says_so(poolport: Poolport) -> None:
    result = poolport("doctor", "--json", env={"POOLPORT_NO_IO_URING": "1"})
    found = {finding["what"]: finding for finding in parsed(result.stdout)["findings"]}
    assert found["back end auto"]["text"].startswith("epoll")
    assert not found["back end io_uring"]["good"]
    assert "POOLPORT_NO_IO_URING" in found["back end io_uring"]["text"]


def test_an_output_that_nobody_reads_is_no_error() -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from analysis.commands import main; sys.exit(main())",
            "completion",
            "bash",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        errors = process.stderr.read()
    assert process.wait(60) == 0
    assert "Traceback" not in errors


@pytest.mark.skipif(os.name == "nt", reason="a shell of Unix closes descriptors")
def test_a_closed_output_is_no_defect() -> None:
    command = 'exec "$0" -c "import sys; from analysis.commands import main; sys.exit(main())" doctor'
    closed = subprocess.run(
        ["sh", "-c", f"{command} >&-", sys.executable], stderr=subprocess.PIPE, text=True, check=False
    )
    heard = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True, check=False)
    assert closed.returncode == heard.returncode
    assert closed.stderr == heard.stderr


def serve(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """A running ``poolport serve`` and its port."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from analysis.commands import main; sys.exit(main())",
            "serve",
            "--port",
            "0",
            *arguments,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("listening on 127.0.0.1:"), line
    return process, int(line.split(":")[1].split()[0])


def tell_to_stop(process: subprocess.Popen[str], how: int) -> None:
    """Send the signal; skips where a console would have to, and there is none."""
    try:
        process.send_signal(how)
    except (OSError, SystemError):
        if os.name != "nt":
            raise
        process.kill()
        process.communicate()
        pytest.skip("a process is told to stop through its console, and there is none")


@pytest.mark.parametrize("strategy", ["slab", "malloc"])
@pytest.mark.parametrize("stop", STOPS)
def test_serve_echoes_until_it_is_told_to_stop(strategy: str, stop: int) -> None:
    process, port = serve("--strategy", strategy, "--json")
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(b"hello")
        assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
    tell_to_stop(process, stop)
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    document = parsed(output)
    assert document["strategy"] == strategy
    assert document["server"]["accepted"] == 1
    assert document["leaked_blocks"] == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_serve_drains_until_it_is_told_again(workers: str) -> None:
    process, port = serve("--json", "--workers", workers)
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.settimeout(0.5)
        with contextlib.suppress(TimeoutError):  # until nobody takes it any more
            while True:
                peer.sendall(bytes(1 << 20))
        tell_to_stop(process, STOPS[-1])
        assert process.stderr is not None
        assert process.stderr.readline() == "draining 1 connection for up to 5 s; stop again to abort\n"
        tell_to_stop(process, STOPS[0])
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert errors.startswith("aborted: 1 connection reset\n")
    document = parsed(output)
    assert document["server"]["accepted"] == 1
    assert document["leaked_blocks"] == 0


def test_serve_discards_when_told_to() -> None:
    process, port = serve("--handler", "discard")
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.sendall(b"hello")
        peer.shutdown(socket.SHUT_WR)
        assert peer.recv(1) == b"", "nothing comes back but the end"
    tell_to_stop(process, STOPS[-1])
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "discard" in output


@pytest.mark.parametrize("native", [True, False])
def test_serve_adds_up_what_its_workers_did(native: bool) -> None:
    process, port = serve("--workers", "3", "--json", *["--native"] * native)
    with contextlib.ExitStack() as stack:
        for _ in range(6):
            peer = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            peer.sendall(b"hello")
            assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
    tell_to_stop(process, STOPS[-1])
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    document = parsed(output)
    assert document["workers"] == 3
    assert document["server"]["messages"] == document["server"]["accepted"] == 6
    assert document["pool"]["acquired"] >= 6
    assert document["leaked_blocks"] == 0


def test_an_address_on_the_network_needs_a_port(poolport: Poolport) -> None:
    says_in_one_sentence(poolport("serve"), 2, "127.0.0.1", "--port")


@pytest.mark.skipif(os.name == "nt", reason="Unix sockets are of Unix")
def test_a_unix_socket_needs_no_port(tmp_path: Path) -> None:
    host = f"unix:{tmp_path / 'echo'}"
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from analysis.commands import main; sys.exit(main())",
            "serve",
            "--host",
            host,
            "--json",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith(f"listening on {host} backend=")
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(host.removeprefix("unix:"))
        peer.sendall(b"hello")
        assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
    tell_to_stop(process, STOPS[-1])
    output, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors
    assert parsed(output)["server"]["messages"] == 1


def test_a_wrong_number_of_workers_is_said_in_one_sentence(poolport: Poolport) -> None:
    says_in_one_sentence(poolport("serve", "--port", "0", "--workers", "0"), 2, "workers=0", "1 to")


def test_an_occupied_port_is_said_in_one_sentence(poolport: Poolport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        says_in_one_sentence(poolport("serve", "--port", port), 2, str(port), "in use", "another port")


def test_a_foreign_address_is_said_in_one_sentence(poolport: Poolport) -> None:
    says_in_one_sentence(poolport("serve", "--host", "192.0.2.1", "--port", "0"), 2, "192.0.2.1")


def test_bench_gives_a_row_for_each_workload_and_strategy(poolport: Poolport) -> None:
    result = poolport("bench", "lifo", "steady", "--strategies", "slab,malloc", "--reps", "1", "--json")
    document = parsed(result.stdout)
    rows = [(row["workload"], row["strategy"]) for row in document["results"]]
    assert rows == [("lifo", "slab"), ("lifo", "malloc"), ("steady", "slab"), ("steady", "malloc")]
    assert all(row["ns_per_op"] > 0 and row["failures"] == 0 for row in document["results"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("lifo", "--reps", "0"),
        ("lifo", "--size", "-5"),
        ("lifo", "--threads", "99"),
        ("lifo", "--bars"),
    ],
)
def test_bench_refuses_what_it_cannot_run(poolport: Poolport, arguments: tuple[str, ...]) -> None:
    says_in_one_sentence(poolport("bench", *arguments), 2, arguments[-1])


def test_bench_tells_what_stays_of_bursts_an_idle_second_later(poolport: Poolport) -> None:
    result = poolport("bench", "burst-idle", "--strategies", "slab", "--reps", "1")
    assert result.returncode == 0, result.stderr
    idle = result.stdout.split("after an idle second")[1]
    row = next(line for line in idle.splitlines() if "slab" in line)
    ratio = float(re.split("[|│]", row)[-2])  # by the encoding of the output
    assert 1 <= ratio < 8, "the peak is 16 times what is live"


@pytest.mark.parametrize("command", [("bench", "lifo", "--strategies", "slab", "--reps", "1"), ("doctor",)])
def test_what_to_run_next_is_no_output_that_is_there(
    poolport: Poolport, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo-2").write_text("of the user")
    assert poolport(*command).stderr.strip().splitlines()[-1] == "next: poolport demo --output demo-3"


def test_bench_prints_a_table_with_the_losing_rows(poolport: Poolport) -> None:
    result = poolport("bench", "fifo", "--strategies", "slab,malloc", "--reps", "1")
    assert result.returncode == 0, result.stderr
    assert "slab" in result.stdout
    assert "malloc" in result.stdout
