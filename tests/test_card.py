"""Model cards: what the hub reads, and that every number is the run's."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from companion.card import CARDS, CardError, model_card
from companion.runs import DataInfo, RecordedRun, RunError, SeedResult, load_run
from tests.test_cli import call

SECTIONS = [
    "Model description",
    "Intended use",
    "Out of scope",
    "Training data",
    "Training procedure",
    "Evaluation",
    "Limits and risks",
    "Provenance",
]


def made_run(seeds=2, synthetic=False):
    text = CARDS["waveforms"]
    results = []
    for seed in range(seeds):
        metrics = {}
        for place, system in enumerate(text.systems):
            for metric in text.metrics:
                value = 0.9 + 0.01 * place + (0.001 * seed if system == "ae" else 0)
                metrics |= {f"{system}.{metric}": value}
                metrics |= {f"{system}.{metric}_low": value - 0.02, f"{system}.{metric}_high": value + 0.02}
            for point in text.points:
                metrics |= {f"{system}.{point}.tpr": 0.7 + 0.1 * seed, f"{system}.{point}.tnr": 0.99}
        results.append(SeedResult(seed=seed, metrics=metrics, curves={}, seconds={"ae": 30.0}))
    config = {
        "bottlenecks": [2, 8], "width": 8, "epochs": 3, "loss": "l2", "jitter": 0.1, "members": 3,
        "score_norm": "l2", "validation_normals": 1000,
    }  # fmt: skip
    return RecordedRun(
        experiment="waveforms", scale="full", config=config, results=results, commit="c" * 40, package="0.1",
        data=DataInfo(name="ecg5000", source="here: and 'there'", digest="d" * 64, synthetic=synthetic),
        libraries={"torch": "2"}, hardware="a machine", device="cpu", precision="float32",
        wall_seconds=60.0, finished="2026-11-21T12:00:00+00:00",
    )  # fmt: skip


def parts(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_is_what_model_hubs_read():
    run = made_run()
    front, body = parts(model_card(run))
    assert front["license"] == "mit"
    assert front["datasets"] == ["ecg5000"]
    assert "anomaly-detection" in front["tags"]
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {"type": "ecg5000", "name": "ECG5000", "split": "test"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        name: pytest.approx(run.metric(f"ae.{name}").mean()) for name in front["metrics"]
    }
    assert [line[3:] for line in body.splitlines() if line.startswith("## ")] == SECTIONS


def test_the_numbers_are_those_of_the_run():
    _, body = parts(model_card(made_run()))
    assert "| residual autoencoder | 0.9005 ± 0.0007 [0.8805, 0.9205] |" in body
    assert "| PCA | 0.9200 [0.9000, 0.9400] |" in body  # the same for each seed
    assert "| 1 % false positives: residual autoencoder | 75.00 ± 7.07 | 99.00 ± 0.00 |" in body
    assert "`companion run waveforms --scale full --seeds 2`" in body
    assert "c" * 40 in body
    assert "d" * 64 in body
    assert "stand-in" not in body


def test_one_seed_and_synthetic_data_are_told():
    front, body = parts(model_card(made_run(seeds=1, synthetic=True)))
    assert "synthetic-data" in front["tags"]
    assert "synthetic stand-in" in body


def test_a_run_without_a_card_and_a_run_that_lacks_a_number():
    with pytest.raises(CardError, match="no card for runs of 'degradation'; there are cards for: waveforms"):
        model_card(load_run("degradation-full-cpu"))
    run = made_run()
    for result in run.results:
        del result.metrics["pca.pr_auc"]
    with pytest.raises(CardError, match=r"no metric 'pca.pr_auc'"):
        model_card(run)


def test_the_recorded_run_has_a_card():
    run = load_run("waveforms-full-cpu")
    front, body = parts(model_card(run))
    values = {metric["type"]: metric["value"] for metric in front["model-index"][0]["results"][0]["metrics"]}
    assert values["roc_auc"] == pytest.approx(np.mean(run.metric("ae.roc_auc")), abs=1e-6)
    assert run.commit in body


def test_the_command_prints_or_writes(tmp_path):
    path = made_run().save(tmp_path)
    printed = call("card", str(path))
    assert printed.output == model_card(load_run(path))
    assert call("card", str(path), "--out", str(tmp_path / "README.md")).exit_code == 0
    assert (tmp_path / "README.md").read_text("utf8") == printed.output
    assert "no card for runs of" in call("card", "degradation-full-cpu").output
    missing = call("card", "nothing")
    assert missing.exit_code == 1
    assert "there is no run" in missing.output
    with pytest.raises(RunError):
        load_run("nothing")
