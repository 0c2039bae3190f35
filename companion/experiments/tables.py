"""Chapters 5 and 8: nets of five kinds and gradient boosting on two real tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import product
from typing import Any, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from companion.compute import seed_everything
from companion.data.tables import Table, load_adult, load_california, load_small
from companion.experiments.base import Config, Context, data_info, from_table
from companion.models.resnet import count_parameters
from companion.models.tabular import NormKind, TabularResNet
from companion.models.tabular_baselines import make_table_net
from companion.objectives.tables import PreparedTable, boosting, predict, prepare, score
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, evaluate

LOADERS: dict[str, Callable[[], Table]] = {"adult": load_adult, "california": load_california} | {
    name: partial(load_small, name) for name in ("diamonds", "pm25", "phoneme", "abalone", "wine")
}
BOOSTING = "boosting"


class NetConfig(Config):
    """One net and how it is trained: AdamW with a warm-up and a cosine, the best epoch on validation kept."""

    kind: str  #: see :func:`companion.models.tabular_baselines.make_table_net`
    options: dict[str, bool | int | float | str] = Field(default_factory=dict)  #: of the net
    num_epochs: int  #: passes over the training rows
    lr: float = 1e-3  #: the highest learning rate
    weight_decay: float = 1e-5  #: of AdamW
    batch_size: int = 256  #: rows in a step
    seed_offset: int = 0  #: added to the seed, for a second net of the same kind

    def fit(self, num_rows: int) -> FitConfig:
        """The recipe for a table with so many training rows."""
        epoch = max(1, num_rows // self.batch_size)
        num_steps = self.num_epochs * epoch
        return FitConfig(
            num_steps=num_steps, batch_size=self.batch_size, lr=self.lr, optimizer="adamw",
            weight_decay=self.weight_decay, warmup_steps=min(100, num_steps // 10), schedule="cosine",
            eval_every=epoch, checkpoint_every=5 * epoch, patience=self.num_epochs, monitor="error",
        )  # fmt: skip


class TablesConfig(Config):
    """What is trained on what."""

    nets: dict[str, dict[str, NetConfig]]  #: the nets of each data set, by name
    train_size: int | None = None  #: how many training rows are used; ``None`` for all
    boosting: bool = True  #: whether gradient boosting is fitted, too
    ensembles: tuple[tuple[str, ...], ...] = ()  #: names of models whose predictions are averaged


@cache
def prepared(name: str, train_size: int | None = None) -> PreparedTable:
    """A table as tensors, with at most so many of its training rows, drawn at random once and for all."""
    table = LOADERS[name]()
    if train_size is not None and len(table.train) > train_size:
        kept = np.random.default_rng(0).choice(table.train, train_size, replace=False)
        table = replace(table, train=np.sort(kept))
    return prepare(table)


def info(*names: str) -> DataInfo:
    """Several tables at once, all if none are named; synthetic if one of them is."""
    return data_info(*(LOADERS[name]() for name in names or LOADERS))


def both(table: PreparedTable, model: nn.Module, context: Context) -> dict[str, np.ndarray]:
    """A net's predictions for validation and test rows."""
    return {part: predict(model, table, part, context.compute) for part in ("validation", "test")}


def build(
    table: PreparedTable, kind: str, options: Mapping[str, Any], seed: int,
    embed: Callable[[Tensor], Any] | None = None, outputs: int = 0,
) -> nn.Module:  # fmt: skip
    """A net with the weights of ``seed``; ``embed`` makes embeddings of the training numbers."""
    seed_everything(seed)
    numbers, outputs = table.splits["train"][0], outputs or table.objective.num_classes or 1
    sizes = (numbers.shape[1], table.encoder.categorical_cardinalities, outputs)
    return make_table_net(kind, *sizes, num_embeddings=embed(numbers) if embed else None, **options)


def start_near_identity(net: nn.Module, scale: float) -> None:
    """Let every pre-norm block of a ``TabularResNet`` start as little more than its norm.

    Since ``relu(x) - relu(-x) = x``, the first layer of a block gets x and -x as its 2 d features, and the
    second subtracts them; the random weights and biases are added, ``scale`` times as large.
    """
    for block in cast(TabularResNet, net).blocks:
        first, second = cast(nn.Linear, block.linear1), cast(nn.Linear, block.linear2)
        both = torch.eye(first.in_features).repeat(2, 1)  # (2 d, d)
        both[first.in_features :] *= -1
        with torch.no_grad():
            for layer, identity in ((first, both), (second, both.T)):
                layer.weight.mul_(scale).add_(identity)
                layer.bias.mul_(scale)


def fit_net(
    name: str, model: nn.Module, table: PreparedTable, config: FitConfig, seed: int, context: Context,
    result: SeedResult | None = None,
) -> np.ndarray:  # fmt: skip
    """Train a net up to its best look at the validation rows, and give the error of every look."""
    held = table.splits["validation"]
    history = context.fit(
        name, model, table.splits["train"], table.objective, config, seed, result=result,
        evaluation=lambda net: evaluate(net, held, table.objective, context.compute, 4096),
    )  # fmt: skip
    return np.array(history.evaluations["error"])


def train(
    table: PreparedTable, net: NetConfig, seed: int, context: Context, name: str,
    near_identity: float | None = None,
) -> tuple[nn.Module, SeedResult]:  # fmt: skip
    """Train one net and keep its best epoch, counted from 1; the test split is not touched.

    ``validation``, as a metric and a curve with one value an epoch, is the accuracy, or the root mean squared
    error in the target's unit. ``near_identity`` is the scale of :func:`start_near_identity`, if it is to be.
    """
    own, result, config = seed + net.seed_offset, SeedResult(seed=seed), net.fit(len(table.table.train))
    model = build(table, net.kind, net.options, own)
    if near_identity is not None:
        start_near_identity(model, near_identity)
    errors = fit_net(name, model, table, config, own, context, result)
    classify = table.objective.num_classes is not None
    curve = 1 - errors if classify else np.sqrt(errors) * table.target_std
    result.metrics.update(
        validation=score(table, "validation", predict(model, table, "validation", context.compute)),
        best_epoch=float(errors.argmin() + 1), parameters=float(count_parameters(model)),
    )  # fmt: skip
    result.curves["validation"] = [round(float(value), 5) for value in curve]
    result.curves["first_loss"] = result.curves.pop(f"{name}.first_loss")
    return model, result


def run(config: TablesConfig, seed: int, context: Context) -> SeedResult:
    """Train every net on its data set, fit the boosting, and average the ensembles; look at the test once."""
    whole = SeedResult(seed=seed)
    for dataset, nets in config.nets.items():
        table = prepared(dataset, config.train_size)
        predictions = {}
        for name, net in nets.items():
            model, result = train(table, net, seed, context, f"{dataset}-{name}")
            predictions[name] = both(table, model, context)
            whole.include(f"{dataset}-{name}", result)
        if config.boosting:
            predictions[BOOSTING], trees = boosting(table, seed)
            whole.metrics[f"{dataset}-{BOOSTING}.trees"] = float(trees)
        for members in config.ensembles:
            if all(name in predictions for name in members):
                predictions["+".join(members)] = {
                    part: np.mean([predictions[name][part] for name in members], axis=0)
                    for part in ("validation", "test")
                }
        for (name, each), part in product(predictions.items(), ("validation", "test")):
            whole.metrics[f"{dataset}-{name}.{part}"] = score(table, part, each[part])
    return whole


_BOTH = partial(info, "adult", "california")
TABLES = from_table("tables", TablesConfig, run, _BOTH)
TABLE_DUEL = from_table("table_duel", TablesConfig, run, _BOTH)
TABLES_LONGER = from_table("tables_longer", TablesConfig, run, partial(info, "california"))
TAB_TRANSFORMER = from_table("tab_transformer", TablesConfig, run, _BOTH)


class TableDepthConfig(Config):
    """What is trained on what."""

    datasets: tuple[str, ...] = ("adult", "california")  #: ``"adult"``, ``"california"``, or both
    norms: tuple[NormKind, ...] = ("layer", "batch")  #: see :class:`companion.models.tabular.TabularResNet`
    depths: tuple[int, ...] = (2, 4, 8, 16)  #: how many blocks
    base: NetConfig  #: the net and its recipe; norm, number of blocks and shortcut are set from outside
    train_size: int | None = None  #: how many training rows are used; ``None`` for all


def run_depth(
    config: TableDepthConfig, seed: int, context: Context, kinds: Sequence[str] = ("plain", "resnet")
) -> SeedResult:
    """Train every depth with and without the shortcut; only training and validation rows are looked at.

    A third kind, ``"identity"``, are plain nets that start near the identity. ``train_loss`` is that of the
    kept net over all training rows, without dropout (nats, or the target's variances).
    """
    whole = SeedResult(seed=seed)
    for dataset in config.datasets:
        table = prepared(dataset, config.train_size)
        for norm, depth, kind in product(config.norms, config.depths, kinds):
            name = f"{dataset}-{norm}-{kind}-{depth}"
            options = {"norm": norm, "num_blocks": depth, "residual": kind == "resnet"}
            net = config.base.model_copy(update={"options": config.base.options | options})
            model, result = train(table, net, seed, context, name, 0.1 if kind == "identity" else None)
            losses = evaluate(model, table.splits["train"], table.objective, context.compute)
            result.metrics["train_loss"] = losses["loss"]
            whole.include(name, result)
    return whole


TABLE_DEPTH = from_table("table_depth", TableDepthConfig, run_depth, _BOTH)
TABLE_DEPTH_LONG = from_table(
    "table_depth_long", TableDepthConfig, partial(run_depth, kinds=("plain", "resnet", "identity")),
    partial(info, "california"),
)  # fmt: skip
