"""Chapter 10's experiment: a residual autoencoder for heartbeats against simple detectors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal

import numpy as np

from companion.compute import Compute
from companion.data.ecg import Beats, load_ecg5000
from companion.detection.metrics import bootstrap, confusion, pr_auc, roc_auc, roc_points
from companion.detection.simple import MeanDistance, NeighbourDistance, PcaReconstruction, WindowDetector
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.experiments.base import Config, Context, Experiment, window_means
from companion.models.resnet import count_parameters
from companion.runs import DataInfo, SeedResult
from companion.waveforms import ResNetAE

REPLAY_STEPS = 3
ROC_GRID = np.linspace(0, 0.1, 51)
"""The false-positive rates at which the curve ``roc`` is given."""


class WaveformsConfig(Config):
    """What is fitted and how it is judged.

    Attributes:
        bottlenecks: latent widths; the validation set chooses among them.
        epochs: passes over the 292 training beats.
        width: of the net.
        loss: of the net, in training.
        score_norm: of the net's score.
        jitter: noise on the net's input.
        components: numbers of principal components; the validation set chooses.
        neighbours: numbers of neighbours; the validation set chooses.
        validation_normals: see :func:`companion.data.ecg.load_ecg5000`.
        fprs: false-positive rates that thresholds are set for on the validation normals.
        repeats: samples of the bootstrap.
        points: how many points a training curve is averaged down to.
    """

    bottlenecks: tuple[int, ...] = (1, 2, 4, 8, 32, 128)
    epochs: int = 40
    width: int = 8
    loss: Literal["l1", "l2"] = "l1"
    score_norm: Literal["l1", "l2"] = "l2"
    jitter: float = 0.1
    components: tuple[int, ...] = (1, 2, 3, 4, 8, 16, 32)
    neighbours: tuple[int, ...] = (1, 3, 5, 10)
    validation_normals: int = 1000
    fprs: tuple[float, ...] = (0.01, 0.001)
    repeats: int = 1000
    points: int = 50


@cache
def _beats(validation_normals: int) -> Beats:
    return load_ecg5000(validation_normals=validation_normals)


def data_info() -> DataInfo:
    """What ECG5000 is here: the real one, or its stand-in."""
    beats = _beats(WaveformsConfig().validation_normals)
    return DataInfo(name=beats.name, source=beats.source, digest=beats.digest, synthetic=beats.synthetic)


def build(config: WaveformsConfig, bottleneck: int, seed: int) -> ResNetAE:
    """The autoencoder with one latent width; no early stopping, the learning rate ends at 0."""
    return ResNetAE(
        bottleneck=bottleneck, width=config.width, loss=config.loss, score_norm=config.score_norm,
        schedule="cosine", patience=None, jitter=config.jitter, amplitude=0.0, seed=seed,
    )  # fmt: skip


def _rivals(config: WaveformsConfig) -> Iterable[tuple[str, int, Callable[[], WindowDetector]]]:
    """Family, size and maker of each simple detector."""
    yield "mean", 0, MeanDistance
    for size in config.components:
        yield "pca", size, lambda size=size: PcaReconstruction(size)  # type: ignore[misc]
    for size in config.neighbours:
        yield "knn", size, lambda size=size: NeighbourDistance(size)  # type: ignore[misc]


def judge(scores: dict[str, np.ndarray], beats: Beats, config: WaveformsConfig) -> dict[str, float]:
    """Metrics of one detector from its scores of ``"validation"`` and ``"test"``.

    The thresholds come from validation alone.

    Returns:
        ``validation_roc_auc``; on the test set ``roc_auc`` and ``pr_auc`` with the ends of their intervals
        (``_low``, ``_high``); and for each threshold (``fpr_0.01``, ... and ``tnr_target``) ``.threshold``,
        ``.tpr`` and ``.tnr`` on the test set.
    """
    metrics = {"validation_roc_auc": roc_auc(beats.validation_labels, scores["validation"])}
    labels = beats.test_labels
    for name, metric in (("roc_auc", roc_auc), ("pr_auc", pr_auc)):
        estimate = bootstrap(metric, labels, scores["test"], repeats=config.repeats)
        metrics |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
    normal = scores["validation"][beats.validation_labels == 0]
    anomalous = scores["validation"][beats.validation_labels == 1]
    thresholds = {f"fpr_{fpr:g}": fixed_fpr(normal, fpr) for fpr in config.fprs}
    thresholds["tnr_target"] = tnr_target(normal, anomalous)
    for name, threshold in thresholds.items():
        counts = confusion(labels, scores["test"], threshold)
        metrics |= {f"{name}.threshold": threshold, f"{name}.tpr": counts.tpr.value}
        metrics |= {f"{name}.tnr": counts.tnr.value}
    return metrics


def run(config: WaveformsConfig, seed: int, context: Context) -> SeedResult:
    """Fit every detector on the training beats, choose a size for each family on validation, then test.

    Returns:
        For each family (``ae``, ``mean``, ``pca``, ``knn``) the metrics of :func:`judge` for the size that
        validation chose, that ``size`` itself, and the curve ``roc`` (test TPR at :data:`ROC_GRID`).
        For each size ``"<family>-<size>.validation_roc_auc"``, for each autoencoder also the curve
        ``loss`` and, on the mean of the validation beats, ``normal_score`` and ``anomaly_score``.
        The test set is scored by the chosen detectors only.
    """
    beats = _beats(config.validation_normals)
    labels = beats.validation_labels
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    families: dict[str, list[tuple[float, int, WindowDetector, np.ndarray]]] = {}
    for bottleneck in config.bottlenecks:
        what = f"ae-{bottleneck}"
        model = build(config, bottleneck, seed).fit(
            beats.train,
            epochs=config.epochs,
            validation=0.0,
            compute=Compute(context.compute.device, None),
            checkpoint=context.checkpoint(what),
            progress=what if context.progress else None,
        )
        scores = model.score(beats.validation)
        families.setdefault("ae", []).append((roc_auc(labels, scores), bottleneck, model, scores))
        losses = model.history_.train["loss"]
        curves[f"{what}.loss"] = window_means(losses, config.points)
        curves[f"{what}.first_loss"] = losses[:REPLAY_STEPS]
        metrics[f"{what}.normal_score"] = float(scores[labels == 0].mean())
        metrics[f"{what}.anomaly_score"] = float(scores[labels == 1].mean())
        metrics[f"{what}.parameters"] = float(count_parameters(model.net_))
        seconds[what] = round(model.history_.seconds, 2)
    for family, size, make in _rivals(config):
        clock = time.perf_counter()
        detector = make().fit(beats.train)
        scores = detector.score(beats.validation)
        families.setdefault(family, []).append((roc_auc(labels, scores), size, detector, scores))
        seconds[f"{family}-{size}"] = round(time.perf_counter() - clock, 4)
    for family, tried in families.items():
        metrics |= {f"{family}-{size}.validation_roc_auc": auc for auc, size, _, _ in tried}
        _, size, detector, scores = max(tried, key=lambda entry: entry[0])  # the first, if several are best
        test = detector.score(beats.test)
        metrics[f"{family}.size"] = float(size)
        judged = judge({"validation": scores, "test": test}, beats, config)
        metrics |= {f"{family}.{name}": value for name, value in judged.items()}
        curves[f"{family}.roc"] = roc_points(beats.test_labels, test, ROC_GRID)
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


def replay(config: WaveformsConfig, seed: int, context: Context) -> dict[str, list[float]]:
    """The training losses of the first steps of the first autoencoder."""
    beats = _beats(config.validation_normals)
    first = config.bottlenecks[0]
    model = build(config, first, seed).fit(
        beats.train,
        epochs=config.epochs,
        validation=0.0,
        compute=Compute(context.compute.device, None),
        stop_after=REPLAY_STEPS,
    )
    return {f"ae-{first}.first_loss": model.history_.train["loss"]}


SCALES = {
    "smoke": WaveformsConfig(
        bottlenecks=(2, 8), epochs=1, width=2, components=(2,), neighbours=(1,), repeats=5, points=4
    ),
    "live": WaveformsConfig(bottlenecks=(2, 8, 128), repeats=200),
    "full": WaveformsConfig(),
}

WAVEFORMS = Experiment(
    name="waveforms",
    question="Does a residual autoencoder find unusual heartbeats better than simple detectors?",
    config_type=WaveformsConfig,
    scales=SCALES,
    run=run,
    data=data_info,
    replay=replay,
)
