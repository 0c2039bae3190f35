"""Chapter 9: from an autoencoder that misses its target to a detector that reaches it, and an ablation.

``casting_size`` asks whether a large autoencoder earns its size, at equal compute and in equal time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from companion.compute import Compute, seed_everything
from companion.data.casting import load_casting
from companion.detection.anomaly_maps import error_map, image_scores, multiscale_map
from companion.detection.metrics import bootstrap, confusion, pr_auc, roc_auc, roc_points
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.experiments import base
from companion.experiments import casting_detectors as fitted
from companion.experiments.base import REPLAY_STEPS, Config, Context, Experiment, window_means, with_ends
from companion.experiments.casting_detectors import GRAY, Casting, CastingConfig, Detector
from companion.models.autoencoders import ConvAutoencoder, ResidualAutoencoder
from companion.models.cost import multiply_adds
from companion.models.resnet import count_parameters
from companion.objectives.reconstruction import ImageReconstruction
from companion.objectives.synthetic_anomalies import NO_JITTER, AnomalyKind
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, fit

ROC_GRID = np.linspace(0, 0.2, 41)  # the false-positive rates at which the curve ``roc`` is given
FINAL = "final"  # the detector that the chapter recommends, chosen on the development fifth
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
FitAll = Callable[[CastingConfig, Casting, int, Context], Iterator[tuple[str, Detector]]]


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


def detectors(
    config: CastingConfig, data: Casting, seed: int, context: Context
) -> Iterator[tuple[str, Detector]]:
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


def ablations(
    config: CastingConfig, data: Casting, seed: int, context: Context
) -> Iterator[tuple[str, Detector]]:
    """Fit detectors each of which differs from one of :func:`detectors` in one thing.

    ``still`` is ``moved`` without a moving camera, and ``still-coarse`` its scores at coarse scales; the
    others are the recommended classifier, taught by fewer kinds of fault.
    """
    still = fitted.fit_moved(config, data, seed, context, "still", camera=NO_JITTER)
    yield "still", Detector(fitted.error_scores(still, "l1", (1,)), still.history_)
    yield "still-coarse", Detector(fitted.error_scores(still, "l1", (4, 8)))
    for name, kinds in FEWER_KINDS.items():
        objective = fitted.discrimination(data, kinds)
        yield name, fitted.fit_discriminator(config, data, seed, context, objective, name)[1]


def _run(fit_all: FitAll, config: CastingConfig, seed: int, context: Context) -> SeedResult:
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


# ---------------------------------------------------------------- what size is worth

FULL_SIZE = (256, 256)  # height and width that the large net was designed for
Net = Literal["large", "small", "conv"]


class CastingSizeConfig(Config):
    """What is trained, and how long."""

    large: tuple[int, ...] = (64, 128, 256, 512)  #: channels of the large residual net's stages
    small: tuple[int, ...] = (16, 32, 64, 128)  #: of the small one's
    conv: tuple[int, ...] = (32, 64, 128)  #: of the published autoencoder without shortcuts
    latent_channels: int = 16  #: channels of either residual net's code
    num_steps: int = 120  #: of the large net; the others get its multiply-adds, or its seconds
    batch_size: int = 16  #: of all
    #: learning rate of each net after warming up; it falls to 0 as a cosine
    lr: dict[Net, float] = Field(default={"large": 5e-4, "small": 2e-3, "conv": 1e-3})
    validation_images: int = 500  #: normal images on which reconstruction is measured
    share: float = 1.0  #: of the images that are used
    points: int = 40  #: how many points a training curve is averaged down to


def build(config: CastingSizeConfig, net: Net, seed: int) -> ResidualAutoencoder | ConvAutoencoder:
    """A net with its initial weights, for 64x64 images: the crops are about 48 pixels wide."""
    seed_everything(seed)
    if net == "conv":
        return ConvAutoencoder(1, GRAY, widths=config.conv)
    widths = config.large if net == "large" else config.small
    return ResidualAutoencoder(1, GRAY, widths, config.latent_channels)


def objective(net: Net) -> ImageReconstruction:
    """Absolute error under a moving camera; black is -1 or 0, as the net's last layer wants it."""
    return ImageReconstruction("l1", -1.0 if net == "conv" else 0.0, fitted.CAMERA)


def clock(compute: Compute) -> float:
    """Seconds of this process's processors, which other work does not lengthen; of the wall on a GPU."""
    if compute.device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(compute.device)
    return time.perf_counter()


def _settings(config: CastingSizeConfig, net: Net, num_steps: int) -> FitConfig:
    return FitConfig(
        num_steps=num_steps, batch_size=config.batch_size, lr=config.lr[net], optimizer="adam",
        weight_decay=1e-5, schedule="cosine", warmup_steps=num_steps // 10,
    )  # fmt: skip


def seconds_per_step(config: CastingSizeConfig, net: Net, seed: int, context: Context) -> float:
    """Of :func:`clock`, from a short and a longer start of the same training."""
    rows, spent = (fitted.load(config.share).train.gray,), []
    for steps in (4, 24):
        model, settings = build(config, net, seed), _settings(config, net, 1000)
        start = clock(context.compute)
        fit(model, rows, objective(net), settings, compute=context.compute, seed=seed, stop_after=steps)
        spent.append(clock(context.compute) - start)
    return max(1e-6, (spent[1] - spent[0]) / 20)


def evaluate_net(model: nn.Module, net: Net, data: Casting, config: CastingSizeConfig) -> dict[str, float]:
    """The mean absolute error of validation normals in [0, 1], and its ROC-AUC on the development images."""
    normal = data.validation.gray[: config.validation_images]
    given, made, _ = objective(net).reconstruct(model, normal, 100)
    metrics = {"validation_l1": float(error_map(given, made, "l1").mean())}
    given, made, _ = objective(net).reconstruct(model, data.development.gray, 100)
    labels = data.labels["development"]
    metrics["roc_auc"] = roc_auc(labels, image_scores(error_map(given, made, "l1")))
    coarse = multiscale_map(given, made, "l1", scales=(4, 8))
    return metrics | {"coarse_roc_auc": roc_auc(labels, image_scores(coarse))}


def run_size(config: CastingSizeConfig, seed: int, context: Context) -> SeedResult:
    """Train the large net, then the small ones for as many multiply-adds, and for as many seconds.

    Nothing is kept for a resumed run but finished seeds: what was timed must be one piece. ``multiply_adds``
    are those of all forward passes, ``image_multiply_adds`` of one image.
    """
    data, result = fitted.load(config.share), SeedResult(seed=seed)
    metrics = result.metrics
    nets: tuple[Net, ...] = ("large", "small", "conv")
    cost = {net: multiply_adds(build(config, net, seed), (1, 1, *GRAY)) for net in nets}
    for net in nets:
        metrics[f"{net}.parameters"] = float(count_parameters(build(config, net, seed)))
        metrics[f"{net}.image_multiply_adds"] = float(cost[net])
    full_size = multiply_adds(build(config, "large", seed), (1, 1, *FULL_SIZE))
    metrics["large.full_size_multiply_adds"] = float(full_size)

    def measure(name: str, net: Net, num_steps: int) -> float:
        model, settings = build(config, net, seed), _settings(config, net, num_steps)
        start, whole = clock(context.compute), replace(context, checkpoints=None)  # timed in one piece
        rows = (data.train.gray,)
        history = whole.fit(name, model, rows, objective(net), settings, seed, result=result)
        spent = clock(context.compute) - start
        images = num_steps * config.batch_size
        facts = {"steps": num_steps, "images": images, "multiply_adds": images * cost[net], "seconds": spent}
        facts |= evaluate_net(model, net, data, config)
        metrics.update({f"{name}.{key}": float(value) for key, value in facts.items()})
        result.curves[f"{name}.loss"] = window_means(history.train["loss"], config.points)
        return spent

    spent = measure("large", "large", config.num_steps)
    measure("small-compute", "small", max(1, round(config.num_steps * cost["large"] / cost["small"])))
    for net in ("small", "conv"):
        steps = max(1, round(spent / seconds_per_step(config, net, seed, context)))
        measure(f"{net}-time", net, steps)
    return result


CASTING_SIZE = Experiment(
    "casting_size", "Does an autoencoder of 23.8 million parameters earn its size on casting images?", {
    "smoke": CastingSizeConfig(
        large=(32, 32), small=(16, 16), conv=(4, 4), num_steps=2, batch_size=4, validation_images=20,
        share=0.01, points=2,
    ),
    "live": CastingSizeConfig(num_steps=10),
    "full": CastingSizeConfig(),
}, run_size, data_info)  # fmt: skip
