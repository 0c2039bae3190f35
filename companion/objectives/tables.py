"""Learning from a table: one way to prepare it, to train any net on it, and to judge predictions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from torch import Generator, Tensor, nn

from companion.compute import Compute
from companion.data.tables import Table
from companion.objectives.classification import Batch
from companion.objectives.encoding import TableEncoder

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class TableObjective:
    """Cross-entropy for classes, mean squared error for a standardised number.

    A net that predicts k times for each row, (N, k, outputs), learns by the mean of its k losses, so that
    each of its members learns by itself, and is judged by the mean of its members' predictions.
    """

    num_classes: int | None  #: ``None`` for regression

    def predict(self, output: Tensor) -> Tensor:
        """Probabilities (N, classes), or standardised numbers (N,), from a net's output."""
        output = output.float()
        each = output.squeeze(-1) if self.num_classes is None else output.softmax(dim=-1)
        return each if output.ndim == 2 else each.mean(dim=1)

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss``, and for classes ``error`` (share of wrong answers), of (numbers, categories, target)."""
        numerical, categorical, target = batch
        output = model(numerical, categorical).float()  # (N, outputs) or (N, k, outputs)
        prediction = self.predict(output.detach())
        members = output.flatten(0, -2)  # (N * k, outputs)
        targets = target if output.ndim == 2 else target.repeat_interleave(output.shape[1])
        if self.num_classes is None:
            return {"loss": F.mse_loss(members.squeeze(-1), targets), "error": F.mse_loss(prediction, target)}
        error = (prediction.argmax(dim=1) != target).float().mean()
        return {"loss": F.cross_entropy(members, targets), "error": error}


@dataclass(frozen=True)
class PreparedTable:
    """A table as tensors."""

    table: Table  #: what it was made of
    encoder: TableEncoder  #: fitted on the training rows
    #: float32 numbers (N, features), int64 categories (N, columns), and the target (N,): int64 classes, or
    #: float32 numbers, standardised
    splits: dict[str, Batch]
    target_mean: float  #: of the training rows; 0 for classes
    target_std: float  #: likewise; 1 for classes
    objective: TableObjective  #: what a net minimises on it


def prepare(table: Table) -> PreparedTable:
    """Fit the encoder on the training rows and encode all three splits."""
    encoder = TableEncoder(table.numerical, table.categorical).fit(table.frame.iloc[table.train])
    num_classes = None if table.class_names is None else len(table.class_names)
    known = table.target[table.train]
    mean, std = (float(known.mean()), float(known.std())) if num_classes is None else (0.0, 1.0)
    splits: dict[str, Batch] = {}
    for name in SPLITS:
        rows = getattr(table, name)
        target = torch.from_numpy(table.target[rows])
        target = (target - mean) / std if num_classes is None else target
        splits[name] = (*encoder.transform(table.frame.iloc[rows]), target)
    return PreparedTable(table, encoder, splits, mean, std, TableObjective(num_classes))


@torch.inference_mode()
def predict(
    model: nn.Module, prepared: PreparedTable, split: str, compute: Compute, batch_size: int = 2048
) -> np.ndarray:
    """A net's predictions for a split: probabilities (N, classes), or numbers (N,) in the target's unit."""
    model.eval()
    parts = []
    for rows in zip(*(torch.split(t, batch_size) for t in prepared.splits[split][:2]), strict=True):
        with compute.autocast():
            output = model(*(t.to(compute.device) for t in rows))
        parts.append(prepared.objective.predict(output).cpu())
    prediction: np.ndarray = torch.cat(parts).numpy()
    numbers = prepared.objective.num_classes is None
    return prediction * prepared.target_std + prepared.target_mean if numbers else prediction


def score(prepared: PreparedTable, split: str, prediction: np.ndarray) -> float:
    """Accuracy of probabilities (N, classes), or the root of the mean squared error of numbers (N,)."""
    target = prepared.table.target[getattr(prepared.table, split)]
    if prepared.objective.num_classes is None:
        return float(np.sqrt(np.mean((prediction.astype(np.float64) - target) ** 2)))
    return float(np.mean(prediction.argmax(axis=1) == target))


def fit_raw(
    prepared: PreparedTable, kinds: tuple[Any, Any], held: Callable[..., dict[str, Any]], **options: Any
) -> tuple[dict[str, np.ndarray], Any]:
    """An estimator of scikit-learn's form, fitted on the raw table: its predictions by split, and itself.

    ``kinds`` are for numbers and for classes; ``held`` makes of the validation rows what ``fit`` wants.
    """
    table, classify = prepared.table, prepared.objective.num_classes is not None
    frame = table.frame.astype(dict.fromkeys(table.categorical, pd.CategoricalDtype()))
    rows = {name: (frame.iloc[getattr(table, name)], table.target[getattr(table, name)]) for name in SPLITS}
    model = kinds[classify](**options)
    model.fit(*rows["train"], **held(*rows["validation"]))
    ask = model.predict_proba if classify else model.predict
    return {name: ask(part) for name, (part, _) in rows.items()}, model


def boosting(prepared: PreparedTable, seed: int = 0) -> tuple[dict[str, np.ndarray], int]:
    """Predictions of scikit-learn's gradient boosting on the raw table by split, and how many trees it has.

    The learning rate is half the default, and trees are added until the validation loss does not fall for 20.
    """
    predictions, trees = fit_raw(
        prepared, (HistGradientBoostingRegressor, HistGradientBoostingClassifier),
        lambda X, y: {"X_val": X, "y_val": y}, learning_rate=0.05, max_iter=2000, early_stopping=True,
        n_iter_no_change=20, categorical_features="from_dtype", random_state=seed,
    )  # fmt: skip
    return predictions, trees.n_iter_


def lightgbm(prepared: PreparedTable, patience: int, seed: int, **options: Any) -> dict[str, np.ndarray]:
    """Predictions of LightGBM on the raw table by split, of as many trees as were best on validation rows.

    ``options`` are those of its classes; trees are added until ``patience`` of them brought nothing. Needs
    ``companion[rivals]``, and libgomp1 on Debian, libomp on macOS.
    """
    from lightgbm import LGBMClassifier, LGBMRegressor, early_stopping

    stop = [early_stopping(patience, verbose=False)]
    common = {"n_jobs": torch.get_num_threads(), "verbose": -1, "random_state": seed}
    return fit_raw(
        prepared, (LGBMRegressor, LGBMClassifier),
        lambda X, y: {"eval_X": X, "eval_y": y, "callbacks": stop}, **common | options,
    )[0]  # fmt: skip


def realmlp(prepared: PreparedTable, seed: int, num_epochs: int = 256) -> dict[str, np.ndarray]:
    """Predictions of RealMLP-TD on the raw table by split: an MLP whose defaults were tuned on many tables.

    The authors' package trains it and keeps the epoch that was best on validation rows. It takes no gaps
    among numbers: they become the median of the training rows. Needs ``companion[rivals]``.

    Source: D. Holzmüller, L. Grinsztajn and I. Steinwart, "Better by Default: Strong Pre-Tuned MLPs and
    Boosted Trees on Tabular Data", NeurIPS 2024, section 3.
    """
    from pytabkit import RealMLP_TD_Classifier, RealMLP_TD_Regressor

    table = prepared.table
    medians = table.frame.iloc[table.train][list(table.numerical)].median()
    prepared = replace(prepared, table=replace(table, frame=table.frame.fillna(medians)))
    return fit_raw(
        prepared, (RealMLP_TD_Regressor, RealMLP_TD_Classifier), lambda X, y: {"X_val": X, "y_val": y},
        device="cpu", n_threads=torch.get_num_threads(), random_state=seed, n_epochs=num_epochs,
    )[0]  # fmt: skip
