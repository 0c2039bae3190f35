from __future__ import annotations

import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from companion.cli import app
from companion.cli_common import errors_as_messages
from companion.data.download import cache_folder
from companion.runs import RECORDED, load_run
from tests import fake_cifar10

runner = CliRunner()


def call(*arguments: object):
    result = runner.invoke(
        app, [str(a) for a in arguments], env={"COLUMNS": "200", "COMPANION_DEVICE": "cpu"}
    )
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def good(*arguments: object) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = fake_cifar10.make(tmp_path)
    fake_cifar10.install(made, monkeypatch)
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    monkeypatch.delenv("COMPANION_MIRROR", raising=False)
    return made


def test_data_are_listed_and_fetched(fake, tmp_path, monkeypatch):
    assert "no" in call("data", "list").output.splitlines()[3]
    monkeypatch.setenv("COMPANION_MIRROR", str(tmp_path))
    fetched = call("data", "fetch", "cifar10")
    assert fetched.exit_code == 0
    assert "cifar10: here, from" in fetched.output
    listed = call("data", "list")
    assert "CIFAR-10" in listed.output
    assert str(cache_folder()) in listed.output


def test_data_that_cannot_be_had_end_with_status_1_and_a_way_out(fake, tmp_path):
    fetched = call("data", "fetch")
    assert fetched.exit_code == 1
    assert "COMPANION_OFFLINE is set" in fetched.output


def test_an_unknown_data_set_is_named(fake):
    result = call("data", "fetch", "mnist")
    assert result.exit_code == 1
    assert "mnist" in result.output
    assert "cifar10" in result.output


def test_an_experiment_is_run_and_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr("companion.experiments.runner.pooch.os_cache", lambda name: tmp_path / "work")
    arguments = [
        "run",
        "identity",
        "--scale",
        "smoke",
        "--seeds",
        "2",
        "--out",
        str(tmp_path),
        "--device",
        "cpu",
    ]
    result = call(*arguments)
    assert result.exit_code == 0, result.output
    path = tmp_path / "identity-smoke-cpu.json"
    assert f"recorded in {path}" in result.output
    assert load_run(path).seeds == [0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "there is no experiment"),
        (["run", "identity", "--scale", "huge"], "the scale must be"),
        (["run", "identity", "--scale", "smoke", "--device", "abacus"], "abacus"),
    ],
)
def test_mistakes_end_with_status_1_and_a_message(arguments, message):
    result = call(*arguments)
    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_the_stand_in_is_not_recorded_by_accident(fake, tmp_path, monkeypatch):
    monkeypatch.setattr("companion.experiments.runner.pooch.os_cache", lambda name: tmp_path / "work")
    monkeypatch.setattr("companion.experiments.degradation._splits", _uncached_splits())
    arguments = ["run", "degradation", "--scale", "smoke", "--out", str(tmp_path / "runs")]
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        refused = call(*arguments)
    assert refused.exit_code == 1
    assert "--allow-synthetic" in refused.output
    with pytest.warns(UserWarning, match="SYNTHETIC"):
        allowed = call(*arguments, "--allow-synthetic")
    assert allowed.exit_code == 0, allowed.output
    assert load_run(next((tmp_path / "runs").glob("*.json"))).data.synthetic


def _uncached_splits():
    from companion.experiments import degradation

    return degradation._splits.__wrapped__


def test_a_card_does_not_replace_a_file_unasked(tmp_path):
    path = tmp_path / "README.md"
    path.write_text("mine")
    run = next(RECORDED.glob("waveforms-*.json")).stem
    refused = call("card", run, "--out", path)
    assert refused.exit_code == 1
    assert "--force" in refused.output
    assert path.read_text() == "mine"
    good("card", run, "--out", path, "--force")
    assert path.read_text("utf8") == call("card", run).output


@pytest.mark.parametrize("error", [KeyError("name"), TypeError("unhashable"), MemoryError(), IndexError("x")])
def test_an_error_from_the_depths_is_a_message(error, capsys):
    def fail():
        with errors_as_messages():
            raise error

    with pytest.raises(typer.Exit):
        fail()
    assert f"error: {type(error).__name__}" in capsys.readouterr().err


def test_info_says_what_would_be_used():
    result = call("info")
    assert result.exit_code == 0
    for word in ("device", "precision", "hardware", "torch"):
        assert word in result.output


# ---------------------------------------------------------------- classify


def test_images_are_classified(tmp_path, monkeypatch):
    from companion.experiments import classifier
    from companion.objectives.classification import ImageClassification

    objective = ImageClassification(torch.full((3,), 0.5), torch.full((3,), 0.25))
    model = classifier.build("resnet9-4").eval()
    stand_in = classifier.TrainedClassifier(model, objective, tuple("abcdefghij"))
    monkeypatch.setattr(classifier, "trained_classifier", lambda compute: stand_in)
    photo = tmp_path / "photo.png"
    Image.new("RGB", (50, 40), "green").save(photo)
    result = call("classify", str(photo), str(photo), "--top", "2")
    assert result.exit_code == 0
    first, second = result.output.splitlines()
    assert first == second
    assert first.startswith(f"{photo}: ")
    assert first.count("%") == 2
    missing = call("classify", str(tmp_path / "nothing.jpg"), str(photo))
    assert missing.exit_code == 1
    assert "nothing.jpg: No such file" in missing.output
    assert first in missing.output  # the others are classified all the same
