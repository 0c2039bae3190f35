"""What chapter 9's results rest on: the rule of one line, an untrained net, other faults, and stress.

Detectors are judged per kind of fault. Anomalies of the test set are spills or empty moulds, and no file says
which. :func:`kinds` does: a spill is rougher than a normal mould, an empty one smoother. Looked at one by
one, all 97 of the test part are what it says.
"""

import re
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from companion.compute import seed_everything
from companion.data.images import share_by_hash
from companion.detection.metrics import bootstrap, pr_auc, roc_auc, wilson
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.experiments import casting_detectors as fitted
from companion.experiments.base import REPLAY_STEPS, Context, Experiment, with_ends
from companion.experiments.casting import DISCRIMINATORS, FINAL, SCALES, Scores, data_info, score_parts
from companion.experiments.casting_detectors import Casting, CastingConfig, Detector, Views, load
from companion.models.blocks import BasicResidualBlock
from companion.models.resnet import ResNet
from companion.objectives.synthetic_anomalies import AnomalyKind, as_floats, occlusion
from companion.runs import SeedResult

RECOMMENDED = "both"  # the classifier whose training puts haze on normal images and faults alike
# kinds of fault, share of obstacles, share of haze, and whether haze is on faults, too
CLASSIFIERS: dict[str, tuple[tuple[AnomalyKind, ...], float, float, bool]] = {
    RECOMMENDED: (*DISCRIMINATORS[FINAL], True),
    FINAL: (*DISCRIMINATORS[FINAL], False),
    "cut": (("cut",), *DISCRIMINATORS[FINAL][1:], True),
    "moulds": (*DISCRIMINATORS[FINAL], True),
    "known": (*DISCRIMINATORS["known"], False),
}
# share of haze, and whether something stands in front
STRESS = {"haze30": (0.3, False), "haze50": (0.5, False), "haze70": (0.7, False),
          "obstacle": (0.0, True), "haze30-obstacle": (0.3, True)}  # fmt: skip
STRESSED = ("rule", FINAL, RECOMMENDED)  # the detectors that are put under stress
ROUGH = 0.5  # an anomaly is a spill if the logarithm of its roughness is this far above the normal median


def roughness(views: Views) -> np.ndarray:
    """The logarithm of the mean absolute gradient in the middle half of grey crops, float64 (N,)."""
    height, width = views.color.shape[2:]
    grey = as_floats(views.color).mean(dim=1)
    middle = grey[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    steps = [middle.diff(dim=axis).abs().mean(dim=(1, 2)) for axis in (1, 2)]
    return np.log((steps[0] + steps[1]).double().numpy() / 2 + 1e-6)


def rule(data: Casting) -> Detector:
    """The rule of one line: how far the roughness is from the median of validation normals, up or down."""
    usual = np.median(roughness(data.validation))
    return Detector(lambda views: np.abs(roughness(views) - usual))


def kinds(data: Casting, part: str) -> dict[str, np.ndarray]:
    """Which images of a part are spills and which empty moulds: masks (N,)."""
    anomalous = data.labels[part] == 1
    rough = roughness(getattr(data, part)) - np.median(roughness(data.validation)) > ROUGH
    return {"spill": anomalous & rough, "empty": anomalous & ~rough}


def split_by_mould(data: Casting) -> Casting:
    """The data with the known spills of even moulds to learn from, and those of odd ones held out.

    The number of the mould is the first in a file's name. Drawn by hash, as else, one mould is on both sides.
    """
    spills = data.images.tuning.distinct()
    held = share_by_hash(spills.hashes, 0.5, salt="hold")
    names = [spills.names[i] for i in (*np.flatnonzero(~held), *np.flatnonzero(held))]
    numbers = [int(re.findall(r"\d+", name.rpartition("/")[2])[0]) for name in names]
    odd = torch.tensor(numbers) % 2 == 1
    every = Views(*(torch.cat([getattr(v, w) for v in (data.known, data.held)]) for w in ("gray", "color")))
    return data._replace(known=every[~odd], held=every[odd])


def stressed(views: Views, haze: float, obstacle: bool) -> Views:
    """Images behind haze that takes the share ``haze``, and behind an obstacle; colour alone is right."""
    floats = as_floats(views.color)
    if haze:
        smooth = F.avg_pool2d(floats, 3, stride=1, padding=1, count_include_pad=False)
        floats = (1 - haze) * smooth + haze * floats.mean(dim=(2, 3), keepdim=True)
    if obstacle:
        floats = occlusion(floats, Generator().manual_seed(11))
    return Views(views.gray, (255 * floats).round().to(torch.uint8))


def nearest(images: Tensor, others: Tensor) -> list[float]:
    """The mean absolute difference of each image, in [0, 1], from the nearest of the others, sorted."""
    rows, columns = (as_floats(each).flatten(1) for each in (images, others))
    return sorted(round(float((columns - row).abs().mean(dim=1).min()), 4) for row in rows)


def judge(scores: Scores, data: Casting, config: CastingConfig) -> dict[str, float]:
    """Metrics of one detector on the test part, per kind at four thresholds that no test image chose."""
    thresholds = {
        "disturbed": fixed_fpr(scores["disturbed"], config.fpr),
        "tnr_target": tnr_target(scores["validation"], scores["held"], config.tnr),
        "normal95": fixed_fpr(scores["validation"], max(0.05, config.fpr)),
        "normal99": fixed_fpr(scores["validation"], config.fpr),
    }
    labels, metrics = data.labels["test"], dict[str, float]()
    for area in (roc_auc, pr_auc):
        metrics |= with_ends(area.__name__, bootstrap(area, labels, scores["test"], repeats=config.repeats))
    for name, threshold in thresholds.items():
        metrics[f"{name}.threshold"] = threshold
        metrics |= {f"{name}.{key}": value for key, value in rates(scores["test"], threshold, data).items()}
        metrics[f"{name}.held"] = float(np.mean(scores["held"] > threshold))
    return metrics


def rates(scores: np.ndarray, threshold: float, data: Casting) -> dict[str, float]:
    """Shares of the test part with Wilson intervals: anomalies and each kind found, normals left alone."""
    labels, found = data.labels["test"], dict[str, float]()
    groups = {"tpr": labels == 1, **kinds(data, "test"), "tnr": labels == 0}
    for name, rows in groups.items():
        right = (scores[rows] > threshold) == (name != "tnr")
        if len(right):
            found |= with_ends(name, wilson(int(right.sum()), len(right)))
    return found


def controls(
    config: CastingConfig, data: Casting, seed: int, context: Context
) -> Iterator[tuple[str, Detector, Casting]]:
    """Fit the detectors one after the other; each with the data that it learned and is judged with."""
    for name, (faults, obstacles, hazes, both) in CLASSIFIERS.items():
        own = split_by_mould(data) if name == "moulds" else data
        objective = fitted.discrimination(own, faults, obstacles, hazes, both)
        yield name, fitted.fit_discriminator(config, own, seed, context, objective, name)[1], own
    seed_everything(seed)
    net = ResNet(BasicResidualBlock, (1, 1, 1), 1, stem="cifar", width=config.width)
    untrained = fitted.discrimination(data, ("known",))
    yield "untrained", Detector(lambda views: untrained.scores(net, views.color)), data
    yield "rule", rule(data), data
    yield "pca", fitted.fit_pca(config, data, seed), data


def run(config: CastingConfig, seed: int, context: Context) -> SeedResult:
    """Judge every detector per kind, the stressed ones under stress, and measure how near the parts are.

    The curves ``near.<kind>`` are distances of test images of a kind from the nearest of that kind in
    development; ``both.missed`` and ``both.flagged`` are places as in ``casting``.
    """
    data, result = load(config.share), SeedResult(seed=seed)
    metrics, curves = result.metrics, result.curves
    parts = ("validation", "disturbed", "held", "test")
    for name, detector, own in controls(config, data, seed, context):
        scores = score_parts(detector, own, parts)
        found = judge(scores, own, config)
        threshold = found["normal99.threshold" if name == "rule" else "disturbed.threshold"]
        for stress, what in STRESS.items() if name in STRESSED else ():
            under = rates(detector.score(stressed(own.test, *what)), threshold, own)
            found |= {f"{stress}.{key}": value for key, value in under.items()}
            hidden = detector.score(stressed(own.held, *what))
            found[f"{stress}.held"] = float(np.mean(hidden > threshold))
        metrics.update({f"{name}.{key}": value for key, value in found.items()})
        if losses := detector.history.train.get("loss"):
            curves[f"{name}.first_loss"] = losses[:REPLAY_STEPS]
            result.seconds[name] = round(detector.history.seconds, 2)
        if name == RECOMMENDED:
            flagged, anomalous = scores["test"] > threshold, own.labels["test"] == 1
            curves["both.missed"] = np.flatnonzero(anomalous & ~flagged).astype(float).tolist()
            curves["both.flagged"] = np.flatnonzero(~anomalous & flagged).astype(float).tolist()
    here, there = (kinds(data, part) for part in ("test", "development"))
    for kind in here:
        images = data.test.color[torch.as_tensor(here[kind])]
        curves[f"near.{kind}"] = nearest(images, data.development.color[torch.as_tensor(there[kind])])
        metrics[f"images.{kind}"] = float(here[kind].sum())
    return result


CASTING_CONTROLS = Experiment(
    "casting_controls", "What do a rule of one line, other painted faults and haze say of the detector?",
    {scale: config.model_copy(update={"repeats": min(200, config.repeats)})
     for scale, config in SCALES.items()},
    run, data_info,
)  # fmt: skip
