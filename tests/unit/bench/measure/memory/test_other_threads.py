"""Waiting for threads that are ready to run."""

from __future__ import annotations

import threading
import time

import pytest

from bench.measure.memory import other_threads


def test_a_thread_that_computes_is_waited_for_until_it_ends() -> None:
    """It holds no GIL for long: it computes in pieces, as a thread that waits for a core would be seen ready to run."""
    ended = threading.Event()

    def compute() -> None:
        end = time.thread_time() + 0.1  # of a core, however long that takes
        while time.thread_time() < end:
            sum(range(1000))
        ended.set()

    thread = threading.Thread(target=compute)
    thread.start()
    other_threads.wait_for_other_threads()
    assert ended.is_set()
    thread.join()


def test_a_thread_that_never_sleeps_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_threads, "LIMIT_S", 0.1)
    stop = threading.Event()

    def spin() -> None:
        while not stop.is_set():
            sum(range(1000))

    thread = threading.Thread(target=spin)
    thread.start()
    other_threads.wait_for_other_threads()
    assert thread.is_alive()
    stop.set()
    thread.join()
