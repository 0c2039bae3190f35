"""Model cards: what the hub reads, and that every number is the run's."""

import re

import pytest
import yaml

from companion.data.ecg import load_ecg5000
from companion.experiments import casting_detectors
from companion.model_cards import CARDS, model_card
from companion.notebook import provenance, recorded_table
from companion.runs import load_run
from tests.test_cli import bad, good

NAMES = sorted(path.stem for path in CARDS.glob("*.md"))
SECTIONS = [
    "Model description", "Intended use", "Out of scope", "Training data", "Training procedure", "Evaluation",
    "Limits and risks", "Provenance",
]  # fmt: skip


def parts(card):
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body


@pytest.mark.parametrize("name", NAMES)
def test_the_recorded_run_has_a_card_whose_numbers_are_the_runs(name):
    run = load_run(f"{name}-full-cpu")
    front, body = parts(model_card(run))
    assert front["license"] == "mit"
    assert front["datasets"] == [run.data.name]
    assert "anomaly-detection" in front["tags"]
    (entry,) = front["model-index"]
    (result,) = entry["results"]
    model = {"waveforms": "ae", "casting_controls": "both"}[name]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        metric: pytest.approx(run.metric(f"{model}.{metric}").mean(), abs=1e-6) for metric in front["metrics"]
    }
    assert [line[3:] for line in body.splitlines() if line.startswith("## ")] == SECTIONS
    assert not re.search(r"\{|\}|synthetic stand-in", body)
    if name == "casting_controls":
        exec(re.findall(r"```python\n(.*?)```", body, re.DOTALL)[0], {})
    for fact in (run.commit, run.data.digest, f"`companion run {name} --scale full --seeds"):
        assert fact in body
    values, low = run.metric(f"{model}.roc_auc"), run.metric(f"{model}.roc_auc_low").mean()
    assert f"| {values.mean():.4f} ± {values.std(ddof=1):.4f} [{low:.4f}, " in body


def test_a_recorded_table_has_means_intervals_and_where_they_come_from():
    run = load_run("waveforms-full-cpu")
    told = recorded_table(run, ["model", "area"], {"net": ["ae.roc_auc"], "PCA": ["pca.size"]}, 3).data
    low = run.metric("ae.roc_auc_low").mean()
    assert f"| net | {run.metric('ae.roc_auc').mean():.3f} ± 0.001 [{low:.3f}, 0.997] |" in told
    assert "| PCA | 2.000 |" in told
    assert told.endswith(provenance(run).data)


def test_a_stand_in_is_told():
    run = load_run("waveforms-full-cpu")
    fake = run.model_copy(update={"data": run.data.model_copy(update={"synthetic": True})})
    front, body = parts(model_card(fake))
    assert "synthetic-data" in front["tags"]
    assert "synthetic stand-in" in body


def test_the_snippet_of_the_heartbeats_card_flags_unusual_beats(real):
    _, body = parts(model_card(load_run("waveforms-full-cpu")))
    (code,) = re.findall(r"```python\n(.*?)```", body, re.DOTALL)
    found = {}
    exec(code, found)
    labels = real(load_ecg5000).test_labels
    assert found["flags"][labels == 0].mean() < 0.02
    assert found["flags"][labels == 1].mean() > 0.8


def test_the_casting_cards_recipe_is_the_configs():
    run = load_run("casting_controls-full-cpu")
    _, body = parts(model_card(run))
    told = " ".join(body.split())
    for words in ("8 channels", "300 steps of 96 images with `adamw`", "rate of 0.005", "1 % of", "95 % of"):
        assert words in told
    changed = run.model_copy(update={"config": run.config | {"width": 12, "fpr": 0.02, "share": 0.5}})
    other = " ".join(model_card(changed).split())
    for words in ("12 channels", "at most 2 %", "used 50 % of the images"):
        assert words in other


@pytest.mark.xdist_group("casting")
def test_the_casting_cards_numbers_of_images_are_those_of_the_real_images(real):
    images = real(lambda: casting_detectors.load().images)
    text = " ".join((CARDS / "casting_controls.md").read_text("utf8").split())
    known = len(images.tuning.distinct())
    test = images.test.distinct()
    assert f"{len(images.train.distinct()):,} distinct normal images" in text
    assert f"{len(images.validation.distinct()):,} other normal images" in text
    assert f"{known - round(known / 2)} distinct known spills" in text
    assert f"the {round(known / 2)} other spills" in text
    assert f"{len(test):,} distinct ones, {int(test.labels.sum())} of them anomalous" in text


def test_the_command_prints_the_card_or_says_why_there_is_none():
    assert good("card", "waveforms-full-cpu") == model_card(load_run("waveforms-full-cpu"))
    told = bad("card", "degradation-full-cpu")
    assert "no card for runs of 'degradation'; there are cards for: casting_controls, w" in told
    assert "there is no run" in bad("card", "nothing")
