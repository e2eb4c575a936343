"""No password or token is written where others read it."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from bench.cli.withheld import restored, withhold
from results.mlflow_store import default_uri
from results.secrets import warning_of_visible, without_secrets

ROOT = Path(__file__).resolve().parents[4]
WORD = "".join(("hun", "ter"))  # whole nowhere in the source, whose patch a record holds
URI = f"http://me:{WORD}2@127.0.0.1:9/?token={WORD}3"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (URI, "http://***@127.0.0.1:9/?token=***"),
        ("postgresql://u:p@db/x?sslmode=require&password=a", "postgresql://***@db/x?sslmode=require&password=***"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("stage=0,1", "stage=0,1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


def test_settings_get_back_what_was_withheld() -> None:
    task = {"tracking": {"uri": URI}}
    override = f"tracking.uri='{URI}'"
    hydra = {"job": {"env_set": {"BENCH_TEST_TOKEN": "x"}}, "overrides": {"task": [override]}}
    config = OmegaConf.create(task | {"hydra": hydra})
    withhold(config)
    assert WORD not in OmegaConf.to_yaml(config) and "BENCH_TEST_TOKEN" not in OmegaConf.to_yaml(config)
    uri = OmegaConf.to_container(config)["tracking"]["uri"]  # type: ignore[call-overload, index]
    assert restored({"tracking": {"uri": uri}}) == {"tracking": {"uri": URI}}


def test_the_store_of_the_environment_is_the_default_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert default_uri() == "http://server:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    assert default_uri() == "sqlite:///mlflow.db"


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["-m", "tracking.uri=http://me:secret@host:5000"], "tracking.uri"),
        (["--mlflow", "http://me:secret@host"], "an address"),
        (["--mlflow=https://host/?access_token=abc"], "--mlflow"),
    ],
)
def test_a_password_that_ps_shows_is_warned_of_without_being_printed(arguments: list[str], name: str) -> None:
    line = warning_of_visible(arguments)
    assert line.startswith(f"warning: {name} on the command line contains a password or token")
    assert "MLFLOW_TRACKING_PASSWORD" in line
    assert "secret" not in line and "abc" not in line and "\n" not in line


def test_a_command_without_a_password_is_not_warned_of() -> None:
    assert warning_of_visible(["-m", "stage=0,1", "tracking.uri=http://host:5000", "data_dir=/a@b"]) == ""
