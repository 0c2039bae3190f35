"""Chapter 2's experiment on trained nets: what does taking out or shuffling blocks do to the answers?

Source: A. Veit, M. Wilber and S. Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow
Networks", NeurIPS 2016, section 4.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from torch import nn

from companion.compute import seed_everything
from companion.experiments.base import Config, Context, Experiment
from companion.experiments.degradation import SCALES as DEGRADATION_SCALES
from companion.experiments.degradation import DegradationConfig, build, data_info, prepare
from companion.models.resnet import CifarResNet
from companion.runs import SeedResult
from companion.training import FitConfig, evaluate

Place = tuple[int, int]  # a block's stage and its index in the stage


class LesionConfig(Config):
    """What is trained and what is done to it."""

    base: DegradationConfig  #: the nets, the images and the recipe
    #: how many blocks are dropped at once, or how many pairs of blocks change places
    counts: tuple[int, ...] = (1, 2, 4, 8, 12)
    repeats: int = 5  #: how many random draws each count is averaged over


def unchanging(model: CifarResNet) -> list[Place]:
    """The blocks whose output has the shape of their input, from the first on."""
    return [
        (stage, index)
        for stage, blocks in enumerate(model.blocks())
        for index, block in enumerate(blocks)
        if block.conv1.in_channels == block.conv2.out_channels and block.conv1.stride == (1, 1)
    ]


def without(model: CifarResNet, places: Sequence[Place]) -> CifarResNet:
    """A copy of ``model`` in which the blocks at ``places`` pass their input on unchanged."""
    lesioned = copy.deepcopy(model)
    for stage, index in places:
        lesioned.stages[stage][index] = nn.Identity()
    return lesioned


def shuffled(model: CifarResNet, pairs: Sequence[tuple[Place, Place]]) -> CifarResNet:
    """A copy of ``model`` in which the blocks of each pair have changed places, one pair after another."""
    lesioned = copy.deepcopy(model)
    for (a, i), (b, j) in pairs:
        first, second = lesioned.stages[a], lesioned.stages[b]
        first[i], second[j] = second[j], first[i]
    return lesioned


def _random_pair(places: list[Place], rng: np.random.Generator) -> tuple[Place, Place]:
    """Two different blocks of one stage, which therefore fit each other's place."""
    stages = [[p for p in places if p[0] == stage] for stage in sorted({p[0] for p in places})]
    stages = [stage for stage in stages if len(stage) > 1]
    chosen = stages[rng.integers(len(stages))]
    first, second = rng.choice(len(chosen), 2, replace=False)
    return chosen[first], chosen[second]


def run(config: LesionConfig, seed: int, context: Context) -> SeedResult:
    """Train each net and measure its validation error whole, and after each lesion.

    ``removed`` has one error for each unchanging block taken out alone, ``dropped`` and ``shuffled`` the mean
    error for each of ``counts``, as far as the net has blocks.
    """
    splits, objective = prepare(config.base)
    validation = tuple(t[: config.base.eval_size] for t in splits["validation"])
    result = SeedResult(seed=seed)

    def error(model: nn.Module) -> float:
        return evaluate(model, validation, objective, context.compute)["error"]

    for net in config.base.nets:
        seed_everything(seed)
        model = build(net)
        context.fit(net, model, splits["train"], objective, config.base.fit, seed, result=result)
        places, rng = unchanging(model), np.random.default_rng(seed)
        removed = [error(without(model, [place])) for place in places]
        dropped, mixed = [], []
        for count in (count for count in config.counts if count <= len(places)):
            draws = range(config.repeats)
            chosen = [rng.choice(len(places), count, replace=False) for _ in draws]
            dropped.append(np.mean([error(without(model, [places[i] for i in each])) for each in chosen]))
            pairs = [[_random_pair(places, rng) for _ in range(count)] for _ in draws]
            mixed.append(np.mean([error(shuffled(model, each)) for each in pairs]))
        for name, values in (("removed", removed), ("dropped", dropped), ("shuffled", mixed)):
            result.curves[f"{net}.{name}"] = [float(value) for value in values]
        result.metrics[f"{net}.whole"] = error(model)
        result.metrics[f"{net}.removed_mean"] = float(np.mean(removed))
        result.metrics[f"{net}.removed_max"] = max(removed)
    return result


_LIVE = DEGRADATION_SCALES["live"].model_copy(
    update={"nets": ("plain-20", "resnet-20", "resnet-56"), "eval_size": 1000}
)
_FULL_FIT = FitConfig(num_steps=3000, batch_size=128, lr=0.1, warmup_steps=100, schedule="linear")

LESION = Experiment("lesion", "What happens to a trained net when blocks are taken out or change places?", {
    "smoke": LesionConfig(
        base=DEGRADATION_SCALES["smoke"].model_copy(update={"nets": ("plain-14", "resnet-14", "resnet-20")}),
        counts=(1, 2), repeats=2,
    ),
    "live": LesionConfig(base=_LIVE, repeats=2),
    "full": LesionConfig(base=_LIVE.model_copy(update={"fit": _FULL_FIT, "eval_size": 2000})),
}, run, data_info)  # fmt: skip
