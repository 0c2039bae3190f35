"""What chapter 9's results rest on: the rule of one line, an untrained net, other faults, and stress."""

import re
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from companion.data.images import share_by_hash
from companion.experiments import casting
from companion.experiments import casting_detectors as fitted
from companion.experiments.base import Context, from_table
from companion.experiments.casting_detectors import Casting, CastingConfig, Detector, Views, load
from companion.objectives.synthetic_anomalies import as_floats, occlusion
from companion.runs import SeedResult

FINAL = casting.FINAL
RECOMMENDED = "both"  # the classifier whose training puts haze on normal images and faults alike
# kinds of fault, share of obstacles, share of haze, and whether haze is on faults, too
CLASSIFIERS: dict[str, tuple[tuple[str, ...], float, float, bool]] = {
    RECOMMENDED: (*casting.DISCRIMINATORS[FINAL], True),
    FINAL: (*casting.DISCRIMINATORS[FINAL], False),
    "cut": (("cut",), *casting.DISCRIMINATORS[FINAL][1:], True),
    "moulds": (*casting.DISCRIMINATORS[FINAL], True),
    "known": (*casting.DISCRIMINATORS["known"], False),
}
# share of haze, and whether something stands in front
STRESS = {"haze30": (0.3, False), "haze50": (0.5, False), "haze70": (0.7, False),
          "obstacle": (0.0, True), "haze30-obstacle": (0.3, True)}  # fmt: skip
STRESSED = ("rule", FINAL, RECOMMENDED)  # the detectors that are put under stress


def rule(data: Casting) -> Detector:
    """The rule of one line: how far the roughness is from the median of validation normals, up or down."""
    usual = np.median(casting.roughness(data.validation))
    return Detector(lambda views: np.abs(casting.roughness(views) - usual))


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


def controls(
    config: CastingConfig, data: Casting, seed: int, context: Context
) -> Iterator[tuple[str, Detector, Casting]]:
    """Fit the detectors one after the other; each with the data that it learned and is judged with."""
    for name, settings in CLASSIFIERS.items():
        own = split_by_mould(data) if name == "moulds" else data
        model, detector = fitted.fit_classifier(config, own, seed, context, name, *settings)
        if name == RECOMMENDED and context.weights is not None:
            model.calibrate(own.validation.color, config.fpr).save(context.weights / "net.safetensors")
        yield name, detector, own
    name = "untrained"
    yield name, fitted.fit_classifier(config, data, seed, context, name, ("known",), stop_after=0)[1], data
    yield "rule", rule(data), data
    yield "pca", fitted.fit_pca(config, data, seed), data


def run(config: CastingConfig, seed: int, context: Context) -> SeedResult:
    """Judge every detector per kind, the stressed ones under stress, and measure how near the parts are.

    The curves ``near.<kind>`` are distances of test images from the nearest of that kind in development,
    ``both.missed`` and ``both.flagged`` places among the test images.
    """
    data, result = load(config.share), SeedResult(seed=seed)
    metrics, curves = result.metrics, result.curves
    for name, detector, own in controls(config, data, seed, context):
        scores = casting.measure(result, name, detector, own, config)
        threshold = metrics[f"{name}.{'normal99' if name == 'rule' else 'disturbed'}.threshold"]
        for stress, what in STRESS.items() if name in STRESSED else ():
            under = casting.rates(detector.score(stressed(own.test, *what)), threshold, own)
            metrics.update({f"{name}.{stress}.{key}": value for key, value in under.items()})
        if name == RECOMMENDED:
            flagged, anomalous = scores["test"] > threshold, own.labels["test"] == 1
            curves["both.missed"] = np.flatnonzero(anomalous & ~flagged).astype(float).tolist()
            curves["both.flagged"] = np.flatnonzero(~anomalous & flagged).astype(float).tolist()
    here, there = (casting.kinds(data, part) for part in ("test", "development"))
    for kind in here:
        images = data.test.color[torch.as_tensor(here[kind])]
        curves[f"near.{kind}"] = nearest(images, data.development.color[torch.as_tensor(there[kind])])
        metrics[f"images.{kind}"] = float(here[kind].sum())
    return result


CASTING_CONTROLS = from_table("casting_controls", CastingConfig, run, casting.data_info)
