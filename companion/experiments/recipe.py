"""Chapter 4's ablation: what is each choice of the training recipe worth?"""

from __future__ import annotations

from typing import Any

from companion.experiments import classifier
from companion.experiments.base import Config, Context, Experiment
from companion.experiments.classifier import ClassifierConfig
from companion.experiments.degradation import data_info
from companion.runs import SeedResult

BASE = ClassifierConfig(net="resnet9-16", fit=classifier.recipe(3, 256, 0.3, 1, 3))
VARIANTS = (
    "as it is", "no mirroring", "no shifts", "cutout", "no label smoothing", "no weight decay",
    "no Nesterov", "no momentum", "constant lr", "lr / 3", "lr x 3", "batch of 64",
)  # fmt: skip
"""The recipe, and the recipe with one choice changed."""


class RecipeConfig(Config):
    """What is trained and how.

    Attributes:
        base: the recipe.
        variants: which of :data:`VARIANTS` are trained.
    """

    base: ClassifierConfig = BASE
    variants: tuple[str, ...] = VARIANTS


def vary(base: ClassifierConfig, variant: str) -> ClassifierConfig:
    """``base`` with one choice changed.

    A batch of 64 takes four times the steps, so that the net sees the same number of images, at a quarter of
    the learning rate.

    Raises:
        ValueError: for an unknown variant.

    Example:
        >>> vary(BASE, "no shifts").max_shift
        0
    """
    fit = base.fit
    outer: dict[str, dict[str, Any]] = {
        "as it is": {},
        "no mirroring": {"flip": False},
        "no shifts": {"max_shift": 0},
        "cutout": {"cutout": 8},
        "no label smoothing": {"label_smoothing": 0.0},
    }
    inner: dict[str, dict[str, Any]] = {
        "no weight decay": {"weight_decay": 0.0},
        "no Nesterov": {"nesterov": False},
        "no momentum": {"nesterov": False, "momentum": 0.0, "lr": fit.lr / (1 - fit.momentum)},
        "constant lr": {"schedule": "constant"},
        "lr / 3": {"lr": fit.lr / 3},
        "lr x 3": {"lr": fit.lr * 3},
        "batch of 64": {
            "batch_size": max(1, fit.batch_size // 4),
            "lr": fit.lr / 4,
            "num_steps": fit.num_steps * 4,
            "warmup_steps": fit.warmup_steps * 4,
            "eval_every": fit.num_steps * 4,
        },
    }
    if variant in outer:
        return base.model_copy(update=outer[variant])
    if variant in inner:
        return base.model_copy(update={"fit": fit.model_copy(update=inner[variant])})
    raise ValueError(f"there is no variant {variant!r}; there are: {', '.join((*outer, *inner))}")


def run(config: RecipeConfig, seed: int, context: Context) -> SeedResult:
    """Train the net once for each variant; only the validation split is looked at.

    Returns:
        ``"<variant>.<metric>"`` and ``"<variant>.<curve>"`` of
        :func:`companion.experiments.classifier.train`.
    """
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for variant in config.variants:
        _, result = classifier.train(vary(config.base, variant), seed, context, variant)
        metrics |= {f"{variant}.{name}": value for name, value in result.metrics.items()}
        curves |= {f"{variant}.{name}": values for name, values in result.curves.items()}
        seconds |= result.seconds
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


def replay(config: RecipeConfig, seed: int, context: Context) -> dict[str, list[float]]:
    """The training losses of the first steps of the first variant."""
    first = config.variants[0]
    losses = classifier.replay(vary(config.base, first), seed, context)
    return {f"{first}.{name}": values for name, values in losses.items()}


RECIPE = Experiment(
    name="recipe",
    question="What is each choice of the training recipe worth?",
    config_type=RecipeConfig,
    scales={
        "smoke": RecipeConfig(base=classifier.SCALES["smoke"], variants=("as it is", "no shifts")),
        "live": RecipeConfig(
            base=BASE.model_copy(update={"fit": classifier.recipe(1, 256, 0.3, 0, 1)}),
            variants=("as it is", "no mirroring"),
        ),
        "full": RecipeConfig(),
    },
    run=run,
    data=data_info,
    replay=replay,
)
