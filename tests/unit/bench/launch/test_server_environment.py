"""What every rank inherits through its fork server's environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.launch.local import server_environment

FAULTS = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def step():
    for mib in (1, 8, 64):
        block = libc.malloc(mib << 20)
        libc.memset(block, 1, mib << 20)
        libc.free(block)

step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 10)
"""
"""Prints the page faults of a step that takes, fills and frees three blocks, after a first one."""


def faults_a_step(environment: dict[str, str]) -> float:
    return float(
        subprocess.run([sys.executable, "-c", FAULTS], env=environment, stdout=subprocess.PIPE, check=True).stdout
    )


def test_memory_that_a_step_frees_is_there_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES"))]:
        monkeypatch.delenv(name)
    pages = 64 * 2**20 / os.sysconf("SC_PAGE_SIZE")
    assert faults_a_step(dict(os.environ)) >= pages  # as malloc would have it
    assert faults_a_step(server_environment()) < pages / 100


def test_a_person_s_own_choice_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "131072")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth0")
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    variables = server_environment()
    assert (variables["MALLOC_TRIM_THRESHOLD_"], variables["GLOO_SOCKET_IFNAME"]) == ("131072", "eth0")
    assert variables["OMP_NUM_THREADS"] == "1"  # of the server, which must not have threads when it forks
