"""Chapter 8: nets with and without embeddings of numbers, boosting and a linear model on seven tables."""

import time
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from companion.experiments import tables
from companion.experiments.base import Config, Context, from_table
from companion.experiments.tables import BOOSTING, LOADERS, both, info, prepared
from companion.models.tabular_baselines import SoftNeighbors, piecewise_linear
from companion.objectives.tables import PreparedTable, boosting, lightgbm, realmlp, score
from companion.runs import SeedResult
from companion.training import FitConfig

LINEAR, EMBEDDED, NEIGHBORS, LIGHTGBM, REALMLP = "linear", "+embeddings", "neighbors", "lightgbm", "realmlp"


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

    def embed(self, rows: Tensor) -> Any:
        """Embeddings of numbers for the training ``rows``."""
        return piecewise_linear(rows, self.d_embedding, self.n_bins)


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


def looks(name: str, errors: np.ndarray) -> dict[str, float]:
    """Which look at the validation rows was the best one, counted from 1, and how many there were."""
    return {f"{name}.best": float(errors.argmin() + 1), f"{name}.looks": float(len(errors))}


def judge(table: PreparedTable, predictions: dict[str, dict[str, np.ndarray]]) -> dict[str, float]:
    """The scores of all models on one table, and ``sampling``, the sampling error of a lead over boosting.

    ``sampling_plain`` is that of the difference to the same net without embeddings.
    """
    metrics: dict[str, float] = {}
    for model_name, each in predictions.items():
        key = f"{table.table.name}-{model_name}"
        metrics |= {f"{key}.{part}": score(table, part, each[part]) for part in ("validation", "test")}
        rivals = {"sampling": BOOSTING, "sampling_plain": model_name.removesuffix(EMBEDDED)}
        for metric, rival in rivals.items():
            if rival != model_name:
                metrics[f"{key}.{metric}"] = sampling_error(table, each["test"], predictions[rival]["test"])
    return metrics


def run(config: EmbeddingsConfig, seed: int, context: Context) -> SeedResult:
    """Train the nets on every table, with and without embeddings; look at the test once."""
    whole = SeedResult(seed=seed)
    for name in config.tables:
        table = prepared(name, config.train_size)
        predictions = {LINEAR: linear(table), BOOSTING: boosting(table, seed)[0]}
        for kind, embedded in product(config.nets, (False, True)):
            embed, called = config.embed if embedded else None, kind + EMBEDDED * embedded
            model = tables.build(table, kind, config.nets[kind], seed, embed)
            key = f"{name}-{called}"
            errors = tables.fit_net(key, model, table, config.fit(), seed, context, whole)
            whole.metrics.update(looks(key, errors))
            predictions[called] = both(table, model, context)
        whole.metrics.update(judge(table, predictions))
    return whole


class RivalsConfig(EmbeddingsConfig):
    """The same tables, rows and recipe for a net whose answers are those of neighbors, and LightGBM."""

    d_space: int = 128  #: features of the space in which rows are neighbors
    share: float = 0.1  #: of the training rows, which is asked in a step
    trees: dict[str, int | float]  #: options of LightGBM for numbers
    class_trees: dict[str, int | float]  #: for classes
    tree_patience: int = 300  #: trees without gain after which there come no more


def run_rivals(config: RivalsConfig, seed: int, context: Context) -> SeedResult:
    """Train the net that asks neighbors, and LightGBM on every table; look at the test once."""
    whole = SeedResult(seed=seed)
    for name in config.tables:
        table = prepared(name, config.train_size)
        net = tables.build(table, "resnet", config.nets["resnet"], seed, config.embed, config.d_space)
        classes = table.objective.num_classes
        model = SoftNeighbors(net, table.splits["train"], classes, config.share)
        key = f"{name}-{NEIGHBORS}"
        whole.metrics.update(
            looks(key, tables.fit_net(key, model, table, config.fit(), seed, context, whole))
        )
        predictions = {NEIGHBORS: both(table, model, context)}
        options, began = config.class_trees if classes else config.trees, time.perf_counter()
        predictions[LIGHTGBM] = lightgbm(table, config.tree_patience, seed, **options)
        whole.seconds[f"{name}-{LIGHTGBM}"] = round(time.perf_counter() - began, 2)
        predictions[BOOSTING] = boosting(table, seed)[0]  # for the sampling error of leads over it
        whole.metrics.update(judge(table, predictions))
    return whole


class RealMLPConfig(Config):
    """The same tables and rows for RealMLP, which brings a recipe of its own."""

    tables: tuple[str, ...] = tuple(LOADERS)  #: which, of ``LOADERS``
    train_size: int = 10_000  #: training rows that are used of a larger table
    num_epochs: int = 256  #: passes over them, its default


def run_realmlp(config: RealMLPConfig, seed: int, context: Context) -> SeedResult:
    """Train RealMLP on every table; look at the test once."""
    whole = SeedResult(seed=seed)
    for name in config.tables:
        table, began = prepared(name, config.train_size), time.perf_counter()
        predictions = {REALMLP: realmlp(table, seed, config.num_epochs)}
        whole.seconds[f"{name}-{REALMLP}"] = round(time.perf_counter() - began, 2)
        predictions[BOOSTING] = boosting(table, seed)[0]  # for the sampling error of a lead over it
        whole.metrics.update(judge(table, predictions))
    return whole


TABLE_EMBEDDINGS = from_table("table_embeddings", EmbeddingsConfig, run, info)
TABLE_LARGE = from_table("table_large", EmbeddingsConfig, run, partial(info, "california"))
TABLE_RIVALS = from_table("table_rivals", RivalsConfig, run_rivals, info, float32=True)
TABLE_REALMLP = from_table("table_realmlp", RealMLPConfig, run_realmlp, info, float32=True)
