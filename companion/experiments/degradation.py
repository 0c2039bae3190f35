"""Chapter 1's experiment: plain and residual CIFAR nets of growing depth under identical conditions."""

from __future__ import annotations

from functools import cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from companion.compute import seed_everything
from companion.data import load_cifar10
from companion.experiments.base import Config, Context, Experiment, window_means
from companion.models.blocks import BasicResidualBlock, PreActResidualBlock
from companion.models.resnet import CifarResNet, count_parameters
from companion.objectives.classification import Batch, ImageClassification
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, evaluate, fit

REPLAY_STEPS = 3


class DegradationConfig(Config):
    """What is trained and how.

    Attributes:
        nets: see :func:`build`.
        image_size: pixels a side; below 32, images are averaged down to it.
        train_size: how many training images are used; ``None`` for all.
        eval_size: how many images of each split are evaluated; ``None`` for all.
        augment: random shifts of up to an eighth of the side, and mirroring.
        fit: the recipe, the same for all nets.
        points: how many points a training curve is averaged down to.
        peek: whether the test error is also measured at every evaluation. It never decides
            anything; it shows what choosing the best epoch on the test set would have pretended.
    """

    nets: tuple[str, ...]
    image_size: Literal[8, 16, 32] = 32
    train_size: int | None = None
    eval_size: int | None = None
    augment: bool = True
    fit: FitConfig
    points: int = 100
    peek: bool = False


NETS = ("plain-20", "plain-56", "resnet-20", "resnet-56")
_LIVE_FIT = FitConfig(num_steps=300, batch_size=128, lr=0.03, warmup_steps=20)
_FULL_FIT = FitConfig(
    num_steps=10 * 351, batch_size=128, lr=0.1, warmup_steps=100, schedule="step", milestones=(0.5, 0.75),
    eval_every=351, checkpoint_every=351,
)  # fmt: skip
_PAPER_FIT = _FULL_FIT.model_copy(
    update={"num_steps": 64_000, "warmup_steps": 400, "eval_every": 640, "checkpoint_every": 3200}
)
_PAPER_NETS = tuple(f"{kind}-{depth}" for kind in ("plain", "resnet") for depth in (20, 32, 44, 56))

SCALES = {
    "smoke": DegradationConfig(
        nets=("plain-8", "plain-14", "resnet-8", "resnet-14"),
        image_size=8,
        train_size=512,
        eval_size=256,
        fit=FitConfig(num_steps=6, batch_size=32, lr=0.05, warmup_steps=2),
        points=6,
    ),
    "live": DegradationConfig(nets=NETS, image_size=16, eval_size=2000, augment=False, fit=_LIVE_FIT),
    "full": DegradationConfig(nets=NETS, fit=_FULL_FIT, peek=True),
    "live-cuda": DegradationConfig(
        nets=NETS, augment=False, fit=_LIVE_FIT.model_copy(update={"num_steps": 800})
    ),
    "full-cuda": DegradationConfig(nets=(*_PAPER_NETS, "resnet-110"), fit=_PAPER_FIT, peek=True),
}


def build(net: str) -> CifarResNet:
    """The net called ``"plain-<depth>"``, ``"resnet-<depth>"`` or ``"preact-<depth>"`` (pre-activated).

    Example:
        >>> build("plain-20").stages[0][0].shortcut is None
        True
    """
    kind, _, depth = net.partition("-")
    if kind not in ("plain", "resnet", "preact") or not depth.isdecimal():
        raise ValueError(f"a net is called 'plain-20' or 'resnet-56', for example, not {net!r}")
    block = PreActResidualBlock if kind == "preact" else BasicResidualBlock
    return CifarResNet(int(depth), block=block, residual=kind != "plain")


def shrink(images: Tensor, size: int) -> Tensor:
    """Average uint8 images (N, C, H, H) down to (N, C, ``size``, ``size``), rounded to uint8."""
    if images.shape[-1] == size:
        return images
    means = [F.adaptive_avg_pool2d(chunk.float(), size) for chunk in torch.split(images, 5000)]
    return torch.cat([chunk.round().to(torch.uint8) for chunk in means])


@cache
def _splits(image_size: int) -> tuple[dict[str, Batch], Tensor, Tensor]:
    cifar = load_cifar10()
    splits = {"train": cifar.train, "validation": cifar.validation, "test": cifar.test}
    tensors: dict[str, Batch] = {
        name: (shrink(split.images, image_size), split.labels) for name, split in splits.items()
    }
    return tensors, cifar.mean, cifar.std


def prepare(config: DegradationConfig) -> tuple[dict[str, Batch], ImageClassification]:
    """The three splits as (images, labels) at the config's image size, and the objective on them."""
    splits, mean, std = _splits(config.image_size)
    train = tuple(t[: config.train_size] for t in splits["train"])
    max_shift = config.image_size // 8 if config.augment else 0
    objective = ImageClassification(mean, std, max_shift=max_shift, flip=config.augment)
    return splits | {"train": train}, objective


def data_info() -> DataInfo:
    """What CIFAR-10 is here: the real one, or its stand-in."""
    cifar = load_cifar10()
    return DataInfo(name="cifar10", source=cifar.source, digest=cifar.digest, synthetic=cifar.synthetic)


def run(config: DegradationConfig, seed: int, context: Context) -> SeedResult:
    """Train every net of ``config`` with one seed.

    A plain net and its residual twin start from the same weights and see the same batches.

    Returns:
        For each net the curves ``loss`` and ``error`` of training (window means), and with evaluations
        ``validation_error``, ``validation_loss`` and, if ``peek``, ``test_error``; and the metrics
        ``train_loss`` and ``train_error`` (mean of the last tenth of the steps, as seen while training),
        ``fixed_train_error`` (the final net on un-augmented training images), ``validation_error``,
        ``test_error`` (the final net, once) and ``parameters``.
    """
    splits, objective = prepare(config)
    evaluated = {name: tuple(t[: config.eval_size] for t in split) for name, split in splits.items()}
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for net in config.nets:
        seed_everything(seed)
        model = build(net)

        def evaluation(model: torch.nn.Module) -> dict[str, float]:
            names = ("validation", "test") if config.peek else ("validation",)
            return {
                f"{name}_{metric}": value
                for name in names
                for metric, value in evaluate(model, evaluated[name], objective, context.compute).items()
            }

        history = fit(
            model,
            splits["train"],
            objective,
            config.fit,
            compute=context.compute,
            seed=seed,
            evaluation=evaluation,
            checkpoint=context.checkpoint(net),
            progress=net if context.progress else None,
        )
        tenth = max(1, config.fit.num_steps // 10)
        for metric, values in history.train.items():
            curves[f"{net}.{metric}"] = window_means(values, config.points)
            metrics[f"{net}.train_{metric}"] = float(np.mean(values[-tenth:]))
            curves[f"{net}.first_{metric}"] = values[:REPLAY_STEPS]
        for metric, values in history.evaluations.items():
            if config.fit.eval_every is not None:
                curves[f"{net}.{metric}"] = values
        final = {
            name: evaluate(model, evaluated[name], objective, context.compute)["error"] for name in evaluated
        }
        metrics[f"{net}.fixed_train_error"] = final["train"]
        metrics[f"{net}.validation_error"] = final["validation"]
        metrics[f"{net}.test_error"] = final["test"]
        metrics[f"{net}.parameters"] = float(count_parameters(model))
        seconds[net] = round(history.seconds, 2)
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


def replay(config: DegradationConfig, seed: int, context: Context) -> dict[str, list[float]]:
    """The training losses of the first steps of the first net of each kind."""
    splits, objective = prepare(config)
    chosen = {net.partition("-")[0]: net for net in reversed(config.nets)}.values()
    losses = {}
    for net in chosen:
        seed_everything(seed)
        history = fit(
            build(net),
            splits["train"],
            objective,
            config.fit,
            compute=context.compute,
            seed=seed,
            stop_after=REPLAY_STEPS,
        )
        losses[f"{net}.first_loss"] = history.train["loss"]
    return losses


DEGRADATION = Experiment(
    name="degradation",
    question="Do deeper plain nets train worse than shallower ones, and do residual nets mend it?",
    config_type=DegradationConfig,
    scales=SCALES,
    run=run,
    data=data_info,
    replay=replay,
)
