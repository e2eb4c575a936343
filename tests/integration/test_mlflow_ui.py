"""MLflow's UI in a real browser: a sweep that was really run is selected, compared and read there.

Set UI_SCREENSHOTS to a folder to keep the pictures; else they are in pytest's temporary folder.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from bench.tracking.__main__ import import_folders
from bench.tracking.ui import free_port
from results.settings import Tracking
from tests import command_line
from tests.fakes import sweep, write_all

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WAIT_MS = 120_000
SWEEP = (
    *("-m", "stage=0,3", "gpus=1,2", "workload=digits", "batch_size=8", "steps=3", "warmup=1", "repeats=2"),
    *("measure.parity_steps=2", "measure.ceiling=false", "hydra.sweep.dir=runs/small"),
)


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A working directory with a store in which made-up records were logged."""
    folder = write_all(sweep((0, 3), (1, 2)), tmp_path / "runs" / "made_up")
    assert import_folders([folder], Tracking(uri=f"sqlite:///{tmp_path}/mlflow.db", artifacts=None)) == 0
    return tmp_path


@pytest.fixture(scope="module")
def real_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory in which a small sweep was run and logged."""
    pytest.importorskip("playwright.sync_api", reason="needs playwright (dependency group ui)")
    if BROWSER is None:
        pytest.skip("needs Chromium: none on PATH")
    place = tmp_path_factory.mktemp("ui")
    done = command_line.run("bench", *SWEEP, cwd=place)
    assert done.returncode == 0, done.stderr
    return place


@contextmanager
def ui(place: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """``python -m bench.tracking.ui`` and the lines that it printed before it was ready; killed in any case."""
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.tracking.ui", "--port", "5600"],
        cwd=place,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert server.stdout
        lines: list[str] = []
        while not lines or lines[-1] != "Ctrl-C ends it.":
            line = server.stdout.readline()
            assert line, f"bench.tracking.ui ended with {server.wait()}: {lines}"
            lines.append(line.rstrip("\n"))
        yield server, lines
    finally:
        family = [*psutil.Process(server.pid).children(recursive=True)] if server.poll() is None else []
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
        for process in family:
            if process.is_running():
                process.kill()


@contextmanager
def browser() -> Iterator[Page]:
    """A page of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"], timeout=WAIT_MS)
        try:
            page = chromium.new_page(viewport={"width": 1600, "height": 1000})
            page.set_default_timeout(WAIT_MS)
            yield page
        finally:
            chromium.close()


def test_the_cells_of_a_sweep_are_selected_compared_and_read_in_the_ui(real_store: Path) -> None:
    kept = Path(os.environ.get("UI_SCREENSHOTS", real_store / "screenshots"))
    with browser() as page, ui(real_store) as (_, lines):
        (charts,) = [line.strip() for line in lines if "/runs?" in line]
        page.goto(charts)
        for stage in (0, 3):
            for ranks in ("1 rank", "2 ranks"):
                page.get_by_text(f"native stage {stage}, {ranks}, digits fp32").first.wait_for()
        page.get_by_text("Model metrics").wait_for()
        page.get_by_text("by_step_loss", exact=True).first.wait_for()
        picture(page, kept / "charts.png")

        page.get_by_role("checkbox").first.check()
        page.get_by_role("button", name="Compare", exact=True).click()
        page.get_by_text("Comparing 4 Runs from 1 Experiment").wait_for()
        plot = page.locator(".parcoords, .js-plotly-plot").first
        plot.get_by_text("scaling_efficiency", exact=True).first.wait_for()
        assert {"stage", "gpus"} <= set(plot.inner_text().split())
        picture(page, kept / "compare.png")
        wanted = {"peak_bytes", "model_state_bytes", "step_time_s", "throughput_per_s", "mlflow_has_no_such_metric"}
        assert wanted - metrics_read(page, kept) == {"mlflow_has_no_such_metric"}

        page.goto(charts.replace("tags.record", "tags.cells"))  # the UI keeps the filter that was set last
        page.get_by_role("link", name="small: native; digits; 4 configurations").click()
        page.get_by_role("tab", name="Artifacts").click()
        page.get_by_text("report.html", exact=True).first.click()
        page.frame_locator("iframe").first.get_by_role("heading", name="DDP and ZeRO: digits").wait_for()
        picture(page, kept / "report.png")
    assert all((kept / f"{name}.png").stat().st_size > 10_000 for name in ("charts", "compare", "metrics", "report"))


def metrics_read(page: Page, kept: Path) -> set[str]:
    """Every line of the compare view's table of metrics, which the UI draws only as far as it is scrolled."""
    named = page.get_by_text("activations_predicted_bytes", exact=True).first
    named.scroll_into_view_if_needed()
    box = named.bounding_box()
    assert box
    page.mouse.move(box["x"] + 300, box["y"] + box["height"] / 2)  # over the values: the names do not move the values
    lines: set[str] = set()
    for _ in range(40):
        lines |= set(page.locator("body").inner_text().split("\n"))
        if "peak_bytes" in lines and not (kept / "metrics.png").exists():
            picture(page, kept / "metrics.png")
        page.mouse.wheel(0, 80)
        page.wait_for_timeout(300)
    return lines


def picture(page: Page, path: Path) -> None:
    time.sleep(1)  # plots move into place
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path))


def test_the_ui_listens_on_loopback_alone_takes_a_sweep_and_ctrl_c_ends_all_of_it(
    store: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")  # a busy machine's
    folder = store / "runs" / "made_up"
    capfd.readouterr()
    with ui(store) as (server, lines):
        assert re.fullmatch(r"MLflow's UI: http://127\.0\.0\.1:\d+/", lines[0])
        address = lines[0].removeprefix("MLflow's UI: ").rstrip("/")
        family = psutil.Process(server.pid).children(recursive=True)
        heard = [
            connection.laddr
            for process in family
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert set(heard) == {("127.0.0.1", int(address.rpartition(":")[2]))}
        assert import_folders([folder], Tracking(uri=address, experiment="served")) == 0
        assert capfd.readouterr().out == f"{folder}: 4 records\n", "nothing else is printed"
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0
        assert not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in family)


@pytest.mark.parametrize("port", [-1, 0, 65536])
def test_a_port_that_cannot_be_is_rejected_by_its_name(port: int) -> None:
    with pytest.raises(OSError, match=f"--port {port} is not valid; valid: 1 to 65535"):
        free_port(port)


def test_without_a_store_it_prints_one_line_and_creates_none(tmp_path: Path) -> None:
    done = command_line.run("bench.tracking.ui", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("bench.tracking.ui: no MLflow store at sqlite:///mlflow.db; a sweep creates it")
    assert list(tmp_path.iterdir()) == []
