from __future__ import annotations

import shutil

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from companion.cli import app
from companion.data import sources
from companion.runs import RECORDED, load_run
from tests import fake_cifar10

runner = CliRunner()


def call(*arguments: str):
    result = runner.invoke(app, list(arguments), env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = fake_cifar10.make(tmp_path)
    fake_cifar10.install(made, monkeypatch)
    monkeypatch.setenv("COMPANION_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("COMPANION_OFFLINE", "1")
    monkeypatch.delenv("COMPANION_MIRROR", raising=False)
    return made


def test_data_are_listed_fetched_and_verified(fake, tmp_path, monkeypatch):
    assert "no" in call("data", "list").output.splitlines()[3]
    monkeypatch.setenv("COMPANION_MIRROR", str(tmp_path))
    fetched = call("data", "fetch", "cifar10")
    assert fetched.exit_code == 0
    assert "cifar10: here, from" in fetched.output
    assert call("data", "verify").output == "cifar10: good\n"
    listed = call("data", "list")
    assert "CIFAR-10" in listed.output
    assert str(sources.cache_folder()) in listed.output


def test_data_that_cannot_be_had_end_with_status_1_and_a_way_out(fake, tmp_path):
    fetched = call("data", "fetch")
    assert fetched.exit_code == 1
    assert "COMPANION_OFFLINE is set" in fetched.output
    verified = call("data", "verify")
    assert verified.exit_code == 1
    assert "companion data fetch" in verified.output
    (tmp_path / "cache" / "cifar10.safetensors").write_bytes(b"broken")
    verified = call("data", "verify")
    assert verified.exit_code == 1
    assert "damaged" in verified.output


def test_an_unknown_data_set_is_named(fake):
    result = call("data", "fetch", "mnist")
    assert result.exit_code == 1
    assert "mnist" in result.output
    assert "cifar10" in result.output


def test_an_experiment_is_run_and_listed(tmp_path, monkeypatch):
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
    assert "identity-smoke-cpu" in call("runs", "list", str(tmp_path)).output


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
    assert "(synthetic)" in call("runs", "list", str(tmp_path / "runs")).output


def _uncached_splits():
    from companion.experiments import degradation

    return degradation._splits.__wrapped__


def test_the_books_runs_are_listed_by_default():
    result = call("runs", "list")
    assert result.exit_code == 0
    for path in RECORDED.glob("*.json"):
        assert path.stem in result.output


def test_a_bad_file_among_runs_is_named(tmp_path):
    shutil.copy(next(RECORDED.glob("*.json")), tmp_path / "good.json")
    (tmp_path / "bad.json").write_text("{}")
    result = call("runs", "list", str(tmp_path))
    assert result.exit_code == 1
    assert "bad.json" in result.output


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
    missing = call("classify", str(tmp_path / "nothing.jpg"))
    assert missing.exit_code == 1
    assert "no file" in missing.output
