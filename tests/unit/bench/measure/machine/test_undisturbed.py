"""A claim of time counts on an undisturbed machine, and is measured again on another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from bench.measure.machine.interference import ClockReading, MachineCounters, Process
from tests import undisturbed as helper
from tests.undisturbed import Look, Watch, undisturbed

BUSY = "while True: pass"


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Two CPUs; sets how many of them others take, from one look to the next one, a second later."""
    taken = {"cpus": 0.0, "seconds": 0.0, "now": 0.0}

    def look() -> Look:
        taken["now"] += 1.0
        taken["seconds"] += taken["cpus"]
        clocks = ClockReading(taken["now"], taken["now"], taken["now"])
        processes = {os.getpid(): Process("pytest", 1, 0.0), 7: Process("compiler", 1, taken["seconds"])}
        return Look(MachineCounters(clocks, taken["seconds"], 0.0, {}, {}, processes), taken["seconds"])

    monkeypatch.setattr(helper.Look, "now", look)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    return lambda cpus: taken.update(cpus=cpus)


def measurements(*values: float) -> tuple[Callable[[], float], list[float]]:
    left = list(values)
    return lambda: left.pop(0), left


def is_one(value: float) -> None:
    assert value == 1


def test_a_claim_that_holds_is_measured_once_however_busy_the_machine_is(machine: Callable[[float], None]) -> None:
    machine(2.0)
    measure, left = measurements(1, 2)
    assert undisturbed(measure, is_one) == 1
    assert left == [2]


def test_a_broken_claim_fails_at_once_on_an_undisturbed_machine(machine: Callable[[float], None]) -> None:
    machine(0.1)
    measure, left = measurements(2, 1)
    with pytest.raises(AssertionError):
        undisturbed(measure, is_one)
    assert left == [1]


def test_a_broken_claim_on_a_disturbed_machine_is_measured_again(machine: Callable[[float], None]) -> None:
    machine(1.0)
    measure, left = measurements(2, 1, 3)
    assert undisturbed(measure, is_one) == 1
    assert left == [3]


def test_a_claim_that_stays_broken_fails_as_soon_as_nothing_disturbs(machine: Callable[[float], None]) -> None:
    values = [2.0, 3.0]

    def measure() -> float:
        machine(len(values) - 1)
        return values.pop(0)

    with pytest.raises(AssertionError):
        undisturbed(measure, is_one)
    assert values == []


def test_a_machine_that_is_always_disturbed_skips_the_test_with_the_reason(machine: Callable[[float], None]) -> None:
    machine(1.5)
    with pytest.raises(pytest.skip.Exception, match=r"each of 3 measurements.*others took 75% .*compiler"):
        undisturbed(lambda: 2.0, is_one)


def test_what_a_measurement_asserts_itself_fails_whatever_the_machine_does(machine: Callable[[float], None]) -> None:
    machine(2.0)
    tries = []

    def measure() -> float:
        tries.append(1)
        raise AssertionError("no result")

    with pytest.raises(AssertionError, match="no result"):
        undisturbed(measure, is_one)
    assert len(tries) == 1


@pytest.fixture
def stranger() -> Iterator[None]:
    """A busy process that does not descend from this one."""
    script = f"import subprocess as s, sys; print(s.Popen([sys.executable, '-c', {BUSY!r}], stdout=-3, stderr=-3).pid)"
    started = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    yield
    os.kill(int(started.stdout), 9)


def test_a_process_that_is_not_ours_is_seen_and_named(stranger: None) -> None:
    with Watch() as watch:
        time.sleep(1.5)
    cause = watch.cause()
    assert cause and "others took" in cause.words


def test_our_own_children_are_no_others_also_once_they_have_ended() -> None:
    """Whatever others do meanwhile, the second of the child is not among theirs."""
    before = Look.now()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 1: pass"], check=True)
    after = Look.now()
    assert after.others_s - before.others_s < after.machine.busy_s - before.machine.busy_s - 0.5
