"""Checks of parts of nets and of their training: attention, the contrastive loss, indices of categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from companion.exercises.base import Check, Exercise, NotYet, compare, number, told, values
from companion.objectives.encoding import MISSING, TableEncoder
from companion.objectives.selfsupervised import nt_xent

# ---------------------------------------------------------------- attention with heads


def _heads(x: Tensor, heads: int) -> Tensor:
    """(3, N, T, d) as (3, N, heads, T, d / heads)."""
    return x.reshape(*x.shape[:3], heads, -1).transpose(2, 3)


def _attention(qkv: Tensor, heads: int, scale: float | None = None) -> Tensor:
    q, k, v = _heads(qkv, heads)
    return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)


def _attention_mistakes(qkv: Tensor, heads: int) -> dict[str, Tensor]:
    """What likely mistakes give, (N, T, d) each."""
    d = qkv.shape[3]
    q, k, v = _heads(qkv, heads)
    scores = q @ k.mT / (d / heads) ** 0.5  # (N, heads, T, T)

    def joined(weights: Tensor) -> Tensor:
        mixed: Tensor = weights @ v  # (N, heads, T, d / heads)
        return mixed.transpose(1, 2).flatten(2)

    every = qkv.reshape(*qkv.shape[:3], -1, heads).transpose(3, 4).flatten(3)  # every heads-th to one head
    apart = _attention(every, heads).reshape(*qkv.shape[1:3], heads, -1).mT.flatten(2)
    return {
        "the root is of the length of one head's queries, d / heads": _attention(qkv, heads, d**-0.5),
        "the comparisons are not divided by the root of their length": _attention(qkv, heads, 1.0),
        "divide by the root of the length, not by the length": _attention(qkv, heads, heads / d),
        "the softmax runs over the wrong axis: each query's weights over all keys add up to 1": joined(
            scores.softmax(dim=2)
        ),
        "there are two softmaxes; one is enough": joined(scores.softmax(dim=3).softmax(dim=3)),
        "there is no softmax": joined(scores),
        "queries and keys have changed places": joined(scores.mT.softmax(dim=3)),
        "that is one head over all d numbers": _attention(qkv, 1),
        "a head takes d / heads numbers that stand together, not one here and one there": apart,
        "at the end each token's heads stand beside each other: transpose before you reshape": (
            (scores.softmax(dim=3) @ v).reshape(qkv.shape[1:])
        ),
    }


def _attention_checks() -> tuple[Check, ...]:
    torch.manual_seed(0)
    rows = torch.randn(3, 2, 5, 12)

    def has_shape(answer: Any) -> None:
        values(answer, (2, 5, 12), *rows, 1)
        values(answer, (2, 5, 12), *rows, 3)

    def agrees(heads: int) -> Any:
        def test(answer: Any) -> None:
            found = values(answer, (2, 5, 12), *rows, heads)
            mistakes = _attention_mistakes(rows, heads)
            other = "the numbers differ; print the weights of one head for one row, and add up their lines"
            compare((found, _attention(rows, heads), mistakes, other))

        return test

    def does_not_mix(answer: Any) -> None:
        alone = values(answer, (1, 5, 12), *(x[:1] for x in rows), 3)
        together = values(answer, (2, 5, 12), *rows, 3)[:1]
        compare((together, alone, {}, "a row's tokens listen to those of other rows"))

    return (
        ("it gives as many tokens of the same length", has_shape),
        ("with one head it computes what PyTorch's attention does", agrees(1)),
        ("with three heads, too", agrees(3)),
        ("the rows of a batch stay apart", does_not_mix),
    )


# ---------------------------------------------------------------- NT-Xent


def _nt_xent_mistakes(a: Tensor, b: Tensor, tau: float) -> dict[str, Tensor]:
    """What likely mistakes give for two views (N, features) and a temperature."""
    n = len(a)
    z = F.normalize(torch.cat([a, b]), dim=1)
    cosines, partner = z @ z.T, torch.arange(2 * n).roll(n)
    own = torch.eye(2 * n, dtype=torch.bool)
    raw = torch.cat([a, b])

    def loss(similarities: Tensor, excluded: Tensor = own, reduction: str = "mean") -> Tensor:
        return F.cross_entropy(
            similarities.masked_fill(excluded, float("-inf")), partner, reduction=reduction
        )

    right = loss(cosines / tau)
    exponents = (cosines / tau).exp()
    positive = exponents[torch.arange(2 * n), partner]
    others = exponents.masked_fill(own, 0).sum(1)
    share = positive / others
    return {
        "a view is compared with itself: leave j = i out of the sum": loss(cosines / tau, own & False),
        "the vectors are not normalised: a cosine is for vectors of length 1": loss(raw @ raw.T / tau),
        "the cosines are divided by the temperature, not multiplied": loss(cosines * tau),
        "the temperature is not used": loss(cosines),
        "that is the sum; the loss is the mean over the views": right * 2 * n,
        "that is the sum over 2N views divided by N": right * 2,
        "the sign is wrong: a loss falls when partners come closer": -right,
        "each view of the one kind is compared with the other kind only; all 2N - 1 others count": (
            F.cross_entropy(cosines[:n, n:] / tau, torch.arange(n))
        ),
        "only the first N views are asked; the others have partners, too": -(positive / others)[:n]
        .log()
        .mean(),
        "the partner belongs into the sum below, too": -(positive / (others - positive)).log().mean(),
        "the logarithm comes before the mean, not after it": -share.mean().log(),
        "the logarithm is missing": share.mean(),
    }


def _nt_xent_checks() -> tuple[Check, ...]:
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, 4)

    def is_number(answer: Any) -> None:
        number(answer, a, b, 0.5)

    def agrees(answer: Any) -> None:
        cases = []
        for tau in (0.5, 1.0, 0.1):
            found, wanted = number(answer, a, b, tau), nt_xent(a, b, tau)
            said = f"at temperature {tau:g} it gives {told(found)}, not {told(wanted.item())}"
            cases.append((found, wanted, _nt_xent_mistakes(a, b, tau), said))
        compare(*cases)

    def ignores_length(answer: Any) -> None:
        said = "longer vectors in the same directions change it"
        compare((number(answer, 3 * a, b, 0.5), nt_xent(a, b, 0.5), {}, said))

    def is_stable(answer: Any) -> None:
        found = torch.as_tensor(answer(a.double(), 30 * a.double(), 0.001)).detach().cpu()
        if not torch.isfinite(found).all():
            raise NotYet(
                f"at temperature 0.001 it gives {found.item()}: exponentials of large numbers overflow; take "
                "`logsumexp`, or `F.cross_entropy`, which does"
            )
        wanted = nt_xent(a.double(), 30 * a.double(), 0.001)
        said = f"at temperature 0.001 it gives {told(found.item())}, not {told(wanted.item())}"
        compare((found, wanted, {}, said))

    def learns(answer: Any) -> None:
        mine, theirs = ([x.clone().requires_grad_() for x in (a, b)] for _ in range(2))
        out = answer(*mine, 0.5)
        if not isinstance(out, Tensor) or out.grad_fn is None:
            raise NotYet("it gives no tensor that gradients could flow back from; is there an `.item()`?")
        out.backward()  # type: ignore[no-untyped-call]
        nt_xent(theirs[0], theirs[1], 0.5).backward()  # type: ignore[no-untyped-call]
        for own, other in zip(mine, theirs, strict=True):
            arrived = torch.zeros_like(own) if own.grad is None else own.grad
            compare((arrived, other.grad, {}, "they differ from the original's; is something detached?"))

    return (
        ("it gives a number", is_number),
        ("it gives the loss of the definition", agrees),
        ("only directions matter, not lengths", ignores_length),
        ("a low temperature does not make it infinite", is_stable),
        ("its gradients are right", learns),
    )


# ---------------------------------------------------------------- indices of categories

_JOBS: list[str | None] = [
    "nurse",
    "cook",
    None,
    "diver",
    "cook",
    "nurse",
    "nurse",
    "baker",
    "cook",
    "nurse",
    "baker",
]
_ASKED: list[str | None] = ["cook", None, "astronaut", "diver", "nurse", "baker", ""]


def _indices(training: Sequence[str | None], asked: Sequence[str | None], min_count: int) -> list[int]:
    encoder = TableEncoder([], ["job"], min_count=min_count).fit(pd.DataFrame({"job": list(training)}))
    found: list[int] = encoder.transform(pd.DataFrame({"job": list(asked)}))[1].flatten().tolist()
    return found


def _index_mistakes(asked: Sequence[str | None], min_count: int) -> dict[str, list[int]]:
    """What likely mistakes give, an index for each value that is asked for."""
    counts = pd.Series(_JOBS).value_counts()
    kept = sorted(counts[counts >= min_count].index)

    def by(order: Sequence[str], unseen: int = 1, missing: int = 0, first: int = 2) -> list[int]:
        places = {value: first + place for place, value in enumerate(order)}
        return [missing if value is None else places.get(value, unseen) for value in asked]

    seen = [job for job in dict.fromkeys(_JOBS) if job and job in kept]
    often = sorted(kept, key=lambda job: -counts[job])
    asked_order = sorted({job for job in asked if job and job in kept})
    return {
        "indices 0 and 1 are taken: the first value gets 2": by(kept, first=1),
        "indices 0 and 1 are taken, so the first value gets 2 and not 0": by(kept, first=0),
        "a value that training never saw gets index 1, not 0": by(kept, unseen=0),
        "a missing value gets index 0, not 1": by(kept, missing=1),
        "missing and unseen have changed places: 0 is missing, 1 is unseen": by(kept, unseen=0, missing=1),
        "a value that is seen exactly `min_count` times has an index of its own": by(
            sorted(counts[counts > min_count].index)
        ),
        "`min_count` is not used: what is seen fewer times shares index 1": by(sorted(counts.index)),
        "the indices are in the order in which values occur; sort the values": by(seen),
        "the indices are in the order of how often values occur; sort the values": by(often),
        "rare values left gaps: number the values that are kept, and those only": [
            1 if value is not None and value not in kept else index
            for value, index in zip(asked, by(sorted(counts.index)), strict=True)
        ],
        "an empty text is a text like any other, and not a missing value": [
            0 if value == "" else index for value, index in zip(asked, by(kept), strict=True)
        ],
        "the indices come from training's values, whatever is asked for": by(asked_order),
    }


def _index_checks() -> tuple[Check, ...]:
    def gives_indices(answer: Any) -> None:
        found = values(answer, (len(_ASKED),), _JOBS, _ASKED, 1)
        if (found != found.round()).any():
            raise NotYet("an index is a whole number")

    def agrees(min_count: int) -> Any:
        def test(answer: Any) -> None:
            cases = []
            for asked in (_ASKED, _ASKED[2:4]):
                found = values(answer, (len(asked),), _JOBS, asked, min_count)
                wanted = _indices(_JOBS, asked, min_count)
                said = f"{asked} get {found.int().tolist()}, not {wanted}"
                cases.append((found, wanted, _index_mistakes(asked, min_count), said))
            compare(*cases)

        return test

    def missing(answer: Any) -> None:
        found = values(answer, (1,), ["cook", None, None, None], [None], 2)
        compare((found, [MISSING], {}, "missing values are no category, however many there are"))

    return (
        ("it gives an index for each value", gives_indices),
        ("without rare values it gives the encoder's indices", agrees(1)),
        ("with rare values, too", agrees(2)),
        ("missing values are not counted", missing),
    )


LOSSES: dict[str, Exercise] = {
    "attention": Exercise("attention(Q, K, V, heads)", _attention_checks),
    "nt-xent": Exercise("contrastive_loss(a, b, temperature)", _nt_xent_checks),
    "category-index": Exercise("indices(training, values, min_count)", _index_checks),
}
"""The exercises on what nets are made of, by name."""
