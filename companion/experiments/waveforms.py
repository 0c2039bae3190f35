"""Chapter 10: a residual autoencoder for heartbeats against simple detectors."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import product
from typing import Literal

import numpy as np

from companion.compute import Compute
from companion.data.ecg import Beats, load_ecg5000
from companion.detection.metrics import bootstrap, confusion, pr_auc, roc_auc, roc_points, with_ends
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.estimators.autoencoders import ResNetAE
from companion.estimators.baselines import WindowBaseline
from companion.experiments.base import REPLAY_STEPS, Config, Context, data_info, from_table, window_means
from companion.models.autoencoders import WaveAutoencoder
from companion.models.resnet import count_parameters
from companion.runs import SeedResult, load_run, weights_path

ROC_GRID = np.linspace(0, 0.1, 51)  # the false-positive rates at which the curve ``roc`` is given


class WaveformsConfig(Config):
    """What is fitted and how it is judged."""

    bottlenecks: tuple[int, ...] = (1, 2, 4, 8, 32, 128)  #: latent widths; validation chooses among them
    members: int = 3  #: autoencoders of each width whose scores are averaged
    epochs: int = 25  #: passes over the 292 training beats
    width: int = 8  #: of the net
    loss: Literal["l1", "l2"] = "l2"  #: of the net, in training
    score_norm: Literal["l1", "l2"] = "l2"  #: of the net's score; that of training
    jitter: float = 0.1  #: noise on the net's input
    components: tuple[int, ...] = (1, 2, 3, 4, 8, 16, 32)  #: of a PCA; validation chooses
    neighbours: tuple[int, ...] = (1, 3, 5, 10)  #: how many; validation chooses
    validation_normals: int = 1000  #: see :func:`companion.data.ecg.load_ecg5000`
    fprs: tuple[float, ...] = (0.01, 0.001)  #: of thresholds, set on the validation normals
    repeats: int = 1000  #: samples of the bootstrap
    points: int = 50  #: how many points a training curve is averaged down to


_beats = cache(load_ecg5000)


class _PlainAE(ResNetAE):
    """The same net without shortcuts."""

    def _net(self) -> WaveAutoencoder:
        sizes = (self.depth, self.bottleneck, self.width)
        return WaveAutoencoder(self.channels_, self.length_, *sizes, residual=False)


# by family; of the untrained one only the norms learn
NETS: dict[str, Callable[..., ResNetAE]] = {
    "ae": ResNetAE, "plain": _PlainAE, "untrained": partial(ResNetAE, lr=1e-12)
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """Fitted detectors that are asked together: their scores are averaged."""

    family: str  #: one of ``NETS``, ``"mean"``, ``"pca"`` or ``"knn"``
    size: int  #: latent width, components or neighbours; 0 where there is nothing to choose
    models: list[ResNetAE]
    seconds: float  #: for fitting

    def score(self, windows: np.ndarray) -> np.ndarray:
        """Scores windows (N, L): float64 (N,)."""
        return np.asarray(np.mean([model.decision_function(windows) for model in self.models], axis=0))


def evaluate_detector(
    validation: np.ndarray, test: np.ndarray, beats: Beats, config: WaveformsConfig
) -> dict[str, float]:
    """Metrics of one detector from its scores; the thresholds come from those of validation alone."""
    metrics = {"validation_roc_auc": roc_auc(beats.validation_labels, validation)}
    for name, metric in (("roc_auc", roc_auc), ("pr_auc", pr_auc)):
        metrics |= with_ends(name, bootstrap(metric, beats.test_labels, test, repeats=config.repeats))
    normal, anomalous = (validation[beats.validation_labels == kind] for kind in (0, 1))
    thresholds = {f"fpr_{fpr:g}": fixed_fpr(normal, fpr) for fpr in config.fprs}
    thresholds["tnr_target"] = tnr_target(normal, anomalous)
    for name, threshold in thresholds.items():
        counts = confusion(beats.test_labels, test, threshold)
        rates = {"threshold": threshold, "tpr": counts.tpr.value, "tnr": counts.tnr.value}
        metrics |= {f"{name}.{key}": value for key, value in rates.items()}
    return metrics


def candidates(
    config: WaveformsConfig, seed: int, context: Context, train: np.ndarray
) -> Iterator[Candidate]:
    """Fit every detector; members differ in their seeds alone; without components, a PCA is the mean."""
    around = replace(context, compute=Compute(context.compute.device, None))
    options = config.model_dump(include={"width", "loss", "jitter"})
    for family, width in product(NETS, config.bottlenecks):
        members = []
        for member in range(config.members):
            model = NETS[family](bottleneck=width, seed=seed * config.members + member, **options)
            name = f"{family}-{width}-{member}"
            members.append(around.fit_estimator(name, model, train, epochs=config.epochs))
        yield Candidate(family, width, members, sum(member.history_.seconds for member in members))
    pca = [("pca" if size else "mean", WindowBaseline("pca", size)) for size in (0, *config.components)]
    for family, model in pca + [("knn", WindowBaseline("neighbours", size)) for size in config.neighbours]:
        clock = time.perf_counter()
        yield Candidate(family, model.size, [model.fit(train)], time.perf_counter() - clock)


def run(config: WaveformsConfig, seed: int, context: Context) -> SeedResult:
    """Fit every detector, choose a size for each family on validation, and test the chosen ones only.

    ``gain`` compares the autoencoders with the simple detector that validation likes best; ``member_roc_auc``
    is the mean over single members. The weights ``"net"`` are those of the chosen width's first member.
    """
    beats = _beats(validation_normals=config.validation_normals)
    labels = beats.validation_labels
    result = SeedResult(seed=seed)
    metrics, curves = result.metrics, result.curves
    found: list[tuple[float, Candidate, np.ndarray]] = []  # area on validation, detector, its scores there
    for each in candidates(config, seed, context, beats.train):
        alone = [model.decision_function(beats.validation) for model in each.models]
        scores, what = np.mean(alone, axis=0), f"{each.family}-{each.size}"
        found.append((roc_auc(labels, scores), each, scores))
        metrics[f"{what}.validation_roc_auc"] = found[-1][0]
        result.seconds[what] = round(each.seconds, 4)
        if each.family in NETS:
            losses = each.models[0].history_.train["loss"]
            curves[f"{what}.loss"] = window_means(losses, config.points)
            curves[f"{what}.first_loss"] = losses[:REPLAY_STEPS]
            metrics[f"{what}.member_roc_auc"] = float(np.mean([roc_auc(labels, own) for own in alone]))
            metrics[f"{what}.normal_score"] = float(scores[labels == 0].mean())
            metrics[f"{what}.anomaly_score"] = float(scores[labels == 1].mean())
            metrics[f"{what}.parameters"] = float(sum(count_parameters(m.net_) for m in each.models))
    best: dict[str, tuple[float, Candidate, np.ndarray]] = {}
    for own in sorted(found, key=lambda own: -own[0]):
        best.setdefault(own[1].family, own)  # the first, if several are best
    net = best["ae"][1].models[0].calibrate(beats.validation[labels == 0], max(config.fprs))
    if context.weights is not None:
        net.save(context.weights / "net.safetensors")
    tests = {family: chosen.score(beats.test) for family, (_, chosen, _) in best.items()}
    baseline = max((family for family in best if family not in NETS), key=lambda family: best[family][0])
    for name, metric in (("roc_auc", roc_auc), ("pr_auc", pr_auc)):
        others, repeats = tests[baseline], config.repeats
        gain = bootstrap(metric, beats.test_labels, tests["ae"], others=others, repeats=repeats)
        metrics.update(with_ends(f"gain.{name}", gain))
    for family, (_, chosen, scores) in best.items():
        metrics[f"{family}.size"] = float(chosen.size)
        judged = evaluate_detector(scores, tests[family], beats, config)
        metrics.update({f"{family}.{name}": value for name, value in judged.items()})
        curves[f"{family}.roc"] = roc_points(beats.test_labels, tests[family], ROC_GRID)
    return result


def recorded_detector(name: str = "waveforms-full-cpu") -> ResNetAE:
    """The net whose weights a recorded run kept, with its threshold."""
    return ResNetAE.load(weights_path(load_run(name), "net"))


WAVEFORMS = from_table(
    "waveforms", WaveformsConfig, run, lambda: data_info(_beats(validation_normals=1000)), float32=True
)
