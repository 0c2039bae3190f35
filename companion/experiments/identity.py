"""Chapter 1's experiment on the identity: can a stack of blocks learn to do nothing?"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from companion.compute import seed_everything
from companion.experiments.base import Config, Context, Experiment, window_means
from companion.models.blocks import BasicResidualBlock, zero_residual
from companion.objectives.classification import Batch
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, fit

WIDTH, SIZE = 16, 8
KINDS = ("plain", "residual", "residual, zero start")
"""The kinds of stacks that are compared."""


class IdentityConfig(Config):
    """What is trained and how.

    Attributes:
        num_blocks: the heights of the stacks, two 3x3 convolutions a block.
        num_examples: how many random inputs there are.
        fit: the recipe, the same for all stacks.
        points: how many points a curve is averaged down to.
    """

    num_blocks: tuple[int, ...] = (2, 8)
    num_examples: int = 2048
    fit: FitConfig = FitConfig(
        num_steps=400, batch_size=64, lr=0.02, warmup_steps=20, schedule="cosine", weight_decay=0
    )
    points: int = 50


def build(kind: str, num_blocks: int) -> nn.Sequential:
    """A stack of equal blocks of one of the :data:`KINDS`.

    The zero start sets the scale of each block's last norm to zero, so that F(x) = 0.
    """
    shortcut: Literal["A"] | None = None if kind == "plain" else "A"
    blocks = [BasicResidualBlock(WIDTH, WIDTH, shortcut=shortcut) for _ in range(num_blocks)]
    if kind == "residual, zero start":
        for block in blocks:
            zero_residual(block)
    return nn.Sequential(*blocks)


def inputs(num_examples: int) -> Tensor:
    """Random non-negative feature maps (N, 16, 8, 8) with neighbouring positions alike, always the same."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(num_examples, WIDTH, SIZE, SIZE, generator=generator)
    return F.relu(F.avg_pool2d(noise, 3, stride=1, padding=1) * 3)


def relative_error(model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
    """Mean squared difference of output and input, as a share of the input's variance.

    0 is the identity; 1 is what always answering with the mean of the inputs would give.
    """
    (x,) = batch
    return {"loss": F.mse_loss(model(x).float(), x) / x.var()}


def run(config: IdentityConfig, seed: int, context: Context) -> SeedResult:
    """Train each kind of stack at each height to return its input.

    Returns:
        The curves ``"<kind>-<height>.loss"`` (relative squared error), and as metrics its first value
        and the mean of the last tenth.
    """
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for height in config.num_blocks:
        for kind in KINDS:
            what = f"{kind}-{height}"
            seed_everything(seed)
            history = fit(
                build(kind, height),
                (inputs(config.num_examples),),
                relative_error,
                config.fit,
                compute=context.compute,
                seed=seed,
                checkpoint=context.checkpoint(what),
                progress=f"{kind}, {height} blocks" if context.progress else None,
            )
            losses = history.train["loss"]
            curves[f"{what}.loss"] = window_means(losses, config.points)
            metrics[f"{what}.first_loss"] = losses[0]
            metrics[f"{what}.final_loss"] = window_means(losses, 10)[-1]
            seconds[what] = round(history.seconds, 2)
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


IDENTITY = Experiment(
    name="identity",
    question="Which stacks of blocks can learn to return their input?",
    config_type=IdentityConfig,
    scales={
        "smoke": IdentityConfig(
            num_blocks=(1, 2), num_examples=64, fit=FitConfig(num_steps=4, batch_size=16, weight_decay=0)
        ),
        "live": IdentityConfig(),
        "full": IdentityConfig(
            num_blocks=(2, 4, 8, 16), fit=IdentityConfig().fit.model_copy(update={"num_steps": 2000})
        ),
    },
    run=run,
    data=lambda: DataInfo(name="random feature maps", source="generated", digest="", synthetic=False),
)
