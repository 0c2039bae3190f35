"""Chapter 9: from an autoencoder that misses its target to a detector that reaches it, and an ablation.

Detectors are judged per kind of fault. No file says which anomalies are spills and which empty moulds;
:func:`kinds` does. Looked at one by one, all 97 of the test part are what it says.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from companion.data.casting import load_casting
from companion.detection.metrics import bootstrap, pr_auc, roc_auc, wilson, with_ends
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.estimators import PatchMemory
from companion.experiments import base
from companion.experiments import casting_detectors as fitted
from companion.experiments.base import REPLAY_STEPS, Context, from_table, window_means
from companion.experiments.casting_detectors import Casting, CastingConfig, Detector, Views
from companion.objectives.synthetic_anomalies import as_floats
from companion.runs import DataInfo, SeedResult

FINAL = "final"  # chosen on the development fifth; ``casting_controls`` puts haze on its faults as well
# kinds of fault, and shares of images with an obstacle and of normal ones behind haze, by detector
DISCRIMINATORS: dict[str, tuple[tuple[str, ...], float, float]] = {
    "known": (("known",), 0.0, 0.0),
    "spills": (("known", "spill"), 0.0, 0.0),
    "empties": (("known", "spill", "empty"), 0.0, 0.0),
    FINAL: (("known", "spill", "empty"), 0.4, 0.15),
    "painted": (("spill", "empty"), 0.4, 0.15),
}
PARTS = ("validation", "disturbed", "held", "test")  # that detectors are judged by
ROUGH = 0.5  # an anomaly is a spill if the logarithm of its roughness is this far above the normal median
Scores = dict[str, np.ndarray]  # by part of the data
Fitted = Iterator[tuple[str, Detector]]


def data_info() -> DataInfo:
    """What the casting images are here: the real ones, or their stand-in."""
    return base.data_info(load_casting(fitted.COLOR, color=True))


def roughness(views: Views) -> np.ndarray:
    """The logarithm of the mean absolute gradient in the middle half of grey crops, float64 (N,)."""
    height, width = views.color.shape[2:]
    grey = as_floats(views.color).mean(dim=1)
    middle = grey[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    steps = [middle.diff(dim=axis).abs().mean(dim=(1, 2)) for axis in (1, 2)]
    return np.log((steps[0] + steps[1]).double().numpy() / 2 + 1e-6)


def kinds(data: Casting, part: str) -> dict[str, np.ndarray]:
    """Which images of a part are spills, rougher than a normal mould, and which empty moulds: masks (N,)."""
    anomalous = data.labels[part] == 1
    rough = roughness(getattr(data, part)) - np.median(roughness(data.validation)) > ROUGH
    return {"spill": anomalous & rough, "empty": anomalous & ~rough}


def score_parts(detector: Detector, data: Casting, parts: Sequence[str] = PARTS) -> Scores:
    """Scores of the parts that thresholds and metrics need, float64 (N,) each."""
    return {part: detector.score(getattr(data, part)) for part in parts}


def judge(scores: Scores, data: Casting, config: CastingConfig) -> dict[str, float]:
    """Metrics of one detector on the test part, per kind at three thresholds that no test image chose."""
    thresholds = {"disturbed": fixed_fpr(scores["disturbed"], config.fpr)}
    thresholds["tnr_target"] = tnr_target(scores["validation"], scores["held"], config.tnr)
    thresholds["normal99"] = fixed_fpr(scores["validation"], config.fpr)
    metrics = {f"{name}.threshold": threshold for name, threshold in thresholds.items()}
    for area in (roc_auc, pr_auc):
        estimate = bootstrap(area, data.labels["test"], scores["test"], repeats=config.repeats)
        metrics |= with_ends(area.__name__, estimate)
    for name, threshold in thresholds.items():
        found = rates(scores["test"], threshold, data)
        metrics |= {f"{name}.{key}": value for key, value in found.items()}
    return metrics


def rates(scores: np.ndarray, threshold: float, data: Casting) -> dict[str, float]:
    """Shares of the test part with Wilson intervals: anomalies and each kind found, normals left alone."""
    labels, found = data.labels["test"], dict[str, float]()
    for name, rows in {"tpr": labels == 1, **kinds(data, "test"), "tnr": labels == 0}.items():
        right = (scores[rows] > threshold) == (name != "tnr")
        if len(right):
            found |= with_ends(name, wilson(int(right.sum()), len(right)))
    return found


def measure(
    result: SeedResult, name: str, detector: Detector, data: Casting, config: CastingConfig
) -> Scores:
    """Score and judge a detector; its metrics, losses and seconds go into the result."""
    scores = score_parts(detector, data)
    result.metrics.update({f"{name}.{key}": value for key, value in judge(scores, data, config).items()})
    losses = detector.history.train.get("loss", [])
    if losses and losses[:REPLAY_STEPS] not in result.curves.values():  # else another score of the same net
        result.curves[f"{name}.first_loss"] = losses[:REPLAY_STEPS]
        result.curves[f"{name}.loss"] = window_means(losses, config.points)
        result.seconds[name] = round(detector.history.seconds, 2)
    return scores


def detectors(config: CastingConfig, data: Casting, seed: int, context: Context) -> Fitted:
    """Fit the chapter's detectors one after the other; first a classifier, which a replay checks."""
    for name in (FINAL, *(other for other in DISCRIMINATORS if other != FINAL)):
        yield name, fitted.fit_classifier(config, data, seed, context, name, *DISCRIMINATORS[name])[1]
    yield "pca", fitted.fit_pca(config, data, seed)
    published = fitted.fit_autoencoder(config, data, seed, context, "published")
    yield "published", fitted.error_scores(published, "mse", (1,), "gray")
    for kind in ("l1", "hybrid"):
        yield f"published-{kind}", fitted.error_scores(published, kind, (1,), "gray")
    moved = fitted.fit_autoencoder(config, data, seed, context, "moved")
    yield "moved", fitted.error_scores(moved, "l1", (1,))
    yield "coarse", fitted.error_scores(moved, "l1", (4, 8))
    residual = fitted.fit_autoencoder(config, data, seed, context, "residual")
    yield "residual", fitted.error_scores(residual, "l1", (4, 8))
    memory = PatchMemory(config.memory_images, config.memory_patches, seed).fit(data.train.color)
    yield "memory", Detector(lambda views: memory.decision_function(views.color))


def ablations(config: CastingConfig, data: Casting, seed: int, context: Context) -> Fitted:
    """``moved`` without a moving camera, and the classifier without painted spills."""
    still = fitted.fit_autoencoder(config, data, seed, context, "still")
    yield "still", fitted.error_scores(still, "l1", (1,))
    yield "still-coarse", fitted.error_scores(still, "l1", (4, 8))
    name = "without-spills"
    yield name, fitted.fit_classifier(config, data, seed, context, name, ("known", "empty"))[1]


def _run(fit_all: Callable[..., Fitted], config: CastingConfig, seed: int, context: Context) -> SeedResult:
    """Fit one detector after the other, choose its thresholds without the test images, then test it."""
    data, result = fitted.load(config.share), SeedResult(seed=seed)
    for name, detector in fit_all(config, data, seed, context):
        measure(result, name, detector, data, config)
    return result


CASTING = from_table("casting", CastingConfig, partial(_run, detectors), data_info)
CASTING_ABLATION = from_table("casting_ablation", CastingConfig, partial(_run, ablations), data_info)
