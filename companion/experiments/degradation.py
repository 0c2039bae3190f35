"""Chapters 1 and 2: plain and residual CIFAR nets of growing depth under identical conditions."""

from functools import cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.compute import seed_everything
from companion.data.cifar10 import load_cifar10
from companion.experiments import base
from companion.experiments.base import Config, Context, from_table, window_means
from companion.models.blocks import BasicResidualBlock, PreActResidualBlock
from companion.models.resnet import CifarResNet, count_parameters
from companion.objectives.classification import Batch, ImageClassification
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, evaluate


class DegradationConfig(Config):
    """What is trained and how."""

    nets: tuple[str, ...]  #: see :func:`build`
    image_size: Literal[8, 16, 32] = 32  #: pixels a side; below 32, images are averaged down to it
    train_size: int | None = None  #: how many training images are used; ``None`` for all
    eval_size: int | None = None  #: how many images of each split are evaluated; ``None`` for all
    augment: bool = True  #: random shifts of up to an eighth of the side, and mirroring
    fit: FitConfig  #: the recipe, the same for all nets
    points: int = 100  #: how many points a training curve is averaged down to
    peek: bool = False  #: whether the test error is also measured at every evaluation; it decides nothing


class LearningRatesConfig(Config):
    """The learning rates that every net of ``base`` is trained with."""

    lrs: tuple[float, ...] = (0.01, 0.03, 0.1)
    base: DegradationConfig


class StartsConfig(Config):
    """Other weights to begin with for plain nets of ``base``."""

    base: DegradationConfig
    scales: dict[str, tuple[float, ...]]  #: by plain net, see :func:`start_near_identity`


def build(net: str) -> CifarResNet:
    """The net called ``"plain-<depth>"``, ``"resnet-<depth>"`` or ``"preact-<depth>"`` (pre-activated)."""
    kind, _, depth = net.partition("-")
    block = PreActResidualBlock if kind == "preact" else BasicResidualBlock
    return CifarResNet(int(depth), block=block, residual=kind != "plain")


@torch.no_grad()
def start_near_identity(net: CifarResNet, scale: float) -> None:
    """Let every block that keeps its input's shape begin near the identity.

    The weights W of its convolutions become ``I + scale W``, where I passes every channel on.
    """
    for block in (block for stage in net.blocks() for block in stage):
        if block.conv1.weight.shape == block.conv2.weight.shape:
            for conv in (block.conv1, block.conv2):
                identity = nn.init.dirac_(torch.empty_like(conv.weight))
                conv.weight.copy_(identity + scale * conv.weight)


def shrink(images: Tensor, size: int) -> Tensor:
    """Average uint8 images (N, C, H, H) down to (N, C, ``size``, ``size``), rounded to uint8."""
    if images.shape[-1] == size:
        return images
    means = [F.adaptive_avg_pool2d(chunk.float(), size) for chunk in torch.split(images, 5000)]
    return torch.cat([chunk.round().to(torch.uint8) for chunk in means])


@cache
def _splits(image_size: int) -> tuple[dict[str, Batch], Tensor, Tensor]:
    cifar = load_cifar10()
    parts = {"train": cifar.train, "validation": cifar.validation, "test": cifar.test}
    splits: dict[str, Batch] = {name: (shrink(p.images, image_size), p.labels) for name, p in parts.items()}
    return splits, *cifar.moments


def learned_from(
    train_size: int | None, image_size: int = 32, **options: Any
) -> tuple[dict[str, Batch], ImageClassification]:
    """The three splits as (images, labels), the first images of training only, and an objective on them."""
    splits, mean, std = _splits(image_size)
    splits = splits | {"train": tuple(t[:train_size] for t in splits["train"])}
    return splits, ImageClassification(mean, std, **options)


def prepare(config: DegradationConfig) -> tuple[dict[str, Batch], ImageClassification]:
    """The three splits at the config's image size, and the objective on them."""
    max_shift = config.image_size // 8 if config.augment else 0
    return learned_from(config.train_size, config.image_size, max_shift=max_shift, flip=config.augment)


def data_info() -> DataInfo:
    """What CIFAR-10 is here: the real one, or its stand-in."""
    return base.data_info(load_cifar10(), name="cifar10")


def train(
    config: DegradationConfig, net: str, context: Context, result: SeedResult, what: str,
    scale: float | None = None,
) -> CifarResNet:  # fmt: skip
    """Train one net with the seed of ``result``, and add to that under ``"<what>."``.

    With a ``scale`` it begins near the identity. ``train_loss`` and ``train_error`` are means of training's
    last tenth, as seen then, ``fixed_train_error`` is that of the final net without augmentation.
    """
    splits, objective = prepare(config)
    evaluated = {name: tuple(t[: config.eval_size] for t in split) for name, split in splits.items()}
    seed_everything(result.seed)
    model = build(net)
    if scale is not None:
        start_near_identity(model, scale)

    def measure(model: nn.Module, split: str) -> dict[str, float]:
        return evaluate(model, evaluated[split], objective, context.compute)

    def evaluation(model: nn.Module) -> dict[str, float]:
        names = ("validation", "test") if config.peek else ("validation",)
        return {f"{name}_{metric}": value for name in names for metric, value in measure(model, name).items()}

    history = context.fit(
        what, model, splits["train"], objective, config.fit, result.seed,
        evaluation=evaluation, result=result,
    )  # fmt: skip
    for metric, values in history.train.items():
        result.curves[f"{what}.{metric}"] = window_means(values, config.points)
        result.metrics[f"{what}.train_{metric}"] = float(np.mean(values[-max(1, len(values) // 10) :]))
    if config.fit.eval_every is not None:
        result.curves.update({f"{what}.{name}": values for name, values in history.evaluations.items()})
    for split, name in {"train": "fixed_train", "validation": "validation", "test": "test"}.items():
        result.metrics[f"{what}.{name}_error"] = measure(model, split)["error"]
    result.metrics[f"{what}.parameters"] = float(count_parameters(model))
    return model


def run(config: DegradationConfig, seed: int, context: Context) -> SeedResult:
    """Under ``"<net>."`` what :func:`train` gives; twins have the same first weights and the same batches."""
    result = SeedResult(seed=seed)
    for net in config.nets:
        train(config, net, context, result, net)
    return result


def run_learning_rates(config: LearningRatesConfig, seed: int, context: Context) -> SeedResult:
    """Train every net once per learning rate: under ``"<net>@<lr>."`` what :func:`train` gives."""
    result = SeedResult(seed=seed)
    for lr in config.lrs:
        fit = config.base.fit.model_copy(update={"lr": lr})
        for net in config.base.nets:
            train(config.base.model_copy(update={"fit": fit}), net, context, result, f"{net}@{lr}")
    return result


def run_starts(config: StartsConfig, seed: int, context: Context) -> SeedResult:
    """Train the nets of ``base``, and its plain ones from near the identity, ``"<net>~<scale>."``."""
    result = run(config.base, seed, context)
    for net, scales in config.scales.items():
        for scale in scales:
            train(config.base, net, context, result, f"{net}~{scale:g}", scale)
    return result


DEGRADATION = from_table("degradation", DegradationConfig, run, data_info)
DEPTHS = from_table("depths", DegradationConfig, run, data_info)
BLOCK_ORDER = from_table("block_order", DegradationConfig, run, data_info)
LEARNING_RATES = from_table("learning_rates", LearningRatesConfig, run_learning_rates, data_info)
STARTS = from_table("starts", StartsConfig, run_starts, data_info)
