"""Worker threads: how many there are, and what a handler cannot do to them."""

from __future__ import annotations

import threading
import time

import pytest

from iocp_adapter import CompletionPort, PortError, PortValueError, WorkerPool


def until(condition):
    """Wait for what other threads bring about; the test's own timeout bounds it."""
    while not condition():
        time.sleep(0.001)


def test_every_completion_is_handled_once(port):
    seen, done = [], threading.Semaphore(0)

    def handle(completion):
        seen.append(completion.user)
        done.release()

    with WorkerPool(port, handle, minimum=3) as workers:
        for number in range(500):
            port.post(user=number)
        for _ in range(500):
            assert done.acquire(timeout=30)
        assert workers.stats().handled == 500
        assert workers.stats().threads == 3
    assert sorted(seen) == list(range(500))
    assert workers.stats().threads == 0
    assert workers.stats().handled == 500


def test_it_grows_while_all_workers_are_blocked_and_shrinks_when_nobody_needs_them(port):
    gate, at_work = threading.Event(), threading.Semaphore(0)

    def handle(completion):
        at_work.release()
        gate.wait(60)

    pool = WorkerPool(port, handle, minimum=1, maximum=4, stall_seconds=0.01, idle_seconds=0.05)
    with pool as workers:
        for number in range(4):
            port.post(user=number)
            assert at_work.acquire(timeout=30), "another worker took it though all others are blocked"
        until(lambda: workers.stats().blocked == 4)
        assert workers.stats().threads == workers.stats().peak == 4
        assert workers.stats().grown == 3
        gate.set()
        until(lambda: workers.stats().threads == 1)
        assert workers.stats().shrunk == 3
        port.post(user="afterwards")
        assert at_work.acquire(timeout=30)


def test_it_never_has_more_than_its_maximum(port):
    gate, at_work = threading.Event(), threading.Semaphore(0)

    def handle(completion):
        at_work.release()
        gate.wait(60)

    with WorkerPool(port, handle, minimum=1, maximum=2, stall_seconds=0.005) as workers:
        for number in range(200):
            port.post(user=number)
        assert at_work.acquire(timeout=30)
        assert at_work.acquire(timeout=30)
        until(lambda: workers.stats().blocked == 2)
        assert workers.stats().peak == 2
        gate.set()
        until(lambda: workers.stats().handled == 200)
        assert workers.stats().peak == 2


def test_an_exception_costs_its_completion_and_nothing_else(port, caplog):
    told, done = [], threading.Semaphore(0)

    def handle(completion):
        done.release()
        if completion.user == "bad":
            raise ValueError("of the handler")

    def on_error(completion, error):
        told.append((completion.user, str(error)))
        raise RuntimeError("of on_error")

    with WorkerPool(port, handle, on_error=on_error) as workers:
        for user in ("good", "bad", "good"):
            port.post(user=user)
        for _ in range(3):
            assert done.acquire(timeout=30)
        until(lambda: workers.stats().handled == 3 and not workers.stats().busy)
        assert workers.stats().errors == 1
    assert told == [("bad", "of the handler")]
    assert "of the handler" in caplog.text
    assert "of on_error" in caplog.text


def test_not_even_a_system_exit_ends_a_worker_or_costs_its_batch(port):
    seen, told, done = [], [], threading.Semaphore(0)

    def handle(completion):
        seen.append(completion.user)
        done.release()
        if completion.user == "bad":
            raise SystemExit(3)

    def on_error(completion, error):
        told.append((completion.user, type(error)))
        raise SystemExit(4)

    for number in range(20):
        port.post(user="bad" if number % 4 == 0 else number)
    with WorkerPool(port, handle, minimum=2, maximum=3, batch=8, on_error=on_error) as workers:
        for _ in range(20):
            assert done.acquire(timeout=30)
        until(lambda: workers.stats().handled == 20 and not workers.stats().busy)
        assert workers.stats().threads >= 2
        assert workers.stats().errors == 5
    assert told == [("bad", SystemExit)] * 5
    assert sorted(str(one) for one in seen).count("bad") == 5


def test_a_worker_that_ends_by_mishap_is_replaced(port, caplog):
    dequeue, mishaps = port.dequeue_many, iter([MemoryError("no room for a batch")])
    handled = threading.Semaphore(0)

    def dequeue_many(limit, timeout):
        for mishap in mishaps:
            raise mishap
        return dequeue(limit, timeout)

    port.dequeue_many = dequeue_many
    with WorkerPool(port, lambda completion: handled.release()) as workers:
        until(lambda: "takes its place" in caplog.text)
        port.post()
        assert handled.acquire(timeout=30)
        assert workers.stats().threads == 1


def test_workers_that_die_as_soon_as_they_live_are_not_replaced_without_end(port, caplog):
    died = []

    def dequeue_many(limit, timeout):
        died.append(time.monotonic())
        raise MemoryError("no room for a batch")

    port.dequeue_many = dequeue_many
    with WorkerPool(port, print) as workers:
        until(lambda: len(died) == 5)
        assert died[4] - died[0] > 0.1  # 10, 20, 40 and 80 ms, by a clock that may be coarse
        assert workers.close(30)
    assert len(died) < 12  # of which the last would come after ten seconds
    assert workers.stats().threads == 0


async def later(*_):
    pass


class Later:
    async def __call__(self, *_):
        pass


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"port": 5}, "port=5 of a worker pool: give a CompletionPort"),
        ({"handler": None}, "handler=None of a worker pool: give a function"),
        ({"handler": later}, "async"),
        ({"handler": Later()}, "async"),
        ({"on_error": "x"}, "on_error='x'"),
        ({"on_error": later}, "async"),
        ({"minimum": 0}, r"minimum=0: give 1 to 1024$"),
        ({"maximum": 0}, r"maximum=0: give 1 to 1024$"),
        ({"minimum": 3, "maximum": 2}, "minimum=3 above maximum=2"),
        ({"batch": 1.5}, "batch=1.5: give 1 to 4096"),
    ],
)
def test_what_no_worker_could_work_with_is_refused_before_there_is_one(port, arguments, told):
    with pytest.raises(PortValueError, match=told):
        WorkerPool(**{"port": port, "handler": print} | arguments)


def test_it_does_not_grow_where_nothing_waits(port):
    gate, at_work, done = threading.Event(), threading.Semaphore(0), threading.Semaphore(0)

    def handle(completion):
        at_work.release()
        gate.wait(60)
        done.release()

    with WorkerPool(port, handle, minimum=1, maximum=8, stall_seconds=0.005) as workers:
        port.post(user="alone")
        assert at_work.acquire(timeout=30)
        until(lambda: any(worker.scouts for worker in list(workers._roster.workers)))
        asked = port.stats().waits
        until(lambda: port.stats().waits > asked + 3)  # the scout has asked again and again
        assert workers.stats().threads == workers.stats().peak == 1
        assert workers.stats().grown == 0
        port.post(user="waits")
        assert at_work.acquire(timeout=30)
        assert workers.stats().threads == 2
        assert workers.stats().grown == 1
        gate.set()
        for _ in range(2):
            assert done.acquire(timeout=30)
        until(lambda: not any(worker.scouts for worker in list(workers._roster.workers)))


def test_the_workers_end_with_the_port(backend):
    port = CompletionPort(backend)
    workers = WorkerPool(port, lambda completion: None, minimum=4, maximum=6)
    port.close()
    until(lambda: workers.stats().threads == 0)
    assert workers.close()


def test_a_close_that_cannot_wait_says_so(port):
    gate, at_work = threading.Event(), threading.Semaphore(0)

    def handle(completion):
        at_work.release()
        gate.wait(60)

    workers = WorkerPool(port, handle)
    port.post()
    assert at_work.acquire(timeout=30)
    assert not workers.close(0.01)
    gate.set()
    assert workers.close()


def test_a_handler_must_not_close_its_own_pool(port):
    found = []
    with WorkerPool(port, lambda completion: found.append(refused(workers))) as workers:
        port.post()
        until(lambda: found)
    assert isinstance(found[0], PortError)


def refused(workers):
    try:
        workers.close()
    except PortError as error:
        return error
    return None


def test_what_is_not_handled_yet_stays_in_the_port(port):
    gate = threading.Event()
    with WorkerPool(port, lambda completion: gate.wait(60)) as workers:
        port.post(user="first")
        until(lambda: workers.stats().busy == 1)
        port.post(user="second")
        assert not workers.close(0.001)
        gate.set()
    assert port.dequeue(20).user == "second"


def test_a_handler_that_waits_lets_another_one_through(backend):
    with CompletionPort(backend, concurrency=1) as port:
        gate, at_work = threading.Event(), threading.Semaphore(0)

        def handle(completion):
            at_work.release()
            if completion.user == "waits":
                with workers.blocking():
                    gate.wait(60)
            else:
                gate.set()

        with WorkerPool(port, handle, minimum=2) as workers:
            port.post(user="waits")
            assert at_work.acquire(timeout=30)
            port.post(user="frees it")
            assert at_work.acquire(timeout=30)
            until(lambda: not workers.stats().busy)


@pytest.mark.parametrize(
    "bounds",
    [
        {"minimum": 0},
        {"minimum": 3, "maximum": 2},
        {"maximum": 5000},
        {"idle_seconds": 0},
        {"batch": 0},
        {"stall_seconds": float("nan")},
    ],
)
def test_bounds_that_make_no_sense_are_refused(port, bounds):
    with pytest.raises(PortValueError, match="|".join(bounds)):
        WorkerPool(port, print, **bounds)
