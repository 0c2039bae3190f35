"""What chapter 10's experiment promises beyond running, see also test_runs.py."""

import numpy as np
import pytest

from companion.data.ecg import Beats, load_ecg5000, synthetic_beats
from companion.detection.metrics import roc_auc
from companion.experiments import get_experiment, waveforms
from companion.runs import load_run
from tests.small_data import CONTEXT


@pytest.fixture
def beats(monkeypatch):
    """Few generated beats in the place of ECG5000."""
    train, validation, test = (synthetic_beats(count, seed) for seed, count in enumerate((120, 200, 150)))
    made = Beats(
        train=train[train[:, 0] == 1, 1:], validation=validation[:, 1:], test=test[:, 1:],
        validation_classes=validation[:, 0].astype(int), test_classes=test[:, 0].astype(int),
        name="few", source="generated", digest="", synthetic=True,
    )  # fmt: skip
    monkeypatch.setattr(waveforms, "_beats", lambda validation_normals: made)
    return made


@pytest.fixture
def config():
    smoke = get_experiment("waveforms").config("smoke")
    return smoke.model_copy(update={"components": (1, 2, 8), "neighbours": (1, 5), "fprs": (0.05,)})


def test_validation_chooses_and_the_test_set_is_scored_once(beats, config, monkeypatch):
    scored = []
    counted = waveforms.ResNetAE.decision_function

    def score(model, windows):
        scored.append(windows is beats.test)
        return counted(model, windows)

    monkeypatch.setattr(waveforms.ResNetAE, "decision_function", score)
    result = waveforms.run(config, 0, CONTEXT)
    assert sum(scored) == 3 * 2 + 3  # one detector of each family, of which three have two members
    assert len(scored) - sum(scored) == 3 * 2 * 2 + 1 + 3 + 2 + 1  # the last for the threshold that is kept
    for family, sizes in {
        "ae": (2, 8),
        "plain": (2, 8),
        "pca": (1, 2, 8),
        "knn": (1, 5),
        "mean": (0,),
    }.items():
        aucs = {size: result.metrics[f"{family}-{size}.validation_roc_auc"] for size in sizes}
        chosen = result.metrics[f"{family}.size"]
        assert aucs[chosen] == max(aucs.values()) == result.metrics[f"{family}.validation_roc_auc"]
        assert result.metrics[f"{family}.roc_auc_low"] <= result.metrics[f"{family}.roc_auc_high"]
        assert result.metrics[f"{family}.tnr_target.tnr"] > 0.8
        assert len(result.curves[f"{family}.roc"]) == len(waveforms.ROC_GRID)
        assert (np.diff(result.curves[f"{family}.roc"]) >= 0).all()


def test_the_recorded_net_is_there_with_its_threshold():
    net = waveforms.recorded_detector()
    assert net.limit()[1] == 0.01
    beats = load_ecg5000(validation_normals=1000)
    if beats.digest != load_run("waveforms-full-cpu").data.digest:
        pytest.skip("the data of the recorded run are out of reach here")
    labels = beats.validation_labels
    flagged = net.predict(beats.validation)
    assert 0.008 <= flagged[labels == 0].mean() <= 0.011
    recorded = load_run("waveforms-full-cpu").metric("ae-2.member_roc_auc")[0]
    assert roc_auc(labels, net.decision_function(beats.validation)) == pytest.approx(recorded, abs=0.002)
