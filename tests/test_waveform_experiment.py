"""What chapter 10's experiment promises beyond running, see also test_runs.py."""

import numpy as np
import pytest
import torch

from companion.compute import Compute
from companion.data.ecg import Beats, synthetic_beats
from companion.experiments import get_experiment, waveforms
from companion.experiments.base import Context

CONTEXT = Context(Compute(torch.device("cpu"), None), progress=False)


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
    for where, name in ((waveforms, "_score"), (waveforms.ResNetAE, "decision_function")):
        counted = getattr(where, name)

        def score(model, windows, real=counted):
            scored.append(windows is beats.test)
            return real(model, windows)

        monkeypatch.setattr(where, name, score)
    result = waveforms.run(config, 0, CONTEXT)
    assert sum(scored) == 2 + 3  # one detector of each family, of which one has two members
    assert len(scored) - sum(scored) == 2 * 2 + 1 + 3 + 2
    for family, sizes in {"ae": (2, 8), "pca": (1, 2, 8), "knn": (1, 5), "mean": (0,)}.items():
        aucs = {size: result.metrics[f"{family}-{size}.validation_roc_auc"] for size in sizes}
        chosen = result.metrics[f"{family}.size"]
        assert aucs[chosen] == max(aucs.values()) == result.metrics[f"{family}.validation_roc_auc"]
        assert result.metrics[f"{family}.roc_auc_low"] <= result.metrics[f"{family}.roc_auc_high"]
        assert result.metrics[f"{family}.tnr_target.tnr"] > 0.8
        assert len(result.curves[f"{family}.roc"]) == len(waveforms.ROC_GRID)
        assert (np.diff(result.curves[f"{family}.roc"]) >= 0).all()
