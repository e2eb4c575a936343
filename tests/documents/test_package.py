"""The wheel has what a command needs in an empty folder, and the files that a publication needs exist."""

from __future__ import annotations

import tomllib

from tests.architecture.rules import CODE
from tests.documents.markdown import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WHEEL = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
NEEDED = ("conf/config.yaml", "conf/experiment/default.yaml", "analysis/report/templates/report.html.j2")


def test_the_wheel_has_every_package_that_a_command_needs() -> None:
    assert set(CODE) - {"benchmarks"} <= set(WHEEL["packages"])
    assert [package for package in WHEEL["packages"] if not (ROOT / package).is_dir()] == []


def test_the_wheel_has_settings_and_templates() -> None:
    for file in NEEDED:
        assert (ROOT / file).is_file()
        assert file.split("/")[0] in WHEEL["packages"]
        assert not any(file.startswith(f"{excluded}/") for excluded in WHEEL["exclude"])


def test_the_license_is_declared_and_whole() -> None:
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert PROJECT["project"]["license-files"] == ["LICENSE"]
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


def test_a_citation_names_the_version_of_the_package() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {PROJECT['project']['version']}\n" in citation
    assert f'title: "{PROJECT["project"]["name"]}' in citation
