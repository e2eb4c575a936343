"""MLflow's UI on the embedded store, on loopback: ``make ui``, or

python -m bench.tracking.ui [--uri URI] [--port PORT]
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from types import FrameType
from typing import IO

from results.mlflow_store import MlflowError, default_uri, probe, shown
from results.secrets import warning_of_visible
from terminal.output import prepare_output

HOST = "127.0.0.1"
PORTS = 100
"""Ports that are tried, from the requested one."""
LAST_PORT = 65535
START_S = 300.0
"""How long the server may take to answer first: it imports for 5 s on an idle machine, a minute on a busy one."""
END_S = 5.0
"""How long its processes may take to end before they are killed."""
SHOWN = 3
"""Sweeps whose addresses are printed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.tracking.ui", description="Opens MLflow's UI on loopback.")
    parser.add_argument(
        "--uri", default=default_uri(), help="MLflow store (default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db)"
    )
    parser.add_argument("--port", type=int, default=5000, help="this port, or the next free one (default: %(default)s)")
    prepare_output()
    arguments = parser.parse_args()
    if visible := warning_of_visible(sys.argv[1:]):
        print(visible, file=sys.stderr)
    try:
        if arguments.uri.startswith("http"):
            raise MlflowError(f"{shown(arguments.uri)} is a server and has a UI of its own: open it in a browser")
        probe(arguments.uri, create=False)
        port = free_port(arguments.port)
    except (MlflowError, OSError) as error:
        print(f"bench.tracking.ui: {error}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)  # a shell's background job ignores it
    with tempfile.TemporaryFile() as log:
        server = start(arguments.uri, port, log)
        try:
            return serve(server, arguments.uri, port, log)
        except KeyboardInterrupt:
            return 0
        finally:
            end(server)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def free_port(first: int) -> int:
    """The first port from ``first`` on that is free. Raises OSError if there is none, or no such port."""
    if not 1 <= first <= LAST_PORT:
        raise OSError(f"--port {first} is not valid; valid: 1 to {LAST_PORT}")
    for port in range(first, min(first + PORTS, LAST_PORT + 1)):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise OSError(f"port {first} and the {PORTS - 1} after it cannot be used; --port names another")


def start(uri: str, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """The server, in a process group of its own: one worker is enough for one reader, and starts four times sooner."""
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri]
    command += ["--host", HOST, "--port", str(port), "--workers", "1"]
    return subprocess.Popen(
        command, env=os.environ | quiet, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )


def serve(server: subprocess.Popen[bytes], uri: str, port: int, log: IO[bytes]) -> int:
    """Waits until the server answers, prints its address, and waits for its end; the exit code."""
    print("MLflow's UI is starting ...", file=sys.stderr, flush=True)
    address = f"http://{HOST}:{port}/"
    deadline = time.monotonic() + START_S
    while not _answers(address):
        if server.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            log_lines = log.read().decode(errors="replace").strip().splitlines() or ["no reason given"]
            print(f"bench.tracking.ui: MLflow's server did not start: {log_lines[-1]}", file=sys.stderr)
            return 1
        time.sleep(0.2)
    print(f"MLflow's UI: {address}", flush=True)
    for line in sweeps(uri, address):
        print(line, flush=True)
    print("Ctrl-C ends it.", flush=True)
    return server.wait()


def _answers(address: str) -> bool:
    try:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}health", timeout=5).close()
    except OSError:
        return False
    return True


def sweeps(uri: str, address: str) -> list[str]:
    """The address that compares the cells of the last sweeps."""
    from results.mlflow_links import charts
    from results.mlflow_store import open_client

    lines = []
    with suppress(Exception):  # only a convenience
        client = open_client(uri, create=False)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        for run in client.search_runs(experiments, "tags.cells LIKE '%'", max_results=SHOWN):
            where = charts(run.info.experiment_id, run.data.tags["sweep"])
            lines += [f"  {run.info.run_name}", f"    {address}{where}"]
    return lines


def end(server: subprocess.Popen[bytes]) -> None:
    """Ends the server and all of its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(server.pid, number)
        deadline = time.monotonic() + END_S
        while _group_lives(server) and time.monotonic() < deadline:
            time.sleep(0.05)


def _group_lives(server: subprocess.Popen[bytes]) -> bool:
    server.poll()  # else it stays a zombie, and a member of its group
    try:
        os.killpg(server.pid, 0)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
