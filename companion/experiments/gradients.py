"""Chapter 1's experiment on gradients: how large are they in each layer, and what decides it?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from companion.compute import seed_everything
from companion.experiments.base import Config, Context, Experiment
from companion.experiments.degradation import SCALES as DEGRADATION_SCALES
from companion.experiments.degradation import data_info, prepare
from companion.models.resnet import CifarResNet
from companion.objectives.classification import Batch, ImageClassification
from companion.runs import SeedResult
from companion.training import FitConfig, fit

VARIANTS = ("no norm, PyTorch's init", "no norm, He's init", "batch norm, He's init")
"""The nets differ in batch normalisation and in the spread of their initial weights."""


class GradientsConfig(Config):
    """What is measured and how.

    Attributes:
        depth: of the nets.
        batch_size: images in the batch that the gradients are taken on.
        trained: whether the nets with batch norm are also trained, and measured again.
        fit: the recipe of that training.
    """

    depth: int = 56
    batch_size: int = 128
    trained: bool = True
    fit: FitConfig = FitConfig(num_steps=40, batch_size=128, lr=0.03, warmup_steps=20)


def build(variant: str, depth: int, residual: bool) -> CifarResNet:
    """A net of one of the :data:`VARIANTS`.

    PyTorch's own initial weights of a convolution have a sixth of the variance of He's: the signal
    shrinks from layer to layer where no norm restores it.
    """
    model = CifarResNet(depth, residual=residual, norm=variant.startswith("batch"))
    if "PyTorch" in variant:
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.reset_parameters()
    return model


def gradient_norms(
    model: nn.Module, batch: Batch, objective: ImageClassification, context: Context
) -> list[float]:
    """The Euclidean norm of the loss's gradient in each convolution's weights, from the first layer on.

    In float32 and training mode, on one batch. The squares are summed in float64, as some are tiny. The
    model's running statistics move as in training.
    """
    model = context.compute.model(model).train()
    model.zero_grad(set_to_none=True)
    loss = objective(model, tuple(t.to(context.compute.device) for t in batch), None)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [float(m.weight.grad.cpu().double().norm()) for m in convolutions if m.weight.grad is not None]
    model.zero_grad(set_to_none=True)
    return norms


def gradient_flow(
    model: CifarResNet, batch: Batch, objective: ImageClassification, context: Context
) -> dict[str, list[float]]:
    """How the loss's gradient changes on its way back through each block that keeps the shape.

    With ``before`` the gradient in a block's output and ``after`` that in its input, a residual block
    without an activation behind the addition has ``after = before + (what comes through F)``.

    Returns:
        ``cosine``, of the angle between ``before`` and ``after``, and ``ratio``, the norm of
        ``after - before`` as a share of the norm of ``before``; one number a block, from the first on.
    """
    context.compute.model(model).train()
    cosine: list[float] = []
    ratio: list[float] = []

    def look(_: nn.Module, inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> None:
        after, before = inputs[0], outputs[0]
        if after is not None and before is not None and after.shape == before.shape:
            a, b = after.double().flatten(), before.double().flatten()
            cosine.append(float(a @ b / (a.norm() * b.norm())))
            ratio.append(float((a - b).norm() / b.norm()))

    hooks = [block.register_full_backward_hook(look) for stage in model.blocks() for block in stage]
    loss = objective(model, tuple(t.to(context.compute.device) for t in batch), None)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    for hook in hooks:
        hook.remove()
    model.zero_grad(set_to_none=True)
    return {"cosine": cosine[::-1], "ratio": ratio[::-1]}  # the gradient meets the last block first


def run(config: GradientsConfig, seed: int, context: Context) -> SeedResult:
    """Measure gradient norms of plain and residual nets at the start, and after some training.

    Returns:
        The curves ``"<plain|resnet>, <variant>.start"`` and, for batch norm, ``".trained"``: one norm a
        convolution. As metrics the ratio of the first layer's norm to the last's, under the same names.
    """
    splits, objective = prepare(DEGRADATION_SCALES["live"])
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randint(len(splits["train"][0]), (config.batch_size,), generator=generator)
    batch = tuple(t[chosen] for t in splits["train"])
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for variant in VARIANTS:
        for kind in ("plain", "resnet"):
            what = f"{kind}, {variant}"
            seed_everything(seed)
            model = build(variant, config.depth, residual=kind == "resnet")
            curves[f"{what}.start"] = gradient_norms(model, batch, objective, context)
            if config.trained and variant.startswith("batch"):
                history = fit(
                    model,
                    splits["train"],
                    objective,
                    config.fit,
                    compute=context.compute,
                    seed=seed,
                    checkpoint=context.checkpoint(what),
                    progress=f"{kind}-{config.depth}" if context.progress else None,
                )
                seconds[what] = round(history.seconds, 2)
                curves[f"{what}.trained"] = gradient_norms(model, batch, objective, context)
    metrics = {name: norms[0] / max(norms[-1], 1e-30) for name, norms in curves.items()}
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


GRADIENTS = Experiment(
    name="gradients",
    question="Do gradients vanish in deep plain nets, and does batch normalisation keep them alive?",
    config_type=GradientsConfig,
    scales={
        "smoke": GradientsConfig(depth=14, batch_size=16, fit=FitConfig(num_steps=3, batch_size=16)),
        "live": GradientsConfig(),
        "full": GradientsConfig(fit=GradientsConfig().fit.model_copy(update={"num_steps": 1000})),
    },
    run=run,
    data=data_info,
)
