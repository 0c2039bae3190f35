"""Model cards: what the hub reads, and that every number is the run's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import yaml

from companion.card_texts import CARDS
from companion.data.casting import load_casting
from companion.experiments import get_experiment
from companion.model_cards import CardError, model_card
from companion.runs import DataInfo, RecordedRun, RunError, SeedResult, load_run
from tests.test_cli import call

DATA = {"waveforms": "ecg5000", "casting": "casting"}
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


def made_run(seeds=2, synthetic=False, experiment="waveforms", intervals=False):
    text = CARDS[experiment]
    results = []
    for seed in range(seeds):
        metrics = {}
        for place, system in enumerate(text.systems):
            for metric in text.metrics:
                value = 0.9 + 0.01 * place + (0.001 * seed if system == text.model else 0)
                metrics |= {f"{system}.{metric}": value}
                metrics |= {f"{system}.{metric}_low": value - 0.02, f"{system}.{metric}_high": value + 0.02}
            for point in text.points:
                rates = {f"{system}.{point}.tpr": 0.7 + 0.1 * seed, f"{system}.{point}.tnr": 0.99}
                metrics |= rates
                if intervals:
                    metrics |= {f"{name}_low": value - 0.01 for name, value in rates.items()}
                    metrics |= {f"{name}_high": value + 0.005 for name, value in rates.items()}
        results.append(SeedResult(seed=seed, metrics=metrics, curves={}, seconds={text.model: 30.0}))
    config = get_experiment(experiment).config("full").model_dump(mode="json")
    source = "here: and 'there'"
    data = DataInfo(name=DATA[experiment], source=source, digest="d" * 64, synthetic=synthetic)
    return RecordedRun(
        experiment=experiment, scale="full", config=config, results=results, commit="c" * 40, package="0.1",
        data=data, libraries={"torch": "2"}, hardware="a machine", device="cpu", precision="float32",
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


def test_rates_have_intervals_where_the_run_has_them():
    run = made_run(experiment="casting", intervals=True)
    _, body = parts(model_card(run))
    row = "| 1 % of disturbed normals: small residual classifier |"
    assert f"{row} 75.00 ± 7.07 [74.00, 75.50] | 99.00 ± 0.00 [98.00, 99.50] |" in body
    assert "Wilson interval" in body
    del run.results[1].metrics["final.disturbed.tpr_low"]
    _, body = parts(model_card(run))
    assert f"{row} 75.00 ± 7.07 | 99.00 ± 0.00 [98.00, 99.50] |" in body
    _, body = parts(model_card(made_run()))
    assert "Wilson" not in body


@pytest.mark.parametrize("experiment", CARDS)
def test_a_card_asks_for_what_the_experiment_measures(experiment):
    text = CARDS[experiment]
    front, body = parts(model_card(made_run(experiment=experiment)))
    assert text.model in text.systems
    assert front["metrics"] == list(text.metrics)
    assert [line[3:] for line in body.splitlines() if line.startswith("## ")] == SECTIONS
    assert all(label in body for label in (*text.systems.values(), *text.points.values()))


def test_the_casting_cards_recipe_is_the_configs():
    config = get_experiment("casting").config("full").model_dump(mode="json")
    procedure = CARDS["casting"].procedure
    told = procedure(config)
    for words in ("8 channels", "300 steps of 96 images with AdamW", "rate of 0.005", "1 % of", "95 % of"):
        assert words in told
    assert "This run used" not in told
    other = procedure(config | {"width": 12, "fpr": 0.02, "share": 0.5})
    assert "12 channels" in other
    assert "at most 2 %" in other
    assert other.endswith("This run used 50 % of the images of each part, or 120 of each label.")


def test_the_casting_cards_numbers_of_images_are_those_of_the_real_images(monkeypatch):
    monkeypatch.setenv("COMPANION_OFFLINE", "1")  # a test downloads nothing
    with warnings.catch_warnings(action="ignore"):
        images = load_casting()
    if images.synthetic:
        pytest.skip("the casting images are out of reach here")
    text = CARDS["casting"].training_data
    known = len(images.tuning.distinct())
    test = images.test.distinct()
    assert f"{len(images.train.distinct()):,} distinct normal images" in text
    assert f"{len(images.validation.distinct()):,} other normal images" in text
    assert f"{known - round(known / 2)} distinct known spills" in text
    assert f"the {round(known / 2)} other spills" in text
    assert f"{len(test):,} distinct ones, {int(test.labels.sum())} of them anomalous" in text


def test_one_seed_and_synthetic_data_are_told():
    front, body = parts(model_card(made_run(seeds=1, synthetic=True)))
    assert "synthetic-data" in front["tags"]
    assert "synthetic stand-in" in body


def test_a_run_without_a_card_and_a_run_that_lacks_a_number():
    with pytest.raises(
        CardError, match="no card for runs of 'degradation'; there are cards for: waveforms, casting"
    ):
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
