"""Learning from rows without labels: guess what is hidden, and know a row again when part of it is replaced.

Sources: masked features after J. Yoon et al., "VIME", NeurIPS 2020, section 4.1; corruption from D. Bahri et
al., "SCARF", ICLR 2022, section 3; NT-Xent from T. Chen et al., "A Simple Framework for Contrastive Learning
of Visual Representations", ICML 2020, section 2.1.

The features of a row are its numbers, float (N, numbers), and after them its categorical columns, int64
(N, columns). ``groups`` holds an integer for each feature: those of one group, such as the sine and the
cosine of one hour, are hidden or replaced as one; ``None`` makes every feature a group.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Generator, Tensor, nn

from companion.compute import Compute
from companion.detection.detectors import GroupStandardizer, NeighborIndex
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.classification import Batch
from companion.objectives.encoding import MISSING


def group_numbers(groups: Sequence[int] | None, num_features: int) -> Tensor:
    """The group of each feature, numbered from 0 without gaps: int64 (``num_features``,)."""
    if groups is None:
        return torch.arange(num_features)
    assert len(groups) == num_features, f"{len(groups)} groups for {num_features} features"
    return torch.from_numpy(np.unique(groups, return_inverse=True)[1])


def draw_mask(num_rows: int, groups: Tensor, rate: float, generator: Generator) -> Tensor:
    """Which features are hidden, bool (N, features): each group at this rate, but at least one in a row."""
    draws = torch.rand(num_rows, int(groups.max()) + 1, generator=generator)  # (N, groups)
    hidden = draws < rate
    hidden.scatter_(1, draws.argmin(dim=1, keepdim=True), True)  # changes only a row that had none
    return hidden[:, groups]


@dataclass(frozen=True)
class MaskedFeatures:
    """Guess the hidden features of a row from the others.

    The loss is the mean negative log-likelihood of hidden features, each divided by what knowing nothing
    costs, the net's ``ignorance``: about 1 before training, and 0 once the others tell a feature.
    """

    mask_rate: float = 0.3  #: the probability that a feature is hidden
    groups: tuple[int, ...] | None = None  #: see the module

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss``, and the same mean over ``numerical`` and ``categorical`` features, if there are any."""
        assert isinstance(model, SelfSupervisedResNet)
        numerical, categorical = batch[:2]
        groups = group_numbers(self.groups, model.num_features)
        generator = generator or torch.Generator().manual_seed(0)  # an evaluation always draws the same
        mask = draw_mask(len(numerical), groups, self.mask_rate, generator).to(numerical.device)
        nats = model(numerical, categorical, mask).nll(numerical, categorical)  # (N, features)
        shares = torch.where(mask, nats / model.ignorance, 0)
        scalars = {"loss": shares.sum() / mask.sum()}
        split = model.num_numerical_features
        for name, own in {"numerical": slice(split), "categorical": slice(split, None)}.items():
            if shares[:, own].shape[1]:
                scalars[name] = shares[:, own].detach().sum() / mask[:, own].sum().clamp(min=1)
        return scalars


def corrupt(
    batch: Batch, training: Batch, rate: float, groups: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Replace a share of each row's groups of features, at least one, by those of training rows.

    They are draws from the features' own distribution in training (Bahri et al. 2022, section 3).
    """
    num_groups = int(groups.max()) + 1
    order = torch.rand(len(batch[0]), num_groups, generator=generator).argsort(dim=1)  # permutations
    replaced = (order < max(1, round(rate * num_groups)))[:, groups]  # (N, features)
    rows = torch.randint(len(training[0]), order.shape, generator=generator)[:, groups]  # (N, features)
    views, start = [], 0
    for own, source in zip(batch[:2], training[:2], strict=True):
        here = slice(start, start + own.shape[1])
        columns = torch.arange(own.shape[1], device=source.device)
        drawn = source[rows[:, here].to(source.device), columns]
        views.append(torch.where(replaced[:, here].to(own.device), drawn.to(own.device), own))
        start = here.stop
    return views[0], views[1]


def similarities(a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Cosines of all 2N views over the temperature, (2N, 2N), and where partners are, int64 (2N,)."""
    with torch.autocast(a.device.type, enabled=False):  # bfloat16 is too coarse
        dtype = torch.promote_types(a.dtype, torch.float32)
        z = F.normalize(torch.cat([a, b]).to(dtype), dim=1)  # (2N, features)
        cosines = z @ z.T / temperature  # (2N, 2N)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    cosines = cosines.masked_fill(itself, float("-inf"))  # not compared with itself
    return cosines, torch.arange(len(z), device=z.device).roll(len(a))


def nt_xent(a: Tensor, b: Tensor, temperature: float = 1.0) -> Tensor:
    """The normalised temperature-scaled cross-entropy of two views (N, features).

    Each of the 2N views has to find its partner among the 2N - 1 others, by the cosine of their angle. The
    loss is the mean of the 2N cross-entropies in nats, a scalar in float32 or wider.
    """
    return F.cross_entropy(*similarities(a, b, temperature))


@dataclass(frozen=True)
class Contrastive:
    """Recognise a row of which a part was replaced (SCARF, Bahri et al. 2022).

    Each row is one view; the other is the same row after :func:`corrupt`. The paper's loss compares each row
    with the corrupted ones only, NT-Xent also with its own kind. Equal rows in a batch keep it above 0.
    """

    numerical: Tensor  #: (M, numbers), the training rows that replacements are drawn from
    categorical: Tensor  #: (M, columns), of the same rows
    corruption_rate: float = 0.6  #: the share of the features that are replaced
    temperature: float = 1.0  #: of the cosines
    groups: tuple[int, ...] | None = None  #: see the module

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` in nats, and ``lost``, the share of views whose partner is not the nearest."""
        assert isinstance(model, SelfSupervisedResNet)
        training, groups = (self.numerical, self.categorical), group_numbers(self.groups, model.num_features)
        generator = generator or torch.Generator().manual_seed(0)  # an evaluation always draws the same
        corrupted = corrupt(batch, training, self.corruption_rate, groups, generator)
        views = [torch.cat(pair) for pair in zip(batch[:2], corrupted, strict=True)]  # one pass for both
        a, b = model.project(model.embed(views[0], views[1])).chunk(2)  # (N, d_projection) each
        cosines, partner = similarities(a, b, self.temperature)
        lost = (cosines.detach().argmax(dim=1) != partner).float().mean()
        return {"loss": F.cross_entropy(cosines, partner), "lost": lost}


@torch.inference_mode()
def nll(
    model: SelfSupervisedResNet, numerical: Tensor, categorical: Tensor,
    *, groups: Sequence[int] | None = None, skip: Tensor | None = None,
    compute: Compute | None = None, batch_size: int = 4096,
) -> Tensor:  # fmt: skip
    """How surprising each feature of each row is: float32 (N, numbers + columns) on the CPU, in nats.

    It is the negative log-likelihood, given the others: a row goes through the net, put into evaluation mode,
    once for each group of features, which is then hidden. A number costs the square of its distance, so one
    that is far off can outweigh all categories. Groups to ``skip``, bool (N, groups), cost nothing.
    """
    compute = compute or Compute(model.ignorance.device, None)
    hidden = F.one_hot(group_numbers(groups, model.num_features)).T.bool().to(compute.device)
    asked = [own.nonzero().flatten() for own in hidden]  # the features of each group
    wanted = torch.ones(len(numerical), len(hidden), dtype=torch.bool) if skip is None else ~skip
    parts = []
    model.eval()
    for batch in zip(*(torch.split(t, batch_size) for t in (numerical, categorical, wanted)), strict=True):
        x, c, due = (part.to(compute.device) for part in batch)
        found = torch.zeros(len(x), model.num_features, device=compute.device)
        with compute.autocast():
            for mask, own, rows in zip(hidden, asked, due.unbind(1), strict=True):
                numbers, columns = model.split(own)
                guess = model.guess(model.embed(x[rows], c[rows], mask.expand(int(rows.sum()), -1)), own)
                nats = guess.nll(x[rows][:, numbers], c[rows][:, columns])
                found[rows.nonzero(), own] = nats.float()
        parts.append(found.cpu())
    return torch.cat(parts)


class FamilySurprise:
    """How much more a row surprises a net than is usual: one score from all families of fields.

    The surprises of a family are added up (a field counts at most 10 nats) and measured in standard
    deviations from their mean, both of normal rows of the same kind that did not train the net. What is below
    the mean counts nothing; the score is the sum over the families, which are the ``groups``.
    """

    def __init__(self, model: SelfSupervisedResNet, groups: Sequence[int], compute: Compute) -> None:
        self.model, self.groups, self.compute = model, tuple(groups), compute
        self.usual = GroupStandardizer(floor=0.05)

    def families(self, numerical: Tensor, categorical: Tensor, skip: np.ndarray) -> np.ndarray:
        """The surprise of each family, hidden alone, 0 for those to skip: float64 (N, families), in nats."""
        nats = nll(
            self.model, numerical, categorical,
            groups=self.groups, skip=torch.tensor(skip), compute=self.compute,
        )  # fmt: skip
        return self._sums(nats.clamp(max=10)).double().numpy()

    def _sums(self, features: Tensor) -> Tensor:
        sums = torch.zeros(len(features), max(self.groups) + 1)
        return sums.index_add(1, torch.tensor(self.groups), features)

    def _missing(self, numerical: Tensor, categorical: Tensor) -> np.ndarray:
        """Of which families every field is missing, as the encoder writes it: bool (N, families)."""
        there = torch.cat([(numerical != 0) & (numerical != 1), categorical != MISSING], dim=1)
        return (self._sums(there.float()) == 0).numpy()

    def fit(self, numerical: Tensor, categorical: Tensor, kinds: np.ndarray) -> Self:
        """Learn what is usual from normal rows, each of a kind, text (N,).

        Families that no row of a kind has are not asked for, now and later, and surprise only where they are.
        """
        missing = pd.DataFrame(self._missing(numerical, categorical))
        never = missing.groupby(kinds).transform("all").to_numpy()
        self.usual.fit(self.families(numerical, categorical, never), kinds)
        return self

    def deviations(self, numerical: Tensor, categorical: Tensor, kinds: np.ndarray) -> np.ndarray:
        """How unusual each family is: float64 (N, families), in standard deviations, 0 for the usual."""
        missing = self._missing(numerical, categorical)
        never = self.usual.transform(np.zeros(missing.shape), kinds) == 0  # on average no surprise at all
        found = self.families(numerical, categorical, missing & never)
        return self.usual.transform(found, kinds).clip(min=0)

    def score(self, numerical: Tensor, categorical: Tensor, kinds: np.ndarray) -> np.ndarray:
        """float64 (N,): the higher, the more unusual."""
        return np.asarray(self.deviations(numerical, categorical, kinds).sum(axis=1))


@torch.inference_mode()
def embed(
    model: SelfSupervisedResNet, numerical: Tensor, categorical: Tensor,
    *, compute: Compute | None = None, batch_size: int = 4096,
) -> np.ndarray:  # fmt: skip
    """The embeddings of rows, nothing hidden: float32 (N, ``d_model``); arguments as for :func:`nll`."""
    compute = compute or Compute(model.ignorance.device, None)
    model.eval()
    batches = zip(*(torch.split(t, batch_size) for t in (numerical, categorical)), strict=True)
    with compute.autocast():
        parts = [model.embed(x.to(compute.device), c.to(compute.device)).float().cpu() for x, c in batches]
    return torch.cat(parts).numpy()


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, seed: int = 0
) -> float:
    """Balanced accuracy of a linear classifier on embeddings (N, d), for classes no net was told."""
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many steps it changes little
        classifier.fit(train, train_labels)
    guesses = classifier.predict(test)
    return float(recall_score(test_labels, guesses, labels=np.unique(test_labels), average="macro"))


def neighbor_purity(vectors: np.ndarray, labels: np.ndarray) -> float:
    """The share of each vector's ten nearest neighbours that have its label, averaged over vectors (N, d)."""
    rows = NeighborIndex(11).fit(vectors).nearest(vectors)[1]  # int64 (N, 11), nearest first
    own = rows == np.arange(len(rows))[:, None]
    own[~own.any(axis=1), -1] = True  # copies of a vector may have taken its place
    return float((labels[rows[~own].reshape(len(rows), 10)] == labels[:, None]).mean())
