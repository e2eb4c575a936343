"""The command says how wrong it was before it says what will be."""

import pytest

from analysis.__main__ import main
from tests.fakes import write_all
from tests.simulated_training import Cluster


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    cluster = Cluster(bytes_per_s=5e7)
    records = [cluster.record(stage, size, launches=3, steps=4) for stage in (0, 1) for size in (1, 2, 4)]
    return write_all(records, tmp_path_factory.mktemp("sweep") / "today")


def test_the_check_comes_first_and_the_answer_before_its_table(folder, capsys):
    assert main(["project", str(folder), "--gpus", "8,64"]) == 0
    out = capsys.readouterr().out
    places = [out.index(words) for words in ("Check: fitted on up to 2 GPUs", "8 GPUs: stage", "configuration")]
    assert places == sorted(places)
    assert "90 % band" in out
    assert "64 GPUs: stage" in out


def test_nothing_to_project_is_status_1_with_the_reason(folder, capsys):
    assert main(["project", str(folder), "--gpus", "100000"]) == 1
    assert "100000 GPUs: more than 64 times the largest measured world size, 4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--link", "400gbit"], "--link and --latency describe the network between hosts together"),
        (["--link", "400gbit", "--latency", "5us"], "give --gpus-per-host too"),
        (["--inside", "900GB/s"], "give --gpus-per-host too"),
    ],
)
def test_half_a_network_is_status_2(folder, capsys, options, words):
    assert main(["project", str(folder), "--gpus", "8", *options]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--gpus", "0"], "valid: whole numbers from 1"),
        (["--gpus", "8", "--link", "fast"], "'fast' is not a rate"),
        (["--gpus", "8", "--latency", "5"], "'5' is not a time"),
        (["--gpus", "8", "--inside", "900GB"], "'900GB' is not a rate"),
    ],
)
def test_a_bad_value_names_what_is_valid(folder, capsys, options, words):
    with pytest.raises(SystemExit) as ended:
        main(["project", str(folder), *options])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
