"""MLflow as a place of records: what is logged is read back the same, and a store that fails costs one line."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from analysis.__main__ import main
from bench.tracking import __main__ as tracking
from bench.tracking.tracker import connect
from results import mlflow_store
from results.record import Record, side_id
from results.settings import Tracking
from tests.fakes import sweep

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

ROOT = Path(__file__).resolve().parents[2]


def keep(records: list[Record], folder: Path, sweep_id: str) -> Path:
    """Writes records as a sweep does; returns the sweep's folder."""
    (folder / "records").mkdir(parents=True)
    for record in records:
        record.sweep_id = sweep_id
        record.write(folder / "records" / f"{record.cell_id}.json")
    (folder / "report.html").write_text("<p>report</p>")
    return folder


@functools.cache
def empty_store() -> bytes:
    """A store as MLflow makes it, which takes it seconds."""
    with tempfile.TemporaryDirectory() as place:
        mlflow_store.open_client(f"sqlite:///{place}/mlflow.db", create=True)
        return Path(place, "mlflow.db").read_bytes()


def settings(place: Path, uri: str | None = None) -> Tracking:
    """A store in ``place``, or at ``uri``."""
    if uri is None and not (place / "mlflow.db").exists():
        (place / "mlflow.db").write_bytes(empty_store())
    return Tracking(uri=uri or f"sqlite:///{place}/mlflow.db", artifacts=str(place / "mlartifacts"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two sweeps of four cells, and a run that is not ours."""
    place = tmp_path_factory.mktemp("store")
    for name, seed in (("monday", 1), ("tuesday", 2)):
        folder = keep(sweep(stages=(0, 1), worlds=(1, 2), repeats=7, seed=seed), place / name, name)
        assert tracking.import_folders([folder], settings(place)) == 0
    client = mlflow_store.open_client(uri(place), create=False)
    client.create_run(experiment(client), run_name="not ours")
    return place


def uri(place: Path) -> str:
    return f"sqlite:///{place}/mlflow.db"


def experiment(client: MlflowClient) -> str:
    entry = client.get_experiment_by_name(mlflow_store.EXPERIMENT)
    assert entry
    return str(entry.experiment_id)


def run_id(place: Path, query: str) -> str:
    client = mlflow_store.open_client(uri(place), create=False)
    return str(next(iter(mlflow_store.search(client, experiment(client), query))).info.run_id)


def parent(place: Path, name: str) -> str:
    return run_id(place, f"tags.sweep = '{name}' and tags.cells LIKE '%'")


def written(place: Path, *names: str) -> list[Record]:
    return [Record.read(path) for name in names for path in sorted((place / name / "records").iterdir())]


def same(ours: list[Record], theirs: list[Record]) -> bool:
    def order(record: Record) -> tuple[str, str]:
        return record.sweep_id, record.cell_id

    return sorted(ours, key=order) == sorted(theirs, key=order)


def test_an_experiment_and_a_run_give_back_the_records_that_were_logged(store: Path) -> None:
    everything = mlflow_store.experiment_records(uri(store), mlflow_store.EXPERIMENT)
    assert everything.warnings == [] and same(everything.records, written(store, "monday", "tuesday"))
    assert same(mlflow_store.run_records(uri(store), parent(store, "monday")).records, written(store, "monday"))
    one = run_id(store, "tags.sweep = 'monday' and params.stage = '1' and params.gpus = '2'")
    (record,) = mlflow_store.run_records(uri(store), one).records
    assert (record.sweep_id, record.config["stage"], record.config["gpus"]) == ("monday", 1, 2)


def test_a_cell_that_was_logged_twice_is_read_once(store: Path, tmp_path: Path) -> None:
    place = tmp_path
    folder = keep(sweep(stages=(0,), worlds=(1, 2), repeats=2), place / "twice", "twice")
    tracker = connect(settings(place))
    for _ in range(2):
        tracker.log_sweep(written(place, "twice"), folder)
    contents = mlflow_store.experiment_records(uri(place), mlflow_store.EXPERIMENT)
    assert tracker.warnings == [] and same(contents.records, written(place, "twice"))


def test_both_sides_of_a_gate_are_imported_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sides have the same cells, by the same names."""
    monkeypatch.chdir(tmp_path)
    sides = [
        keep(sweep(stages=(0, 1), worlds=(2,), repeats=7, seed=seed), tmp_path / "gate" / side, side_id("gate", side))
        for seed, side in enumerate(("base", "current"))
    ]
    command = ["bench.tracking", "import", *map(str, sides), "--uri", uri(tmp_path)]
    for words in ("2 records", "already in experiment"):
        monkeypatch.setattr(sys, "argv", command)
        assert tracking.main() == 0
        assert capsys.readouterr().out.count(words) == 2
    contents = mlflow_store.experiment_records(uri(tmp_path), mlflow_store.EXPERIMENT)
    assert contents.warnings == [] and same(contents.records, written(tmp_path, "gate/base", "gate/current"))
    assert len(contents.records) == 4
    from_folders = main(["compare", *map(str, sides)]), capsys.readouterr().out
    runs = [f"mlflow:{parent(tmp_path, side_id('gate', side))}" for side in ("base", "current")]
    assert (main(["compare", *runs, "--mlflow", uri(tmp_path)]), capsys.readouterr().out) == from_folders


def test_report_advise_and_compare_read_mlflow(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report"
    assert main(["report", "--mlflow", uri(store), "--experiment", "ddp-zero-bench", "--out", str(out)]) == 0
    assert (out / "report.html").exists() and len((out / "summary.csv").read_text().splitlines()) == 1 + 8
    capsys.readouterr()
    assert main(["advise", f"mlflow:{parent(store, 'monday')}", "--mlflow", uri(store)]) == 0
    from_mlflow = capsys.readouterr().out
    assert main(["advise", str(store / "monday")]) == 0
    assert from_mlflow == capsys.readouterr().out != ""
    sides = [f"mlflow:{parent(store, name)}" for name in ("monday", "tuesday")]
    from_runs = main(["compare", *sides, "--mlflow", uri(store)]), capsys.readouterr().out
    from_folders = main(["compare", str(store / "monday"), str(store / "tuesday")]), capsys.readouterr().out
    assert from_runs == from_folders and "4 configurations, second against first" in from_runs[1]
    assert main(["compare", sides[0], str(store / "tuesday"), "--mlflow", uri(store)]) == from_folders[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report"], "nothing to read; name a PATH, mlflow:RUN_ID, or --mlflow URI --experiment NAME"),
        (["report", "x", "--experiment", "y"], "--experiment reads the whole experiment; name it or PATHs, not both"),
        (["report", "--mlflow", "URI", "--experiment", "nope"], "no experiment nope in URI; there are: Default, ddp-"),
        (
            ["advise", "--mlflow", "URI", "--experiment", "Default"],
            "experiment Default in URI has no run of a configuration",
        ),
        (["advise", "--mlflow", "sqlite:///gone.db"], "no MLflow store at sqlite:///gone.db; a sweep creates it, or"),
        (["report", "--mlflow", "http://u:secret@127.0.0.1:9"], "http://***@127.0.0.1:9 does not answer: "),
        (["report", "--mlflow", "sqlite:///text.db"], "sqlite:///text.db cannot be used: file is not a database"),
        (["report", "--mlflow", "nonsense"], "nonsense is no MLflow store; valid: such as sqlite:///mlflow.db or"),
        (["report", "--mlflow", "ftp://127.0.0.1"], "ftp://127.0.0.1 "),
        (["compare", "mlflow:" + "0" * 32, "mlflow:x", "--mlflow", "URI"], f"no run {'0' * 32} in URI"),
        (["compare", "mlflow:OTHER", "mlflow:x", "--mlflow", "URI"], "run OTHER in URI has no record among its art"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.db").write_text("no database " * 100)
    before = {path.name for path in tmp_path.iterdir()}
    other = run_id(store, "attributes.run_name = 'not ours'")
    put = [word.replace("URI", uri(store)).replace("OTHER", other) for word in arguments]
    assert main(put) == 2
    output = capsys.readouterr()
    *warnings, error = output.err.splitlines()
    assert error.startswith("error: " + message.replace("in URI", f"in {uri(store)}").replace("OTHER", other))
    assert len(warnings) == ("secret" in "".join(arguments)), "a password that ps shows"
    assert output.out == "" and "secret" not in output.err
    assert {path.name for path in tmp_path.iterdir()} == before


def test_reading_mlflow_never_imports_torch(store: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from analysis.__main__ import main; code = main(sys.argv[1:]); "
        "sys.exit(code or 100 * ('torch' in sys.modules) or 10 * ('mlflow' not in sys.modules))"
    )
    arguments = ["report", "--mlflow", uri(store), "--experiment", "ddp-zero-bench", "--out", str(tmp_path / "report")]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_defaults_of_bench_and_analysis_are_one() -> None:
    assert (Tracking.uri, Tracking.experiment) == (mlflow_store.URI, mlflow_store.EXPERIMENT)


def cells_of(place: Path, name: str) -> int:
    client = mlflow_store.open_client(uri(place), create=False)
    return len(list(mlflow_store.search(client, experiment(client), f"tags.sweep = '{name}' and tags.record LIKE '%'")))


def test_a_sweep_is_imported_once_again_only_on_demand_and_a_part_of_it_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = keep(sweep(stages=(0, 1), worlds=(1, 2), repeats=2), tmp_path / "sweep", "sweep")
    where = settings(tmp_path)
    client = type(mlflow_store.open_client(uri(tmp_path), create=True))
    logged, sound = [], client.log_artifact

    def failing(*arguments: object) -> None:
        logged.append(arguments)
        if len(logged) > 2:
            raise OSError("no space left on device")
        sound(*arguments)  # type: ignore[call-overload]

    def dies(whole: int) -> None:
        """Next to ``whole`` runs of cells that the store has already."""
        logged.clear()
        with monkeypatch.context() as patch:
            patch.setattr(client, "log_artifact", failing)
            assert tracking.import_folders([folder], where, again=True) == 1
        output = capsys.readouterr()
        assert (output.out, output.err.count("\n")) == ("", 1) and "no space left on device" in output.err
        assert cells_of(tmp_path, "sweep") == whole + 3

    dies(whole=0)
    for again, message in ((False, "4 records"), (False, "already in experiment ddp-zero-bench"), (True, "4 records")):
        assert tracking.import_folders([folder], where, again=again) == 0
        assert message in capsys.readouterr().out
        assert cells_of(tmp_path, "sweep") == 4
    dies(whole=4)
    assert tracking.import_folders([folder], where) == 0
    assert cells_of(tmp_path, "sweep") == 4


@pytest.mark.parametrize("grown", [{"stages": (0, 1)}, {"repeats": 3}, {"status": "ok"}], ids=str)
def test_a_sweep_that_was_resumed_since_is_imported_in_place_of_its_part(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], grown: dict[str, Any]
) -> None:
    earlier: dict[str, Any] = {"stages": (0,), "worlds": (1,), "repeats": 2, "status": "interrupted"}
    for seen, changes in enumerate(({}, grown)):
        folder = keep(sweep(**earlier | changes), tmp_path / str(seen) / "sweep", "sweep")
        for words in (f"{1 + ('stages' in changes)} records", "already in experiment"):
            assert tracking.import_folders([folder], settings(tmp_path)) == 0
            assert words in capsys.readouterr().out
    contents = mlflow_store.experiment_records(uri(tmp_path), mlflow_store.EXPERIMENT)
    assert same(contents.records, written(tmp_path / "1", "sweep"))
    assert cells_of(tmp_path, "sweep") == len(contents.records)


def test_a_name_with_quotes_is_found_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = """o'brien's "own" \\"""
    folder = keep(sweep(stages=(0,), worlds=(1,), repeats=2), tmp_path / name, name)
    for words in ("1 records", "already in experiment"):
        assert tracking.import_folders([folder], settings(tmp_path)) == 0
        assert words in capsys.readouterr().out
    (record,) = mlflow_store.experiment_records(uri(tmp_path), mlflow_store.EXPERIMENT).records
    assert record.sweep_id == name


def test_a_record_that_cannot_be_analysed_keeps_no_others_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = sweep(stages=(0, 1), worlds=(1,), repeats=2)
    del records[1].resolved["global_batch"]
    folder = keep(records, tmp_path / "sweep", "sweep")
    assert tracking.import_folders([folder], settings(tmp_path)) == 1
    output = capsys.readouterr()
    assert output.out.endswith("sweep: 1 records\n")
    assert output.err.startswith("skipped: ") and output.err.endswith("resolved.global_batch is missing\n")
    assert output.err.count("\n") == 1 and cells_of(tmp_path, "sweep") == 1
