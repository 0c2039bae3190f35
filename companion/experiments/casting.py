"""Chapter 9: from an autoencoder that misses its target to a detector that reaches it, and an ablation."""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from companion.data.casting import load_casting
from companion.detection.metrics import bootstrap, confusion, pr_auc, roc_auc, roc_points
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.experiments import base
from companion.experiments import casting_detectors as fitted
from companion.experiments.base import REPLAY_STEPS, Context, Experiment, window_means, with_ends
from companion.experiments.casting_detectors import Casting, CastingConfig, Detector
from companion.objectives.synthetic_anomalies import NO_JITTER, AnomalyKind
from companion.runs import DataInfo, SeedResult

ROC_GRID = np.linspace(0, 0.2, 41)  # the false-positive rates at which the curve ``roc`` is given
FINAL = "final"  # chosen on the development fifth; ``casting_controls`` puts haze on its faults as well
# kinds of fault, and shares of images with an obstacle and of normal ones behind haze, by detector
DISCRIMINATORS: dict[str, tuple[tuple[AnomalyKind, ...], float, float]] = {
    "known": (("known",), 0.0, 0.0),
    "spills": (("known", "spill"), 0.0, 0.0),
    "empties": (("known", "spill", "empty"), 0.0, 0.0),
    FINAL: (("known", "spill", "empty"), 0.4, 0.15),
    "painted": (("spill", "empty"), 0.4, 0.15),
}
PARTS = ("validation", "disturbed", "held", "development", "test", "whole")  # that detectors are judged by
# faults that the classifier of an ablation learns from; in all else it is the recommended one
FEWER_KINDS: dict[str, tuple[AnomalyKind, ...]] = {
    "without-spills": ("known", "empty"), "only-empties": ("empty",),
}  # fmt: skip
Scores = dict[str, np.ndarray]  # by part of the data
Fitted = Iterator[tuple[str, Detector]]


def data_info() -> DataInfo:
    """What the casting images are here: the real ones, or their stand-in."""
    return base.data_info(load_casting(fitted.COLOR, color=True))


def score_parts(detector: Detector, data: Casting, parts: Sequence[str] = PARTS) -> Scores:
    """Scores of the parts that thresholds and metrics need, float64 (N,) each."""
    return {part: detector.score(getattr(data, part)) for part in parts}


def evaluate_detector(scores: Scores, data: Casting, config: CastingConfig) -> dict[str, float]:
    """Metrics of one detector; its thresholds come from validation normals and held-out known spills."""
    thresholds = {
        "tnr_target": tnr_target(scores["validation"], scores["held"], config.tnr),
        "disturbed": fixed_fpr(scores["disturbed"], config.fpr),
    }
    metrics = {f"{name}.threshold": value for name, value in thresholds.items()}
    metrics["development.roc_auc"] = roc_auc(data.labels["development"], scores["development"])
    for part, prefix in (("development", "development."), ("test", ""), ("whole", "whole.")):
        labels, own = data.labels[part], scores[part]
        for metric in (roc_auc, pr_auc) if part != "development" else ():
            estimate = bootstrap(metric, labels, own, repeats=config.repeats)
            metrics |= with_ends(f"{prefix}{metric.__name__}", estimate)
        for name, threshold in thresholds.items():
            counts = confusion(labels, own, threshold)
            metrics |= with_ends(f"{prefix}{name}.tpr", counts.tpr)
            metrics |= with_ends(f"{prefix}{name}.tnr", counts.tnr)
    return metrics


def detectors(config: CastingConfig, data: Casting, seed: int, context: Context) -> Fitted:
    """Fit the chapter's detectors one after the other; first the recommended one, which a replay checks."""

    def discriminator(name: str) -> Detector:
        objective = fitted.discrimination(data, *DISCRIMINATORS[name])
        return fitted.fit_discriminator(config, data, seed, context, objective, name)[1]

    final = discriminator(FINAL)
    yield FINAL, final
    yield "pca", fitted.fit_pca(config, data, seed)
    published = fitted.fit_published(config, data, seed, context)
    yield "published", Detector(fitted.error_scores(published, "mse", (1,), gray=True), published.history_)
    for kind in ("l1", "hybrid"):
        yield f"published-{kind}", Detector(fitted.error_scores(published, kind, (1,), gray=True))
    moved = fitted.fit_moved(config, data, seed, context, "moved")
    yield "moved", Detector(fitted.error_scores(moved, "l1", (1,)), moved.history_)
    coarse = Detector(fitted.error_scores(moved, "l1", (4, 8)))
    yield "coarse", coarse
    residual = fitted.fit_moved(config, data, seed, context, "residual")
    yield "residual", Detector(fitted.error_scores(residual, "l1", (4, 8)), residual.history_)
    yield "memory", fitted.fit_memory(config, data, seed, context)
    for name in (other for other in DISCRIMINATORS if other != FINAL):
        yield name, discriminator(name)
    yield "ensemble", fitted.ensemble(final, coarse, data.validation)


def ablations(config: CastingConfig, data: Casting, seed: int, context: Context) -> Fitted:
    """``moved`` without a moving camera, and the recommended classifier, taught by fewer kinds of fault."""
    still = fitted.fit_moved(config, data, seed, context, "still", camera=NO_JITTER)
    yield "still", Detector(fitted.error_scores(still, "l1", (1,)), still.history_)
    yield "still-coarse", Detector(fitted.error_scores(still, "l1", (4, 8)))
    for name, kinds in FEWER_KINDS.items():
        objective = fitted.discrimination(data, kinds)
        yield name, fitted.fit_discriminator(config, data, seed, context, objective, name)[1]


def _run(fit_all: Callable[..., Fitted], config: CastingConfig, seed: int, context: Context) -> SeedResult:
    """Fit one detector after the other, choose its thresholds without the test images, then test it.

    The curves ``missed`` and ``flagged`` of ``FINAL`` are the places, among the test images, of anomalies
    below and normals above its threshold ``disturbed``.
    """
    data, result = fitted.load(config.share), SeedResult(seed=seed)
    curves, clock = result.curves, time.perf_counter()
    for name, detector in fit_all(config, data, seed, context):
        result.seconds[name] = round(time.perf_counter() - clock, 1)
        scores = score_parts(detector, data)
        metrics = evaluate_detector(scores, data, config)
        result.metrics.update({f"{name}.{key}": value for key, value in metrics.items()})
        curves[f"{name}.roc"] = roc_points(data.labels["test"], scores["test"], ROC_GRID)
        if losses := detector.history.train.get("loss"):
            curves[f"{name}.first_loss"] = losses[:REPLAY_STEPS]
            curves[f"{name}.loss"] = window_means(losses, config.points)
        if name == FINAL:
            flagged = scores["test"] > metrics["disturbed.threshold"]
            anomalous = data.labels["test"] == 1
            curves[f"{FINAL}.missed"] = np.flatnonzero(anomalous & ~flagged).astype(float).tolist()
            curves[f"{FINAL}.flagged"] = np.flatnonzero(~anomalous & flagged).astype(float).tolist()
        clock = time.perf_counter()
    return result


_SHORT = CastingConfig().fit.model_copy(update={"num_steps": 4, "batch_size": 24, "warmup_steps": 1})
SCALES = {
    "smoke": CastingConfig(
        epochs=1, moved_epochs=1, latent=4, residual_widths=(4, 4), components=2, memory_images=20,
        memory_patches=100, width=2, fit=_SHORT, share=0.01, repeats=5, points=4,
    ),
    "live": CastingConfig(epochs=8, repeats=200),
    "full": CastingConfig(),
}  # fmt: skip

CASTING = Experiment(
    "casting", "What does it take to find casting faults at a true-positive and true-negative rate of 95 %?",
    SCALES, partial(_run, detectors), data_info,
)  # fmt: skip

CASTING_ABLATION = Experiment(
    "casting_ablation", "What are a moving camera and painted spills worth by themselves?",
    SCALES, partial(_run, ablations), data_info,
)  # fmt: skip
