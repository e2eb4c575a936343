"""``cluster=slurm`` on a login node: one Slurm job runs the whole sweep, and this process follows it.

submitit writes and submits the batch script. The job runs the same command inside its allocation, where
``cluster=slurm`` starts one host server per node. The sweep's folder must be on a file system that the nodes share.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bench.checks import ConfigError
from results.host_settings import Cluster
from results.shown import printable

INSIDE = "SLURM_JOB_NUM_NODES"
"""Set in an allocation."""
OWN_JOB = "BENCH_SUBMITTED"
"""Set in a job that this module submitted."""
RESTARTS = "SLURM_RESTART_COUNT"
"""How often Slurm put the job back into the queue."""
SETTINGS = ("cluster.nodes=", "cluster.partition=", "cluster.time=", "cluster.options=")
"""Of the job; the command inside it goes without them."""
FOLDERS = ("hydra.sweep.dir=", "hydra.run.dir=")
POLL_S = 1.0
ASK_S = 5.0
"""Seconds between two questions to Slurm."""
ENDING_S = 90.0
"""How long a cancelled job may take to end, Slurm's KillWait of 30 s included."""
INTERRUPTED, LOST = 130, 1
DEFAULT_TIME = "01:00:00"


def is_needed(cluster: Cluster, variables: Mapping[str, str] = os.environ) -> bool:
    """Whether the sweep has to be submitted: it is to run on Slurm, and this process is in no allocation."""
    return cluster.kind == "slurm" and INSIDE not in variables


def run(cluster: Cluster, folder: Path, arguments: Sequence[str]) -> int:
    """Submits the command with these arguments, and follows the job to its end; its exit code.

    Ctrl-C cancels the job. Raises ConfigError for what cannot be submitted.
    """
    executor = executor_for(cluster, folder)
    words = command(arguments, folder)
    try:
        job = executor.submit(run_in_job, words)
    except Exception as error:  # submitit's own, and those of sbatch
        raise ConfigError(f"sbatch refused the job: {reason(error)}") from error
    print(f"submitted job {job.job_id} to Slurm; its log and batch script are in {folder / 'slurm'}", file=sys.stderr)
    code = Following(job).to_its_end()
    if code not in (0, INTERRUPTED) or not (folder / "report.md").exists():
        report(folder)
    return code


def run_in_job(words: list[str]) -> int:
    """What the job does: the command, whose exit code is the job's result. A job that Slurm put back into the queue,
    as after the loss of a node, continues its sweep."""
    folder = Path(words[-1].removeprefix(FOLDERS[0]))
    is_continued = os.environ.get(RESTARTS, "0") != "0" and (folder / "records").is_dir()
    if is_continued and "resume=true" not in words:
        words = [*words, "resume=true"]
    return subprocess.run(words, env=os.environ | {OWN_JOB: "1"}, check=False).returncode


def command(arguments: Sequence[str], folder: Path) -> list[str]:
    """The command inside the job: the same, with its folder named."""
    kept = [word for word in arguments if not word.lstrip("+").startswith((*SETTINGS, *FOLDERS))]
    return [sys.executable, "-m", "bench", *kept, f"hydra.sweep.dir={folder.resolve()}"]


def executor_for(cluster: Cluster, folder: Path) -> Any:
    """submitit's executor with the job's parameters. Raises ConfigError."""
    if not cluster.nodes:
        raise ConfigError(
            "cluster=slurm outside an allocation submits a job and needs cluster.nodes=N; or start it inside one, with "
            "salloc -N2 or in an sbatch script"
        )
    try:
        from submitit import SlurmExecutor
    except ImportError as error:
        raise ConfigError(
            "submitting a job needs submitit; install it with: pip install 'ddp-zero-bench[slurm]'"
        ) from error
    if shutil.which("sbatch") is None:
        raise ConfigError("cluster=slurm needs sbatch and srun, which are not installed here")
    place = folder / "slurm"
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o700)  # the command may hold an address with a password
    executor = SlurmExecutor(place)
    executor.update_parameters(**parameters(cluster))
    return executor


def parameters(cluster: Cluster) -> dict[str, Any]:
    """Flags of sbatch: whole nodes, unless ``cluster.options`` says otherwise, and one task per node."""
    flags: dict[str, Any] = {"exclusive": True, "mem": "0", "signal": "CONT@1"}
    # submitit's own signal would end the host servers 90 s before the time limit
    flags |= {str(name).replace("_", "-"): value for name, value in cluster.options.items()}
    return {
        "job_name": "bench",
        "nodes": cluster.nodes,
        "ntasks_per_node": 1,
        "use_srun": False,  # the sweep itself starts host servers with srun
        "setup": ["trap : TERM"],  # the script outlives the signal, so that the sweep can end as with Ctrl-C
        "additional_parameters": {name: value for name, value in flags.items() if value is not False},
        **({"partition": cluster.partition} if cluster.partition else {}),
        "time": cluster.time or DEFAULT_TIME,
    }


class Following:
    """A job's log on this terminal, until the job ends."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._copied: dict[Path, int] = {}
        self._queued = ""
        self._last = 0.0
        self._result: int | None = None

    def to_its_end(self) -> int:
        """The job's exit code; Ctrl-C cancels it."""
        try:
            while not self._has_ended():
                self._copy()
                time.sleep(POLL_S)
        except KeyboardInterrupt:
            print(f"cancelling job {self._job.job_id}; Ctrl-C again does not wait for its end", file=sys.stderr)
            try:
                cancel(self._job.job_id)
                self._wait(ENDING_S)
                self._copy()
            except KeyboardInterrupt:
                print(f"job {self._job.job_id} ends in the background", file=sys.stderr)
            return INTERRUPTED
        self._copy()
        return self._code()

    def _has_ended(self) -> bool:
        """Whether the job left its result, or Slurm no longer runs it."""
        if self._has_result():
            return True
        if time.monotonic() - self._last < ASK_S:
            return False
        self._last = time.monotonic()
        state, why = queue_state(self._job.job_id)
        if state == "PENDING" and why != self._queued:
            self._queued = why
            print(f"job {self._job.job_id} waits in the queue ({why})", file=sys.stderr)
        return state in ENDED

    def _has_result(self) -> bool:
        """Whether the sweep ended by itself. One that a signal ended, as at a preemption, may be run again by Slurm."""
        path = self._job.paths.result_pickle
        if self._result is None and path.exists():
            result = result_of(path)
            self._result = None if result == INTERRUPTED or result < 0 else result
        return self._result is not None

    def _wait(self, seconds: float) -> None:
        deadline, path = time.monotonic() + seconds, self._job.paths.result_pickle
        self._last, is_old = 0.0, path.exists()
        while time.monotonic() < deadline and not (self._has_ended() or path.exists() > is_old):
            self._copy()
            time.sleep(POLL_S)

    def _copy(self) -> None:
        """Prints what the log has gained."""
        for path, stream in ((self._job.paths.stdout, sys.stdout), (self._job.paths.stderr, sys.stderr)):
            with contextlib.suppress(OSError), path.open("rb") as log:
                self._copied[path] = copied(log, self._copied.get(path, 0), stream)

    def _code(self) -> int:
        """The sweep's exit code, or what ended the job."""
        deadline = time.monotonic() + ASK_S
        while not self._has_result() and time.monotonic() < deadline:
            time.sleep(POLL_S / 5)  # a shared file system shows a new file late
        if self._result is not None:
            return self._result
        state, why = queue_state(self._job.job_id)
        print(
            f"job {self._job.job_id} ended before the sweep: {printable(state)} ({printable(why)}); what is finished "
            "is kept; resume=true runs the rest",
            file=sys.stderr,
        )
        return LOST


ENDED = (
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED"),
    *("REVOKED", "TIMEOUT", "UNKNOWN"),
)
"""States of a job that no longer runs."""


def result_of(path: Path) -> int:
    """The exit code that ``run_in_job`` left, negative for a signal.

    submitit would ask for accounting, which a cluster may lack.
    """
    outcome, value = pickle.loads(path.read_bytes())
    if outcome == "success":
        return int(value)
    print(f"the job failed: {printable(str(value).strip().splitlines()[-1])}", file=sys.stderr)
    return LOST


def cancel(job: str) -> None:
    """Cancels a job. ``scancel`` has a session of its own, so it ends its work after a second Ctrl-C."""
    subprocess.Popen(["scancel", job], stdin=subprocess.DEVNULL, start_new_session=True).wait()


def queue_state(job: str) -> tuple[str, str]:
    """A job's state and its reason, by squeue; UNKNOWN once Slurm has forgotten it. Needs no accounting."""
    words = ["squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T|%r"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode and "Invalid job id" not in done.stderr:
        return "UNREACHABLE", done.stderr.strip()  # the controller may be back soon
    state, _, why = (done.stdout.strip().splitlines() or ["UNKNOWN|"])[0].partition("|")
    return state, why


def copied(log: IO[bytes], start: int, stream: IO[str]) -> int:
    """Prints whole lines of ``log`` from ``start`` on; where the next one begins.

    Lines of submitit itself are left in the file.
    """
    log.seek(start)
    whole, newline, _ = log.read().rpartition(b"\n")
    for line in whole.decode(errors="replace").splitlines() if newline else []:
        if not line.startswith("submitit "):
            print(printable(line), file=stream)
    stream.flush()
    return start + len(whole) + len(newline)


def report(folder: Path) -> None:
    """Reports what is finished, if anything is."""
    if any((folder / "records").glob("*.json")):
        subprocess.run([sys.executable, "-m", "analysis", "report", str(folder)], check=False)


def reason(error: BaseException) -> str:
    """The last line of what sbatch said."""
    lines = str(error).strip().splitlines()
    return printable(lines[-1] if lines else type(error).__name__)
