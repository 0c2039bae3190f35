"""Does a residual autoencoder of 23.8 million parameters earn its size? Equal compute, and equal time."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from companion.compute import Compute, seed_everything
from companion.detection.anomaly_maps import error_map, image_scores, multiscale_map
from companion.detection.metrics import roc_auc
from companion.experiments.base import Config, Context, Experiment, window_means
from companion.experiments.casting import data_info
from companion.experiments.casting_detectors import CAMERA, GRAY, Casting, load
from companion.models.autoencoders import ConvAutoencoder, ResidualAutoencoder
from companion.models.cost import multiply_adds
from companion.models.resnet import count_parameters
from companion.objectives.reconstruction import ImageReconstruction
from companion.runs import SeedResult
from companion.training import FitConfig, fit

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
    return ImageReconstruction("l1", -1.0 if net == "conv" else 0.0, CAMERA)


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
    rows, spent = (load(config.share).train.gray,), []
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


def run(config: CastingSizeConfig, seed: int, context: Context) -> SeedResult:
    """Train the large net, then the small ones for as many multiply-adds, and for as many seconds.

    Nothing is kept for a resumed run but finished seeds: what was timed must be one piece. ``multiply_adds``
    are those of all forward passes, ``image_multiply_adds`` of one image.
    """
    data, result = load(config.share), SeedResult(seed=seed)
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


SCALES = {
    "smoke": CastingSizeConfig(
        large=(32, 32), small=(16, 16), conv=(4, 4), num_steps=2, batch_size=4, validation_images=20,
        share=0.01, points=2,
    ),
    "live": CastingSizeConfig(num_steps=10),
    "full": CastingSizeConfig(),
}  # fmt: skip

CASTING_SIZE = Experiment(
    "casting_size", "Does an autoencoder of 23.8 million parameters earn its size on casting images?",
    SCALES, run, data_info,
)  # fmt: skip
