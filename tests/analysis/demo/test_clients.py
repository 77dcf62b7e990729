"""The load generator against servers that are not ours: one honest, and some that are not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from analysis.demo.clients import play
from analysis.demo.traffic import plan_traffic

TRAFFIC = plan_traffic(5, connections=12, duration_s=0.5, leak=False, residents=2)


@contextmanager
def server(change: Callable[[bytes], bytes | None]) -> Iterator[tuple[str, int]]:
    """An echo server that passes each piece through ``change``; None ends the connection."""
    loop = asyncio.new_event_loop()
    started = threading.Event()
    address: list[tuple[str, int]] = []
    stop = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                answer = change(data)
                if answer is None:
                    break
                writer.write(answer)
        except ConnectionError:
            pass  # the client found what it was to find, and left
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def main() -> None:
        listening = await asyncio.start_server(serve, "127.0.0.1", 0)
        address.append(listening.sockets[0].getsockname()[:2])
        started.set()
        await stop.wait()
        listening.close()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)

    def run() -> None:
        loop.run_until_complete(main())
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    started.wait()
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def test_an_honest_server_passes_with_every_message_counted() -> None:
    with server(lambda data: data) as address:
        outcome = play(TRAFFIC, address)
    assert outcome.verified
    assert outcome.messages == TRAFFIC.messages
    assert outcome.payload_bytes == TRAFFIC.payload_bytes
    assert 0 < outcome.latency_p50_us <= outcome.latency_p99_us


def test_one_wrong_byte_is_found() -> None:
    def corrupt(data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1])

    with server(corrupt) as address:
        outcome = play(TRAFFIC, address)
    assert not outcome.verified
    assert outcome.failures == TRAFFIC.messages
    assert "came back wrong" in outcome.first_failure


def test_bytes_that_nobody_sent_are_found() -> None:
    with server(lambda data: data + b"!") as address:
        outcome = play(TRAFFIC, address)
    assert outcome.failures > 0


def test_a_server_that_hangs_up_is_counted() -> None:
    with server(lambda _data: None) as address:
        outcome = play(TRAFFIC, address)
    assert outcome.failures == TRAFFIC.messages
    assert outcome.messages == 0
    assert outcome.latency_p99_us == 0
