"""A setting is declared in one place, and everything else that concerns settings follows."""

from __future__ import annotations

import dataclasses

from bench import checks
from bench.engines.spec import EngineSpec
from results.declare import each_setting, info
from results.settings import Config, with_role
from results.training_settings import NEUTRAL, Training, choices


def test_an_engine_reads_the_same_fields_that_the_command_line_sets() -> None:
    for field in dataclasses.fields(Training):
        mine, theirs = (
            next(other for other in dataclasses.fields(kind) if other.name == field.name)
            for kind in (Config, EngineSpec)
        )
        assert mine.metadata is theirs.metadata is field.metadata
        assert mine.default == theirs.default == field.default


def test_every_default_is_valid() -> None:
    for path, field, value in each_setting(Config()):
        checks.check_value(path, field, value)


def test_a_setting_that_an_engine_may_lack_has_a_default_that_asks_for_nothing() -> None:
    assert set(NEUTRAL.values()) <= {None, 1, "none", False, "constant"}
    assert "stage" not in NEUTRAL and "lr" not in NEUTRAL


def test_choices_are_those_of_the_declaration() -> None:
    assert choices("stage") == ("0", "1", "2", "3")
    assert choices("precision")[0] == Training.precision


def test_roles_partition_the_settings() -> None:
    paths = {path for path, _, _ in each_setting(Config())}
    by_role = [set(with_role(role)) for role in ("setting", "task", "sweep", "instrument")]
    assert set.union(*by_role) == paths and sum(map(len, by_role)) == len(paths)


def test_every_setting_says_what_null_means_where_null_is_valid() -> None:
    unexplained = [
        path
        for path, field, value in each_setting(Config())
        if str(field.type).endswith("| None") and value is None and "null: " not in info(field).help
    ]
    assert unexplained == []
