"""Chapter 5: what the shortcut buys in a net for tables, from 2 to 16 blocks."""

from __future__ import annotations

from itertools import product

from companion.experiments import tables
from companion.experiments.base import Config, Context, Experiment
from companion.experiments.tables import NetConfig, prepared
from companion.models.tabular import NormKind
from companion.runs import SeedResult
from companion.training import evaluate

KINDS = ("plain", "resnet")


class TableDepthConfig(Config):
    """What is trained on what.

    Attributes:
        datasets: ``"adult"``, ``"california"``, or both.
        norms: see :class:`companion.models.tabular.TabularResNet`.
        depths: how many blocks.
        base: the net and its recipe; norm, number of blocks and shortcut are set from outside.
        train_size: how many training rows are used; ``None`` for all.
    """

    datasets: tuple[str, ...] = ("adult", "california")
    norms: tuple[NormKind, ...] = ("layer", "batch")
    depths: tuple[int, ...] = (2, 4, 8, 16)
    base: NetConfig
    train_size: int | None = None


def vary(base: NetConfig, norm: NormKind, kind: str, depth: int) -> NetConfig:
    """``base`` with so many blocks of a norm, with (``"resnet"``) or without (``"plain"``) the shortcut.

    Example:
        >>> vary(NetConfig(kind="resnet", num_epochs=1), "batch", "plain", 4).options
        {'norm': 'batch', 'num_blocks': 4, 'residual': False}
    """
    options = base.options | {"norm": norm, "num_blocks": depth, "residual": kind == "resnet"}
    return base.model_copy(update={"options": options})


def run(config: TableDepthConfig, seed: int, context: Context) -> SeedResult:
    """Train every depth with and without the shortcut; only training and validation rows are looked at.

    Returns:
        For ``"<data set>-<norm>-<kind>-<depth>"`` the metrics and curves of
        :func:`companion.experiments.tables.train`, and ``train_loss``: of the net that was kept, over all
        training rows, without dropout (nats, or squared standard deviations of the target).
    """
    metrics: dict[str, float] = {}
    curves: dict[str, list[float]] = {}
    seconds: dict[str, float] = {}
    for dataset in config.datasets:
        table = prepared(dataset, config.train_size)
        for norm, depth, kind in product(config.norms, config.depths, KINDS):
            name = f"{dataset}-{norm}-{kind}-{depth}"
            net = vary(config.base, norm, kind, depth)
            model, result = tables.train(table, net, seed, context, name)
            loss = evaluate(model, table.splits["train"], table.objective, context.compute)["loss"]
            metrics |= {f"{name}.{metric}": value for metric, value in result.metrics.items()}
            metrics[f"{name}.train_loss"] = loss
            curves |= {f"{name}.{curve}": values for curve, values in result.curves.items()}
            seconds |= result.seconds
    return SeedResult(seed=seed, metrics=metrics, curves=curves, seconds=seconds)


def replay(config: TableDepthConfig, seed: int, context: Context) -> dict[str, list[float]]:
    """The training losses of the first steps of the shallowest residual nets."""
    norm, depth = config.norms[0], config.depths[0]
    nets = {dataset: {"resnet": vary(config.base, norm, "resnet", depth)} for dataset in config.datasets}
    losses = tables.replay(tables.TablesConfig(nets=nets, train_size=config.train_size), seed, context)
    return {
        f"{dataset}-{norm}-resnet-{depth}.first_loss": losses[f"{dataset}-resnet.first_loss"]
        for dataset in config.datasets
    }


_BASE = NetConfig(kind="resnet", options={"d_model": 128, "dropout": 0.1}, num_epochs=12, lr=1e-3)

TABLE_DEPTH = Experiment(
    name="table_depth",
    question="What does the shortcut buy in a net for tables, as it gets deeper?",
    config_type=TableDepthConfig,
    scales={
        "smoke": TableDepthConfig(
            depths=(1, 2),
            base=_BASE.model_copy(update={"options": {"d_model": 8}, "num_epochs": 1, "batch_size": 64}),
            train_size=256,
        ),
        "live": TableDepthConfig(
            datasets=("california",),
            norms=("layer",),
            depths=(2, 8, 16),
            base=_BASE.model_copy(update={"num_epochs": 3}),
        ),
        "full": TableDepthConfig(base=_BASE),
    },
    run=run,
    data=tables.data_info,
    replay=replay,
)
