"""Chapters 1 and 2: why deep plain nets are hard to train, and what shortcuts change."""

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from companion.compute import seed_everything
from companion.experiments.base import Config, Context, from_table, window_means
from companion.experiments.degradation import DEGRADATION, DegradationConfig, build, data_info, prepare
from companion.models.blocks import BasicResidualBlock, zero_residual
from companion.models.resnet import CifarResNet
from companion.objectives.classification import Batch, ImageClassification
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, evaluate

VARIANTS = ("no norm, PyTorch's init", "no norm, He's init", "batch norm, He's init")


class GradientsConfig(Config):
    """What is measured and how."""

    depth: int = 56  #: of the nets
    batch_size: int = 128  #: images in the batch that the gradients are taken on
    trained: bool = True  #: whether the nets with batch norm are also trained by ``fit``, and measured again
    fit: FitConfig


def make_net(variant: str, depth: int, residual: bool) -> CifarResNet:
    """A net of one of the ``VARIANTS``; PyTorch's initial weights have a sixth of the variance of He's."""
    model = CifarResNet(depth, residual=residual, norm=variant.startswith("batch"))
    if "PyTorch" in variant:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return model


def _backward(
    model: CifarResNet, batch: Batch, objective: ImageClassification, context: Context,
    kind: str, hook: Callable[..., None],
) -> None:  # fmt: skip
    """One forward and backward pass in training mode, float32, with a hook of a kind on every block."""
    context.compute.model(model).train().zero_grad(set_to_none=True)
    blocks = [block for stage in model.blocks() for block in stage]
    handles = [getattr(block, f"register_{kind}_hook")(hook) for block in blocks]
    loss = objective(model, tuple(t.to(context.compute.device) for t in batch), None)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    for handle in handles:
        handle.remove()


def signals(
    model: CifarResNet, batch: Batch, objective: ImageClassification, context: Context
) -> dict[str, list[float]]:
    """How large the signals of one forward and backward pass are, on one batch, first layers first.

    ``weights``: the norm of the loss's gradient in each convolution's weights; ``steps``: the same as a share
    of the norm of these weights; ``activations`` and ``gradients``: the root mean square of each block's
    output, and of the loss's gradient in it. Squares are summed in float64.
    """
    outputs: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    _backward(model, batch, objective, context, "forward", keep)

    def norm(tensor: Tensor | None) -> float:
        assert tensor is not None
        return float(tensor.detach().cpu().double().norm())

    convolutions = [m.weight for m in model.modules() if isinstance(m, nn.Conv2d)]
    weights = [norm(weight.grad) for weight in convolutions]
    return {
        "weights": weights,
        "steps": [each / norm(weight) for each, weight in zip(weights, convolutions, strict=True)],
        "activations": [norm(out) / out.numel() ** 0.5 for out in outputs],
        "gradients": [norm(out.grad) / out.numel() ** 0.5 for out in outputs],
    }


def gradient_flow(
    model: CifarResNet, batch: Batch, objective: ImageClassification, context: Context
) -> dict[str, list[float]]:
    """How the loss's gradient changes on its way back through each block that keeps the shape.

    With ``before`` the gradient in a block's output and ``after`` that in its input, a residual block
    without an activation behind the addition has ``after = before + (what comes through F)``. Gives, for each
    block from the first on, ``cosine``, of their angle, and ``ratio``, the norm of ``after - before`` as a
    share of that of ``before``.
    """
    flow: dict[str, list[float]] = {"cosine": [], "ratio": []}

    def measure(_: nn.Module, inputs: tuple[Tensor], outputs: tuple[Tensor]) -> None:
        if inputs[0].shape == outputs[0].shape:
            a, b = inputs[0].double().flatten(), outputs[0].double().flatten()  # after, before
            flow["cosine"].insert(0, float(a @ b / (a.norm() * b.norm())))  # it meets the last block first
            flow["ratio"].insert(0, float((a - b).norm() / b.norm()))

    _backward(model, batch, objective, context, "full_backward", measure)
    return flow


def run_gradients(config: GradientsConfig, seed: int, context: Context) -> SeedResult:
    """Measure the :func:`signals` of plain and residual nets at the start, and after some training.

    The curves are ``"<net>.start.<signal>"`` and ``"<net>.trained.<signal>"``; the metric of a curve's name
    is the ratio of its first to its last value.
    """
    splits, objective = prepare(DEGRADATION.scales["live"])
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(splits["train"][0]), (config.batch_size,), generator=generator)
    batch = tuple(t[chosen] for t in splits["train"])
    result = SeedResult(seed=seed)
    for variant in VARIANTS:
        for kind in ("plain", "resnet"):
            what = f"{kind}, {variant}"
            seed_everything(seed)
            model = make_net(variant, config.depth, residual=kind == "resnet")
            moments = {"start": signals(model, batch, objective, context)}
            if config.trained and variant.startswith("batch"):
                context.fit(what, model, splits["train"], objective, config.fit, seed, result=result)
                moments["trained"] = signals(model, batch, objective, context)
            found = {f"{what}.{moment}.{k}": v for moment, own in moments.items() for k, v in own.items()}
            result.curves.update(found)
            result.metrics.update({name: each[0] / max(each[-1], 1e-30) for name, each in found.items()})
    return result


GRADIENTS = from_table("gradients", GradientsConfig, run_gradients, data_info)


WIDTH, SIZE = 16, 8
KINDS = ("plain", "residual", "residual, zero start")  # of stacks


class IdentityConfig(Config):
    """What is trained and how."""

    num_blocks: tuple[int, ...] = (2, 8)  #: the heights of the stacks, two 3x3 convolutions a block
    num_examples: int = 2048  #: how many random inputs there are
    fit: FitConfig  #: the recipe, the same for all stacks
    points: int = 50  #: how many points a curve is averaged down to


def relative_error(model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
    """Mean squared difference of output and input, as a share of the input's variance."""
    (x,) = batch
    return {"loss": F.mse_loss(model(x).float(), x) / x.var()}


def run_identity(config: IdentityConfig, seed: int, context: Context) -> SeedResult:
    """Train each kind of stack at each height to return its input; ``final_loss`` is of the last tenth.

    The inputs are random non-negative feature maps with neighbouring positions alike, always the same.
    """
    result, generator = SeedResult(seed=seed), torch.Generator().manual_seed(0)
    noise = torch.randn(config.num_examples, WIDTH, SIZE, SIZE, generator=generator)
    maps = F.relu(F.avg_pool2d(noise, 3, stride=1, padding=1) * 3)
    for height in config.num_blocks:
        for kind in KINDS:
            what = f"{kind}-{height}"
            seed_everything(seed)
            shortcut: Literal["A"] | None = None if kind == "plain" else "A"
            blocks = [BasicResidualBlock(WIDTH, WIDTH, shortcut=shortcut) for _ in range(height)]
            for block in blocks if kind == "residual, zero start" else ():
                zero_residual(block)
            stack = nn.Sequential(*blocks)
            history = context.fit(what, stack, (maps,), relative_error, config.fit, seed, result=result)
            losses = history.train["loss"]
            result.curves[f"{what}.loss"] = window_means(losses, config.points)
            result.metrics[f"{what}.first_loss"] = losses[0]
            result.metrics[f"{what}.final_loss"] = window_means(losses, 10)[-1]
    return result


RANDOM_MAPS = DataInfo(name="random feature maps", source="generated", digest="", synthetic=False)
IDENTITY = from_table("identity", IdentityConfig, run_identity, lambda: RANDOM_MAPS)


# after Veit, Wilber and Belongie, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks",
# NeurIPS 2016, section 4

Place = tuple[int, int]  # a block's stage and its index in the stage


class LesionConfig(Config):
    """What is trained and what is done to it."""

    base: DegradationConfig  #: the nets, the images and the recipe
    counts: tuple[int, ...] = (1, 2, 4, 8, 12)  #: of blocks dropped at once, or pairs that change places
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


def run_lesion(config: LesionConfig, seed: int, context: Context) -> SeedResult:
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


LESION = from_table("lesion", LesionConfig, run_lesion, data_info)
