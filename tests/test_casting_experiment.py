"""What chapter 9's experiments promise beyond running, see also test_runs.py; on few generated moulds."""

import numpy as np
import pytest
import torch

from companion.experiments import casting, casting_controls, casting_detectors, get_experiment
from companion.experiments.casting_detectors import COLOR, GRAY, Views
from tests.few_moulds import few_moulds, gray
from tests.small_data import CONTEXT

PARTS = ("train", "validation", "known", "held", "development", "test")


@pytest.fixture(scope="module")
def data():
    """Few generated moulds in the place of the casting images."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(casting_detectors, "load_casting", few_moulds)
        patch.setattr(casting, "load_casting", few_moulds)
        casting_detectors.load.cache_clear()
        config = get_experiment("casting").config("smoke")
        yield casting_detectors.load(config.share)
    casting_detectors.load.cache_clear()


@pytest.fixture(scope="module")
def config():
    smoke = get_experiment("casting").config("smoke")
    return smoke.model_copy(update={"fpr": 0.1})  # so few normals promise no less


@pytest.fixture
def scores(data):
    """Scores as a fair detector might give them."""
    rng = np.random.default_rng(0)
    disturbed = {"disturbed": rng.normal(0.5, size=len(data.disturbed))}
    return disturbed | {part: rng.normal(2 * labels) for part, labels in data.labels.items()}


def pixels(views: Views) -> list[bytes]:
    return [image.numpy().tobytes() for image in views.color]


def test_copies_stand_in_no_two_parts_and_both_views_show_the_same_images(data):
    distinct = [image for part in PARTS for image in pixels(getattr(data, part))]
    assert len(distinct) == len(set(distinct)) == 90 + 24 + 86
    sums = {part: int(labels.sum()) for part, labels in data.labels.items()}
    assert sums["train"] == sums["validation"] == 0
    assert sums["known"] == len(data.known) == sums["held"] == len(data.held) == 12
    for part in PARTS:
        views = getattr(data, part)
        assert len(views) == len(data.labels[part])
        assert views.color.shape[1:] == (3, *COLOR)
        assert torch.equal(views.gray, gray(views.color, GRAY))


def test_disturbed_images_keep_their_form_and_are_always_the_same(data):
    for view in ("gray", "color"):
        before, after = getattr(data.validation, view), getattr(data.disturbed, view)
        assert (after.shape, after.dtype) == (before.shape, torch.uint8)
        assert not torch.equal(after, before)
        torch.manual_seed(12)
        assert torch.equal(casting_detectors._disturbed(before), after)


def test_thresholds_keep_their_promise_and_no_test_image_chooses_them(data, config, scores):
    first = casting.judge(scores, data, config)
    assert np.mean(scores["disturbed"] > first["disturbed.threshold"]) <= config.fpr
    assert np.mean(scores["validation"] <= first["tnr_target.threshold"]) >= config.tnr
    rng = np.random.default_rng(1)
    judged = casting.judge(scores | {"test": rng.permutation(scores["test"])}, data, config)
    assert judged["roc_auc"] != first["roc_auc"]
    for name in ("tnr_target", "disturbed", "normal99"):
        assert judged[f"{name}.threshold"] == first[f"{name}.threshold"]


def test_the_kinds_are_those_of_the_generated_moulds_and_no_mould_teaches_and_is_held_out(data):
    found = casting.kinds(data, "test")
    assert (found["spill"] | found["empty"]).tolist() == (data.labels["test"] == 1).tolist()
    rough = casting.roughness(data.test)
    assert rough[found["spill"]].min() > rough[found["empty"]].max()
    own, spills = casting_controls.split_by_mould(data), data.images.tuning.distinct()
    odd = [int(name.rpartition("/")[2]) % 2 for name in spills.names]
    assert (len(own.held), len(own.known)) == (sum(odd), len(odd) - sum(odd))
    assert set(pixels(own.held)) == {
        image.numpy().tobytes() for image, mine in zip(spills.images, odd, strict=True) if mine
    }


def test_stress_hides_what_is_there_and_leaves_clear_images_alone(data):
    same, hazy, hidden = (
        casting_controls.stressed(data.test, *how).color for how in ((0, False), (0.7, False), (0, True))
    )
    assert torch.equal(same, data.test.color)
    assert (hazy.float().std(dim=(2, 3)) < 0.5 * same.float().std(dim=(2, 3))).all()
    assert 0 < (hidden != same).float().mean() < 1
    assert casting_controls.nearest(same[:3], same[:3]) == [0, 0, 0]


def test_controls_judge_every_detector_per_kind_and_the_rule_needs_no_seed(data, config):
    first = get_experiment("casting_controls").run(config, 1, CONTEXT)
    metrics, labels = first.metrics, data.labels["test"]
    for name in (*casting_controls.CLASSIFIERS, "untrained", "rule", "pca"):
        counts = {kind: metrics[f"images.{kind}"] for kind in ("spill", "empty")}
        whole = sum(metrics[f"{name}.disturbed.{kind}"] * count for kind, count in counts.items())
        assert metrics[f"{name}.disturbed.tpr"] == pytest.approx(whole / sum(counts.values()))
    rule = casting.score_parts(casting_controls.rule(data), data)
    own = {f"rule.{key}": value for key, value in casting.judge(rule, data, config).items()}
    assert own.items() <= metrics.items()
    assert metrics["both.haze30.spill"] <= 1
    assert len(first.curves["near.empty"]) == metrics["images.empty"]
    for what, label, rate in (("missed", 1, "tpr"), ("flagged", 0, "tnr")):
        places = np.array(first.curves[f"both.{what}"], dtype=int)
        assert (labels[places] == label).all()
        right = 1 - len(places) / np.sum(labels == label)
        assert metrics[f"both.disturbed.{rate}"] == pytest.approx(right)
