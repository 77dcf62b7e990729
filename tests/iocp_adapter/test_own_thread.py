"""A thread that any number of threads may wait for: nobody fails, and who has a deadline keeps it."""

from __future__ import annotations

import threading
import time

from iocp_adapter.own_thread import OwnThread


def test_whoever_waits_sees_it_ended(at_once):
    for _ in range(200):
        ending = threading.Event()
        thread = OwnThread(ending.wait, "ends")
        thread.start()

        def wait(number, thread=thread, ending=ending):
            if number == 0:
                ending.set()
            thread.join()
            return thread.is_alive()

        assert not any(at_once(wait))


def test_one_waits_at_a_time(at_once, monkeypatch):
    inside, most = [0], [0]
    joined = threading.Thread.join

    def join(thread, timeout=None):
        if not isinstance(thread, OwnThread):
            return joined(thread, timeout)
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        try:
            ending.wait(0.01)  # so that the others come meanwhile
            return joined(thread, timeout)
        finally:
            inside[0] -= 1

    monkeypatch.setattr(threading.Thread, "join", join)
    ending = threading.Event()
    thread = OwnThread(ending.wait, "waits")
    thread.start()
    at_once(lambda number: ending.set() if number == 0 else thread.join())
    assert most == [1]


def test_a_deadline_is_kept_while_another_waits_for_ever():
    ending = threading.Event()
    thread = OwnThread(ending.wait, "waits")
    thread.start()
    patient = threading.Thread(target=thread.join)
    patient.start()
    began = time.monotonic()
    thread.join(0.01)
    assert time.monotonic() - began < 10
    assert thread.is_alive()
    assert patient.is_alive()
    ending.set()
    patient.join(30)
    assert not patient.is_alive()
    assert not thread.is_alive()


def test_a_time_below_none_waits_for_nothing():
    ending = threading.Event()
    thread = OwnThread(ending.wait, "waits")
    thread.start()
    thread.join(-1.0)
    assert thread.is_alive()
    ending.set()
    thread.join()
