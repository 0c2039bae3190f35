"""Learning from rows without labels: guess what is hidden, and know a row again when part of it is replaced.

Sources: masked features after J. Yoon et al., "VIME: Extending the Success of Self- and Semi-supervised
Learning to Tabular Domain", NeurIPS 2020, section 4.1; corruption from D. Bahri et al., "SCARF:
Self-Supervised Contrastive Learning using Random Feature Corruption", ICLR 2022, section 3; NT-Xent from
T. Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
section 2.1.

Everywhere here the features of a row are its numbers and after them its categorical columns. Features that
tell of each other, such as the sine and the cosine of one hour, or a number and whether it is missing, can be
put into a group, which is hidden or replaced as one.

What an embedding space is like: where rows lie in it, what lies near what, and what can be read off it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import recall_score
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Generator, Tensor, nn

from companion.compute import Compute
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.classification import Batch

EVALUATION_SEED = 0
"""Seeds the draws of an evaluation, which are the same for every batch and every time."""


def _net(model: nn.Module) -> SelfSupervisedResNet:
    if not isinstance(model, SelfSupervisedResNet):
        raise TypeError(f"self-supervision needs a SelfSupervisedResNet, not a {type(model).__name__}")
    return model


def _generator(generator: Generator | None) -> Generator:
    return torch.Generator().manual_seed(EVALUATION_SEED) if generator is None else generator


def _check_rate(name: str, rate: float) -> None:
    if not 0 < rate <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, not {rate}")


def group_numbers(groups: Sequence[int] | None, num_features: int) -> Tensor:
    """The group of each feature, numbered from 0 without gaps.

    Args:
        groups: any integer for each feature, equal for those of one group; ``None`` for a group each.
        num_features: numbers and categorical columns of a row.

    Returns:
        int64 (``num_features``,).

    Raises:
        ValueError: if there are not as many integers as features.

    Example:
        >>> group_numbers([7, 7, 3], 3).tolist()
        [1, 1, 0]
    """
    if groups is None:
        return torch.arange(num_features)
    if len(groups) != num_features:
        raise ValueError(f"need a group for each of the {num_features} features, not {len(groups)} groups")
    number = {group: number for number, group in enumerate(sorted(set(groups)))}
    return torch.tensor([number[group] for group in groups])


# ---------------------------------------------------------------- masked features


def draw_mask(num_rows: int, groups: Tensor, rate: float, generator: Generator) -> Tensor:
    """Which features are hidden: each group with probability ``rate``, but at least one in every row.

    Args:
        num_rows: N.
        groups: int64 (features,), as :func:`group_numbers` gives them.
        rate: above 0 and at most 1.
        generator: a CPU generator.

    Returns:
        bool (N, features) on the CPU.
    """
    draws = torch.rand(num_rows, int(groups.max()) + 1, generator=generator)  # (N, groups)
    hidden = draws < rate
    hidden.scatter_(1, draws.argmin(dim=1, keepdim=True), True)  # changes only a row that had none
    return hidden[:, groups]


@dataclass(frozen=True)
class MaskedFeatures:
    """Guess the hidden features of a row from the others.

    The loss is the mean over all hidden features of the surprise at their true values (see
    :meth:`companion.models.masked_resnet.Reconstruction.nll`), each divided by what knowing nothing
    costs: the logarithm of the cardinality for a category, and the expected surprise of the standard normal
    distribution for a number. So columns of either kind and any cardinality cost about 1 before training,
    and 0 once the others tell them. What no other column tells ends at 1 for a standardised number, and for
    categories at their entropy over the logarithm. The entropy alone would be another divisor. But a column
    that nearly always holds the same value has nearly none, and its few other values would outweigh all
    else; a constant column would divide by 0.

    Attributes:
        mask_rate: the probability that a feature is hidden.
        groups: see :func:`group_numbers`.

    Raises:
        ValueError: if the rate is out of range.
    """

    mask_rate: float = 0.3
    groups: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_rate("mask_rate", self.mask_rate)

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss``, and its parts ``numerical`` and ``categorical``, of (numbers, categories, ...).

        A part is the same mean over the hidden features of one kind, 0 if the batch has none hidden, and left
        out if the table has no such column. Without a generator the mask of a row depends on its place in
        the batch alone, so an evaluation can be repeated, with the same batch size.

        Raises:
            TypeError: if the model is not a ``SelfSupervisedResNet``.
            ValueError: if the rows do not fit it, or the groups do not fit the rows.
        """
        net = _net(model)
        numerical, categorical = batch[:2]
        groups = group_numbers(self.groups, net.num_features)
        mask = draw_mask(len(numerical), groups, self.mask_rate, _generator(generator)).to(numerical.device)
        surprises = net(numerical, categorical, mask).nll(numerical, categorical)  # (N, features)
        shares = torch.where(mask, surprises / net.ignorance, 0)
        scalars = {"loss": shares.sum() / mask.sum()}
        split = net.num_numerical_features
        kinds = {"numerical": slice(split), "categorical": slice(split, None)}
        for name, columns in kinds.items():
            if shares[:, columns].shape[1]:
                hidden = mask[:, columns].sum().clamp(min=1)
                scalars[name] = shares[:, columns].detach().sum() / hidden
        return scalars


# ---------------------------------------------------------------- contrastive learning


def corrupt(
    batch: Batch, training: Batch, rate: float, groups: Tensor, generator: Generator
) -> tuple[Tensor, Tensor]:
    """Replace features of every row by those of training rows, drawn anew for each feature.

    They are draws from the feature's own distribution in training, whatever the row's other features are
    (Bahri et al. 2022, section 3). Categories are replaced as indices, before they are embedded.

    Args:
        batch: float (N, numbers) and int64 (N, columns).
        training: the same of (M, ...), M at least 1.
        rate: the share of the groups that are replaced, rounded, but at least one.
        groups: int64 (features,), as :func:`group_numbers` gives them; a group is taken from one row.
        generator: a CPU generator.

    Returns:
        New tensors of the shapes, dtypes and device of ``batch``.
    """
    num_groups = int(groups.max()) + 1
    order = torch.rand(len(batch[0]), num_groups, generator=generator).argsort(dim=1)  # permutations
    replaced = (order < max(1, round(rate * num_groups)))[:, groups]  # (N, features)
    rows = torch.randint(len(training[0]), order.shape, generator=generator)[:, groups]  # (N, features)
    views, start = [], 0
    for own, source in zip(batch[:2], training[:2], strict=True):
        here = slice(start, start + own.shape[1])
        drawn = source[rows[:, here].to(source.device), torch.arange(own.shape[1], device=source.device)]
        views.append(torch.where(replaced[:, here].to(own.device), drawn.to(own.device), own))
        start = here.stop
    return views[0], views[1]


def _similarities(a: Tensor, b: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Cosines over ``temperature`` of all 2N rows (2N, 2N), and each row's partner (2N,)."""
    if a.ndim != 2 or a.shape != b.shape or len(a) == 0:
        raise ValueError(f"need two (N, features) of one shape, not {tuple(a.shape)} and {tuple(b.shape)}")
    if temperature <= 0:
        raise ValueError(f"the temperature must be positive, not {temperature}")
    with torch.autocast(a.device.type, enabled=False):  # bfloat16 is too coarse to divide by a temperature
        dtype = torch.promote_types(a.dtype, torch.float32)
        z = F.normalize(torch.cat([a, b]).to(dtype), dim=1)  # (2N, features)
        similarities = z @ z.T / temperature  # (2N, 2N)
    similarities = similarities.masked_fill(
        torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf")
    )  # no row is compared with itself
    return similarities, torch.arange(len(z), device=z.device).roll(len(a))


def nt_xent(a: Tensor, b: Tensor, temperature: float = 1.0) -> Tensor:
    """The normalised temperature-scaled cross-entropy of two views of the same rows (Chen et al. 2020).

    Each of the 2N views has to find its partner among the 2N - 1 others, by the cosine of their angle. The
    loss is the mean of the 2N cross-entropies.

    Args:
        a: (N, features), of any length, not normalised.
        b: the same for the other views, in the same order.
        temperature: the cosines are divided by it; above 0.

    Returns:
        A scalar in nats, float32 or wider; 0 for one row, which has nothing to be confused with.

    Raises:
        ValueError: if the shapes differ, there is no row, or the temperature is not positive.

    Example:
        >>> a = torch.eye(2)
        >>> round(nt_xent(a, a, temperature=0.1).item(), 4)
        0.0001
    """
    return F.cross_entropy(*_similarities(a, b, temperature))


@dataclass(frozen=True)
class Contrastive:
    """Recognise a row of which a part was replaced (SCARF, Bahri et al. 2022).

    Each row is one view; the other is the same row after :func:`corrupt`. Both go through the net and its
    projection, and :func:`nt_xent` compares them. Only one view is corrupted, as in the paper. The paper's
    loss compares each row with the corrupted ones only; NT-Xent also compares it with the rest of its own
    kind. Rows of a batch that are equal are told to be different, which no net can do: with many of them
    the loss has a floor above 0.

    Attributes:
        numerical: float (M, numbers), the training rows that replacements are drawn from.
        categorical: int64 (M, columns), likewise.
        corruption_rate: the share of the features that are replaced; the paper's is 0.6.
        temperature: of :func:`nt_xent`; the paper's is 1.
        groups: see :func:`group_numbers`.

    Raises:
        ValueError: if there are no training rows, their numbers differ, or a rate is out of range.
    """

    numerical: Tensor
    categorical: Tensor
    corruption_rate: float = 0.6
    temperature: float = 1.0
    groups: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        _check_rate("corruption_rate", self.corruption_rate)
        if self.temperature <= 0:
            raise ValueError(f"the temperature must be positive, not {self.temperature}")
        if len(self.numerical) != len(self.categorical) or len(self.numerical) == 0:
            raise ValueError(
                "need as many training rows of numbers as of categories, at least one, "
                f"not {len(self.numerical)} and {len(self.categorical)}"
            )

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats) and ``lost`` (share of views whose partner is not the nearest), of a batch.

        The batch is (numbers, categories, ...). Both depend on how many rows it has: the more there are, the
        harder it is. Without a generator the corruption of a row depends on its place in the batch alone.

        Raises:
            TypeError: if the model is not a ``SelfSupervisedResNet``.
            ValueError: if it has no projection, the rows do not fit it, or the groups do not fit the rows.
        """
        net = _net(model)
        training = (self.numerical, self.categorical)
        if [own.shape[1:] for own in batch[:2]] != [source.shape[1:] for source in training]:
            raise ValueError("the rows of the batch and the training rows have not the same columns")
        groups = group_numbers(self.groups, net.num_features)
        corrupted = corrupt(batch, training, self.corruption_rate, groups, _generator(generator))
        views = [torch.cat(pair) for pair in zip(batch[:2], corrupted, strict=True)]  # one pass for both
        a, b = net.project(net.embed(views[0], views[1])).chunk(2)  # (N, d_projection) each
        similarities, partner = _similarities(a, b, self.temperature)
        lost = (similarities.detach().argmax(dim=1) != partner).float().mean()
        return {"loss": F.cross_entropy(similarities, partner), "lost": lost}


@dataclass(frozen=True)
class Combined:
    """Both objectives on the same batch, ``masked + weight * contrastive``.

    Attributes:
        masked: how features are hidden.
        contrastive: how views are made and compared.
        weight: of the contrastive loss; at least 0.

    Raises:
        ValueError: if the weight is negative.
    """

    masked: MaskedFeatures
    contrastive: Contrastive
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise ValueError(f"the weight must be at least 0, not {self.weight}")

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss``, its parts ``masked`` and ``contrastive``, and what else the two objectives measure."""
        masked = self.masked(model, batch, generator)
        contrastive = self.contrastive(model, batch, generator)
        parts = {"masked": masked.pop("loss"), "contrastive": contrastive.pop("loss")}
        loss = parts["masked"] + self.weight * parts["contrastive"]
        parts = {name: value.detach() for name, value in parts.items()}
        return {"loss": loss} | parts | masked | contrastive


# ---------------------------------------------------------------- surprise


@torch.inference_mode()
def surprise(
    model: nn.Module,
    numerical: Tensor,
    categorical: Tensor,
    *,
    groups: Sequence[int] | None = None,
    compute: Compute | None = None,
    batch_size: int = 4096,
) -> Tensor:
    """How unexpected each feature of each row is, given the row's other features.

    Each group of features is hidden in turn, and the model asked for it. That takes as many passes as there
    are groups. Without groups every feature is hidden alone; features that are hidden together are judged
    without one another, which costs less and sees less. The sum over a row is a score for the row; the
    largest features explain it. A number costs the square of its distance, a category a logarithm, so one
    number that is far off can outweigh all categories.

    Args:
        model: a trained ``SelfSupervisedResNet``; left in the mode in which it came.
        numerical: float (N, numbers).
        categorical: int64 (N, columns).
        groups: see :func:`group_numbers`; ``None`` hides each feature alone.
        compute: device and precision; ``None`` for where the model is, in its own precision.
        batch_size: rows in one pass; it bounds the memory beside the result.

    Returns:
        float32 (N, numbers + columns) on the CPU, in nats, at least 0, as
        :meth:`companion.models.masked_resnet.Reconstruction.nll` defines it.

    Raises:
        TypeError: if the model is not a ``SelfSupervisedResNet``.
        ValueError: if the rows do not fit it, or the groups do not fit the rows.
    """
    net = _net(model)
    compute = compute or Compute(net.ignorance.device, None)
    index = group_numbers(groups, net.num_features)
    surprises = torch.empty(len(numerical), net.num_features)
    was_training = net.training
    net.eval()
    try:
        for start in range(0, len(numerical), batch_size):
            rows = slice(start, start + batch_size)
            numbers, categories = numerical[rows].to(compute.device), categorical[rows].to(compute.device)
            for group in range(int(index.max()) + 1):
                hidden = index == group  # (features,)
                columns = hidden[net.num_numerical_features :].nonzero().flatten().tolist()
                with compute.autocast():
                    mask = hidden.to(compute.device).expand(len(numbers), -1)
                    guess = net(numbers, categories, mask, columns)
                found = guess.nll(numbers, categories[:, columns]).cpu()  # all numbers, these columns
                asked = torch.cat([hidden[: net.num_numerical_features], hidden.new_ones(len(columns))])
                surprises[rows, hidden] = found[:, asked]
    finally:
        net.train(was_training)
    return surprises


@torch.inference_mode()
def embed(
    model: SelfSupervisedResNet,
    numerical: Tensor,
    categorical: Tensor,
    *,
    compute: Compute | None = None,
    batch_size: int = 4096,
) -> np.ndarray:
    """The embeddings of rows of which nothing is hidden.

    Args:
        model: a trained net; left in the mode in which it came.
        numerical: float (N, numbers).
        categorical: int64 (N, columns).
        compute: device and precision; ``None`` for where the model is, in its own precision.
        batch_size: rows in one pass; it bounds the memory beside the result.

    Returns:
        float32 (N, ``d_model``); N may be 0.

    Raises:
        ValueError: if the rows do not fit the model.
    """
    compute = compute or Compute(model.ignorance.device, None)
    was_training = model.training
    model.eval()
    parts = []
    try:
        for start in range(0, max(1, len(numerical)), batch_size):
            rows = slice(start, start + batch_size)
            with compute.autocast():
                found = model.embed(numerical[rows].to(compute.device), categorical[rows].to(compute.device))
            parts.append(found.float().cpu().numpy())
    finally:
        model.train(was_training)
    return np.concatenate(parts)


def linear_probe(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, seed: int = 0
) -> float:
    """How well a linear classifier on frozen embeddings tells classes that the net was never told.

    Args:
        train: float (N, d), embeddings.
        train_labels: (N,), any values that can be compared.
        test: float (M, d), of other rows.
        test_labels: (M,).
        seed: of the solver.

    Returns:
        Balanced accuracy, the mean recall of the tested classes; one over their number is chance.

    Raises:
        ValueError: if there is only one class.
    """
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300, random_state=seed))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # after so many steps it changes little
        classifier.fit(train, train_labels)
    guesses = classifier.predict(test)
    return float(recall_score(test_labels, guesses, labels=np.unique(test_labels), average="macro"))


def neighbours(vectors: np.ndarray, count: int = 10) -> np.ndarray:
    """The nearest other vectors of each vector: int64 (N, ``count``), nearest first.

    Raises:
        ValueError: if there are not more vectors than neighbours.
    """
    if not 0 < count < len(vectors):
        raise ValueError(f"{len(vectors)} vectors have no {count} neighbours each")
    found: np.ndarray = NearestNeighbors(n_neighbors=count).fit(vectors).kneighbors(return_distance=False)
    return found


def neighbor_purity(vectors: np.ndarray, labels: np.ndarray, count: int = 10) -> float:
    """The share of each vector's nearest neighbours that have its label, averaged over the vectors.

    Args:
        vectors: float (N, d).
        labels: (N,), any values that can be compared.
        count: neighbours of each.

    Returns:
        Between 0 and 1. A space that tells nothing of the label has about the sum of the squared shares of
        the labels.

    Example:
        >>> vectors = np.array([[0.0], [0.1], [5.0], [5.1]])
        >>> neighbour_purity(vectors, np.array(["a", "a", "b", "b"]), count=1)
        1.0
    """
    labels = np.asarray(labels)
    return float((labels[neighbours(vectors, count)] == labels[:, None]).mean())


def neighbor_agreement(one: np.ndarray, other: np.ndarray, count: int = 10) -> float:
    """How far two embeddings of the same rows agree on who is near whom.

    Distances and axes of two trainings mean nothing to each other, neighbourhoods do.

    Args:
        one: float (N, d).
        other: float (N, e), the same rows.
        count: neighbours of each.

    Returns:
        The mean share of a row's neighbours in one space that are its neighbours in the other; for unrelated
        spaces about ``count / N``.

    Raises:
        ValueError: if the numbers of rows differ.
    """
    if len(one) != len(other):
        raise ValueError(f"need the same rows in both spaces, not {len(one)} and {len(other)}")
    pairs = zip(neighbours(one, count), neighbours(other, count), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / count for a, b in pairs]))
