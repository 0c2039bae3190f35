"""Chapter 9's experiment: from an autoencoder that misses its target to a detector that reaches it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from companion.data.casting import load_casting
from companion.detection.metrics import bootstrap, confusion, pr_auc, roc_auc, roc_points
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.experiments.base import REPLAY_STEPS, Context, Experiment, window_means
from companion.experiments.casting_systems import (
    COLOR,
    Casting,
    CastingConfig,
    Fitted,
    discrimination,
    error_scores,
    fit_autoencoder,
    fit_discriminator,
    fit_memory,
    fit_pca,
    load,
    moved_autoencoder,
    published_autoencoder,
    together,
)
from companion.objectives.reconstruction import FaultKind
from companion.runs import DataInfo, SeedResult
from companion.training import History

ROC_GRID = np.linspace(0, 0.2, 41)
"""The false-positive rates at which the curve ``roc`` is given."""
FINAL = "final"
"""The detector that the chapter recommends, chosen on the development fifth."""
DISCRIMINATORS: dict[str, tuple[tuple[FaultKind, ...], float, float]] = {
    "known": (("known",), 0.0, 0.0),
    "spills": (("known", "spill"), 0.0, 0.0),
    "empties": (("known", "spill", "empty"), 0.0, 0.0),
    FINAL: (("known", "spill", "empty"), 0.4, 0.15),
    "painted": (("spill", "empty"), 0.4, 0.15),
}
"""Kinds of fault, and shares of images with an obstacle and of normal ones behind haze, by detector."""
PARTS = ("validation", "disturbed", "held", "development", "test", "whole")
"""The parts of :class:`companion.experiments.casting_systems.Casting` that detectors are judged by."""
Scores = dict[str, np.ndarray]  # by part of the data


def data_info() -> DataInfo:
    """What the casting images are here: the real ones, or their stand-in."""
    images = load_casting(COLOR, color=True)
    return DataInfo(name=images.name, source=images.source, digest=images.digest, synthetic=images.synthetic)


def score_parts(fitted: Fitted, data: Casting, parts: Sequence[str] = PARTS) -> Scores:
    """Scores of the parts that thresholds and metrics need, float64 (N,) each."""
    return {part: fitted.score(getattr(data, part)) for part in parts}


def judge(scores: Scores, data: Casting, config: CastingConfig) -> dict[str, float]:
    """Metrics of one detector; its thresholds come from validation normals and held-out known spills.

    Returns:
        ``development.roc_auc``; for the test images ``roc_auc`` and ``pr_auc`` with the ends of their
        bootstrap intervals (``_low``, ``_high``), and the same for all test images (``whole.``). For the
        thresholds ``tnr_target`` (validation normals, held-out spills) and ``disturbed`` (``fixed_fpr`` of
        disturbed validation normals): ``.threshold``, and ``.tpr`` and ``.tnr`` on the development, test and
        all test images, the latter two with Wilson intervals.
    """
    thresholds = {
        "tnr_target": tnr_target(scores["validation"], scores["held"], config.tnr),
        "disturbed": fixed_fpr(scores["disturbed"], config.fpr),
    }
    metrics = {f"{name}.threshold": value for name, value in thresholds.items()}
    metrics["development.roc_auc"] = roc_auc(data.labels["development"], scores["development"])
    for part, prefix in (("test", ""), ("whole", "whole.")):
        for metric_name, metric in (("roc_auc", roc_auc), ("pr_auc", pr_auc)):
            estimate = bootstrap(metric, data.labels[part], scores[part], repeats=config.repeats)
            ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
            metrics |= {f"{prefix}{metric_name}{end}": value for end, value in ends.items()}
    for part, prefix in (("development", "development."), ("test", ""), ("whole", "whole.")):
        for name, threshold in thresholds.items():
            counts = confusion(data.labels[part], scores[part], threshold)
            for rate, estimate in (("tpr", counts.tpr), ("tnr", counts.tnr)):
                ends = {"": estimate.value, "_low": estimate.low, "_high": estimate.high}
                metrics |= {f"{prefix}{name}.{rate}{end}": value for end, value in ends.items()}
    return metrics


def detectors(
    config: CastingConfig, data: Casting, seed: int, context: Context
) -> Iterator[tuple[str, Fitted]]:
    """Fit one detector after the other, in the chapter's order.

    Yields:
        Its name, and what was fitted.
    """
    yield "pca", fit_pca(config, data, seed)
    published = published_autoencoder(config, seed)
    fit_autoencoder(published, "published", config.epochs, data, context, gray=True)
    yield "published", Fitted(error_scores(published, "mse", (1,), gray=True), published.history_)
    for kind in ("l1", "hybrid"):
        yield f"published-{kind}", Fitted(error_scores(published, kind, (1,), gray=True), History())
    moved = moved_autoencoder(config, seed)
    fit_autoencoder(moved, "moved", config.moved_epochs, data, context)
    yield "moved", Fitted(error_scores(moved, "l1", (1,)), moved.history_)
    coarse = Fitted(error_scores(moved, "l1", (4, 8)), History())
    yield "coarse", coarse
    residual = moved_autoencoder(config, seed, residual=True)
    fit_autoencoder(residual, "residual", config.moved_epochs, data, context)
    yield "residual", Fitted(error_scores(residual, "l1", (4, 8)), residual.history_)
    yield "memory", fit_memory(config, data, seed, context)
    for name, (kinds, obstacles, hazes) in DISCRIMINATORS.items():
        objective = discrimination(data, kinds, obstacles, hazes)
        _, fitted = fit_discriminator(config, data, seed, context, objective, name)
        yield name, fitted
        if name == FINAL:
            yield "ensemble", together(fitted, coarse, data.validation)


def measure(
    fitting: Iterable[tuple[str, Fitted]], data: Casting, config: CastingConfig, seed: int
) -> SeedResult:
    """Fit one detector after the other, choose its thresholds without the test images, then test it.

    Returns:
        For each detector the metrics of :func:`judge`, and the curves ``roc`` (TPR on the test images at
        :data:`ROC_GRID`) and, where a net was trained, ``loss`` and ``first_loss``. For :data:`FINAL` also
        ``missed`` and ``flagged``: the places, among the test images, of anomalies below and normals above
        its threshold ``disturbed``.
    """
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    clock = time.perf_counter()
    for name, fitted in fitting:
        seconds[name] = round(time.perf_counter() - clock, 1)
        scores = score_parts(fitted, data)
        metrics |= {f"{name}.{key}": value for key, value in judge(scores, data, config).items()}
        curves[f"{name}.roc"] = roc_points(data.labels["test"], scores["test"], ROC_GRID)
        if fitted.history.train:
            losses = fitted.history.train["loss"]
            curves[f"{name}.first_loss"] = losses[:REPLAY_STEPS]
            curves[f"{name}.loss"] = window_means(losses, config.points)
        if name == FINAL:
            flagged = scores["test"] > metrics[f"{FINAL}.disturbed.threshold"]
            anomalous = data.labels["test"] == 1
            curves[f"{FINAL}.missed"] = np.flatnonzero(anomalous & ~flagged).astype(float).tolist()
            curves[f"{FINAL}.flagged"] = np.flatnonzero(~anomalous & flagged).astype(float).tolist()
        clock = time.perf_counter()
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


def run(config: CastingConfig, seed: int, context: Context) -> SeedResult:
    """What :func:`measure` returns for the detectors of the chapter, in its order."""
    data = load(config.share)
    return measure(detectors(config, data, seed, context), data, config, seed)


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
    SCALES, run, data_info,
)  # fmt: skip
