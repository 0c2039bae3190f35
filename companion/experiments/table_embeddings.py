"""Chapter 8: nets with and without embeddings of numbers, boosting and a linear model on seven tables."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from itertools import product

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import nn

from companion.data.tables import Table, load_small
from companion.experiments import base, tables
from companion.experiments.base import Config, Context, Experiment
from companion.experiments.tables import BOOSTING
from companion.models.tabular_baselines import piecewise_linear
from companion.objectives.tables import PreparedTable, boosting, predict, prepare, score
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, evaluate

LOADERS: dict[str, Callable[[], Table]] = tables.LOADERS | {
    name: partial(load_small, name) for name in ("diamonds", "pm25", "phoneme", "abalone", "wine")
}
LINEAR, EMBEDDED = "linear", "+embeddings"


class EmbeddingsConfig(Config):
    """One recipe for every table: AdamW at a constant rate until validation no longer gets better."""

    tables: tuple[str, ...] = tuple(LOADERS)  #: which, of ``LOADERS``
    #: the options of each kind of net, see :func:`companion.models.tabular_baselines.make_table_net`
    nets: dict[str, dict[str, int | float | str]]
    train_size: int = 10_000  #: training rows that are used of a larger table, drawn once
    d_embedding: int = 8  #: features in the embedding of a number
    n_bins: int = 32  #: bends in it, at most
    lr: float = 2e-3  #: the learning rate, constant after a short warm-up
    weight_decay: float = 1e-4  #: of AdamW
    batch_size: int = 256  #: rows in a step
    eval_every: int = 60  #: steps between looks at the validation rows
    patience: int = 5  #: looks without a new best after which training ends
    most: int = 40  #: looks after which it ends in any case

    def fit(self) -> FitConfig:
        """The recipe of every net."""
        return FitConfig(
            num_steps=self.most * self.eval_every, batch_size=self.batch_size, lr=self.lr,
            optimizer="adamw", weight_decay=self.weight_decay, warmup_steps=20, eval_every=self.eval_every,
            checkpoint_every=self.most * self.eval_every, patience=self.patience, monitor="error",
        )  # fmt: skip


@cache
def prepared(name: str, train_size: int) -> PreparedTable:
    """A table as tensors, with at most so many of its training rows, drawn at random once and for all."""
    table = LOADERS[name]()
    if len(table.train) > train_size:
        kept = np.random.default_rng(0).choice(table.train, train_size, replace=False)
        table = replace(table, train=np.sort(kept))
    return prepare(table)


def data_info() -> DataInfo:
    """All tables at once; synthetic if one of them is."""
    loaded = [load() for load in LOADERS.values()]
    return base.data_info(*loaded, name=", ".join(table.name for table in loaded))


def linear(table: PreparedTable) -> dict[str, np.ndarray]:
    """Predictions of ridge or logistic regression on numbers and one-hot categories, by split."""
    classify, sizes = table.objective.num_classes is not None, table.encoder.categorical_cardinalities
    rows = {
        part: torch.cat([numbers, *map(F.one_hot, columns.unbind(dim=1), sizes)], dim=1).numpy()
        for part, (numbers, columns, _) in table.splits.items()
    }
    model = LogisticRegression(max_iter=1000) if classify else Ridge()
    model.fit(rows["train"], table.table.target[table.table.train])
    return {part: (model.predict_proba if classify else model.predict)(x) for part, x in rows.items()}


def sampling_error(table: PreparedTable, first: np.ndarray, second: np.ndarray, repeats: int = 200) -> float:
    """The standard deviation of the difference of two models' test scores over resampled test rows."""
    target = table.table.target[table.table.test]
    classify, rows = table.objective.num_classes is not None, len(target)
    losses = [
        (each.argmax(axis=1) == target).astype(float) if classify else (each - target).astype(float) ** 2
        for each in (first, second)
    ]
    counts = np.random.default_rng(0).multinomial(rows, np.full(rows, 1 / rows), size=repeats)
    means = [counts @ loss / rows for loss in losses]
    one, other = means if classify else np.sqrt(means)
    return float(np.std(one - other))


def train(
    table: PreparedTable, kind: str, embedded: bool, config: EmbeddingsConfig, seed: int, context: Context
) -> tuple[nn.Module, SeedResult]:
    """One net as it was at its best look at the validation rows, the number ``best`` of its ``looks``."""
    embed = partial(piecewise_linear, d_embedding=config.d_embedding, n_bins=config.n_bins)
    model = tables.build(table, kind, config.nets[kind], seed, embed if embedded else None)
    result, held = SeedResult(seed=seed), table.splits["validation"]
    name = f"{table.table.name}-{kind}{EMBEDDED * embedded}"
    history = context.fit(
        name, model, table.splits["train"], table.objective, config.fit(), seed, result=result,
        evaluation=lambda net: evaluate(net, held, table.objective, context.compute, 4096),
    )  # fmt: skip
    errors = history.evaluations["error"]
    result.metrics[f"{name}.best"] = float(np.argmin(errors) + 1)
    result.metrics[f"{name}.looks"] = float(len(errors))
    return model, result


def run(config: EmbeddingsConfig, seed: int, context: Context) -> SeedResult:
    """Train the nets on every table, with and without embeddings; look at the test once.

    ``sampling`` is the sampling error of the difference to boosting, ``sampling_plain`` of the difference to
    the same net without embeddings.
    """
    whole = SeedResult(seed=seed)
    for name in config.tables:
        table = prepared(name, config.train_size)
        predictions = {LINEAR: linear(table), BOOSTING: boosting(table, seed)[0]}
        for kind, embedded in product(config.nets, (False, True)):
            model, result = train(table, kind, embedded, config, seed, context)
            for part in ("metrics", "curves", "seconds"):
                getattr(whole, part).update(getattr(result, part))
            predictions[kind + EMBEDDED * embedded] = {
                part: predict(model, table, part, context.compute) for part in ("validation", "test")
            }
        for model_name, each in predictions.items():
            key = f"{name}-{model_name}"
            for part in ("validation", "test"):
                whole.metrics[f"{key}.{part}"] = score(table, part, each[part])
            rivals = {"sampling": BOOSTING, "sampling_plain": model_name.removesuffix(EMBEDDED)}
            for metric, rival in rivals.items():
                if rival != model_name:
                    error = sampling_error(table, each["test"], predictions[rival]["test"])
                    whole.metrics[f"{key}.{metric}"] = error
    return whole


_NETS: dict[str, dict[str, int | float | str]] = {
    "mlp": {"d_model": 128, "num_layers": 2, "dropout": 0.1},
    "resnet": {"d_model": 64, "num_blocks": 2, "dropout": 0.1, "norm": "batch"},
    "tabm": {"k": 8, "d_block": 64, "n_blocks": 2, "dropout": 0.1},
}
TABLE_EMBEDDINGS = Experiment(
    "table_embeddings", "Do embeddings of numbers bring nets for tables level with boosting?", {
    "smoke": EmbeddingsConfig(
        tables=("adult", "california"), nets={kind: tables.SMALL[kind] for kind in _NETS}, train_size=200,
        d_embedding=2, n_bins=4, batch_size=64, eval_every=2, most=2,
    ),
    "live": EmbeddingsConfig(tables=("california",), nets=_NETS, most=10),
    "full": EmbeddingsConfig(nets=_NETS),
}, run, data_info)  # fmt: skip
