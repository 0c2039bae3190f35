import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from companion import experiments
from companion.cli import app
from companion.cli_common import errors_as_messages
from companion.data.download import cache_folder
from companion.runs import load_run
from tests import fake_cifar10


def call(*arguments: object):
    environment = {"COLUMNS": "200", "COMPANION_DEVICE": "cpu"}
    result = CliRunner().invoke(app, [str(a) for a in arguments], env=environment)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def good(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def bad(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.output
    return result.output


def test_version_says_what_is_computed_on():
    told = good("--version")
    assert f"torch {torch.__version__.split('+')[0]}" in told
    assert "computes on cpu" in told


def test_data_are_listed_and_fetched(archives, mirror, monkeypatch):
    fake_cifar10.install(archives, monkeypatch)
    assert "no" in good("data", "list").splitlines()[3]
    assert "COMPANION_OFFLINE is set" in bad("data", "fetch")
    assert re.search(r"mnist.*cifar10", bad("data", "fetch", "mnist"))
    monkeypatch.setenv("COMPANION_MIRROR", str(archives.python.parent))
    assert "cifar10: here, from" in good("data", "fetch", "cifar10")
    assert re.search(rf"(?s)CIFAR-10.*{cache_folder()}", good("data", "list"))


def test_an_experiment_is_run_and_recorded(tmp_path, small, monkeypatch):
    path = tmp_path / "identity-smoke-cpu.json"
    experiment = experiments.get_experiment("identity")

    def runs(config, seed, context):  # a metric that the first seed lacks
        result = experiment.run(config, seed, context)
        return result.model_copy(update={"metrics": result.metrics | ({"late": 5.0} if seed else {})})

    monkeypatch.setattr(experiments, "get_experiment", lambda name: replace(experiment, run=runs))
    told = good("run", "identity", "--scale", "smoke", "--seeds", 2, "--out", tmp_path, "--device", "cpu")
    assert f"recorded in {path}" in told
    recorded = load_run(path)
    assert recorded.seeds == [0, 1]
    assert f"{recorded.metric('plain-2.final_loss').mean():.4g}" in told
    assert re.search(r"late +.? *5", told)
    assert all(name in good("run", "--help") for name in ("identity", "table_rivals"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "there is no experiment"),
        (["run", "identity", "--scale", "huge"], "the scale must be"),
        (["run", "identity", "--scale", "smoke", "--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_end_with_status_1_and_a_message(arguments, message):
    assert message in bad(*arguments)


def test_a_cache_that_cannot_be_written_is_told(monkeypatch):
    monkeypatch.setattr("companion.experiments.runner.cache_folder", lambda: Path("/proc/nowhere"))
    assert "set COMPANION_DATA" in bad("run", "identity", "--scale", "smoke")


def test_the_stand_in_is_not_recorded_by_accident(tmp_path, small):
    arguments = ("run", "degradation", "--scale", "smoke", "--out", tmp_path / "runs")
    assert "--allow-synthetic" in bad(*arguments)
    good(*arguments, "--allow-synthetic")
    assert load_run(next((tmp_path / "runs").glob("*.json"))).data.synthetic


@pytest.mark.parametrize("error", [KeyError("name"), TypeError("unhashable"), MemoryError(), IndexError("x")])
def test_an_error_from_the_depths_is_a_message(error, capsys):
    def fail():
        with errors_as_messages():
            raise error

    with pytest.raises(typer.Exit):
        fail()
    assert f"error: {type(error).__name__}" in capsys.readouterr().err
