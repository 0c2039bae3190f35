"""Checks of what one measures: guesses in order, answers refused, precision, rarity, neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion.exercises.base import Check, Exercise, NotYet, compare, number, told, values
from companion.objectives.selfsupervised import neighbor_purity


def _share(answer: Any, *args: Any) -> float:
    found = number(answer, *args)
    if found < 0 or found > 1:
        raise NotYet(f"it gives {told(found)}, and a share lies between 0 and 1")
    return found


# ---------------------------------------------------------------- the right class among the first k


def _top_k_checks() -> tuple[Check, ...]:
    torch.manual_seed(0)
    logits, labels = torch.randn(40, 6), torch.randint(6, (40,))

    def gives_share(answer: Any) -> None:
        _share(answer, logits, labels, 1)

    def agrees(answer: Any) -> None:
        ranked = logits.argsort(dim=1, descending=True) == labels[:, None]  # (40, 6)
        cases = []
        for k in (2, 3, 5):
            mistakes = {
                "that is the share of the k-th guess alone; all of the first k count": ranked[:, k - 1],
                "those are the k smallest logits": ranked.flip(1)[:, :k].any(1),
                "it looks at one guess less than k": ranked[:, : k - 1].any(1),
                "it looks at one guess more than k": ranked[:, : k + 1].any(1),
                "the mean runs over all k guesses; ask first whether `any` is right": ranked[:, :k],
            }
            means = {hint: wrong.double().mean() for hint, wrong in mistakes.items()}
            wanted = ranked[:, :k].any(1).double().mean()
            found = _share(answer, logits, labels, k)
            said = f"for k = {k} it gives {told(found)}, not {told(wanted.item())}"
            cases.append((found, wanted, means, said))
        compare(*cases)

    def ends_right(answer: Any) -> None:
        found = _share(answer, logits, labels, 6)
        compare((found, 1, {}, f"with all 6 classes as guesses it gives {told(found)}, not 1"))

    return (
        ("it gives a share, from 0 to 1", gives_share),
        ("it finds the right class among the first k, for several k", agrees),
        ("with as many guesses as classes it is always right", ends_right),
    )


# ---------------------------------------------------------------- refuse to answer


def _prefix(within: Tensor) -> int:
    """The length of the longest prefix that is allowed."""
    return int(within.nonzero().max()) + 1 if within.any() else 0


def _answered(confidence: Tensor, right: Tensor, most_wrong: float) -> tuple[int, dict[str, float]]:
    """How many images are answered, and what likely mistakes say."""
    total, many = len(right), torch.arange(1, len(right) + 1)
    order = confidence.argsort(descending=True)
    wrong = (~right)[order].cumsum(0).double()
    share = wrong / many
    wanted = _prefix(share <= most_wrong + 1e-12)
    over = (share > most_wrong + 1e-12).nonzero()
    asis, backwards = ((~right)[o].cumsum(0).double() / many for o in (torch.arange(total), order.flip(0)))
    return wanted, {
        "it stops at the first excess; later right answers may bring the share down again": (
            float(over.min()) if len(over) else total
        ),
        "the share is of the answers that are given, not of all images": _prefix(wrong <= most_wrong * total),
        "just `most_wrong` is allowed, too: at most, not less": _prefix(share < most_wrong - 1e-12),
        "that is the place of the last answer, counted from 0; it answers one more": wanted - 1,
        "that is how many it passes on": total - wanted,
        "that is a share; give the number of images": wanted / total,
        "the least confident are answered first": _prefix(backwards <= most_wrong),
        "the images are in no order; sort them by their confidence": _prefix(asis <= most_wrong),
    }


def _refuse_checks() -> tuple[Check, ...]:
    rng = np.random.default_rng(0)
    confidence = torch.from_numpy(rng.permutation(np.linspace(0.3, 0.99, 64)))
    right = torch.ones(64, dtype=torch.bool)
    right[confidence.argsort(descending=True)[[2, 24, 32, 36, 40, 44, 48, 49, 50, 51]]] = False

    def gives_number(answer: Any) -> None:
        found = number(answer, confidence, right, 0.2)
        if not 0 <= found <= 64:
            raise NotYet(f"it gives {told(found)}, and there are 64 images")

    def agrees(answer: Any) -> None:
        cases = []
        for most in (0.0625, 0.125, 0.09):
            found = number(answer, confidence, right, most)
            wanted, mistakes = _answered(confidence, right, most)
            said = f"with at most {most:g} wrong it answers {told(found)} of 64 images, and not {wanted}"
            cases.append((found, wanted, mistakes, said))
        compare(*cases)

    def at_the_ends(answer: Any) -> None:
        few = number(answer, confidence[:5], torch.zeros(5, dtype=torch.bool), 0.1)
        compare((few, 0, {}, f"where every answer is wrong it gives {told(few)}, not 0"))
        every = number(answer, confidence[:5], torch.ones(5, dtype=torch.bool), 0.1)
        compare((every, 5, {}, f"where all of 5 answers are right it gives {told(every)}, not 5"))

    return (
        ("it gives a number of images", gives_number),
        ("it answers as many as it may", agrees),
        ("it knows what to do where all is wrong, or all is right", at_the_ends),
    )


# ---------------------------------------------------------------- precision where anomalies are rare


def _precision_checks() -> tuple[Check, ...]:
    def gives_share(answer: Any) -> None:
        _share(answer, 0.9, 0.01, 0.5)

    def agrees(answer: Any) -> None:
        cases = []
        for r, f, s in ((0.9, 0.01, 0.3), (0.9, 0.01, 0.01), (0.7, 0.05, 0.001)):
            wanted = r * s / (r * s + f * (1 - s))
            mistakes = {
                "the share of unusual beats is not used": r / (r + f),
                "false positives come from the others, a share of 1 - share": r * s / (r * s + f),
                "that is the share of the flagged that is normal": 1 - wanted,
                "that is unusual and flagged, as a share of all beats; divide by what is flagged": r * s,
                "of the normal beats a share of fpr is flagged, and not 1 - fpr": (
                    r * s / (r * s + (1 - f) * (1 - s))
                ),
                "found are a share of recall of the unusual beats, not all of them": s / (s + f * (1 - s)),
                "divide by what is flagged, not by what is unusual": r,
            }
            found = _share(answer, r, f, s)
            given = f"recall {r:g}, false positives {f:g} and a share of {s:g} give {told(found)}"
            cases.append((found, wanted, mistakes, f"{given}, not {told(wanted)}"))
        compare(*cases)

    def at_the_ends(answer: Any) -> None:
        for given, said in (
            ((0.5, 0.0, 0.1), "without false positives"),
            ((0.5, 0.1, 1.0), "where all is unusual"),
        ):
            found = _share(answer, *given)
            compare((found, 1, {}, f"{said} it gives {told(found)}, not 1"))

    return (
        ("it gives a share, from 0 to 1", gives_share),
        ("it counts what is flagged among unusual and normal beats", agrees),
        ("it is 1 without false positives, and where all is unusual", at_the_ends),
    )


# ---------------------------------------------------------------- how rare is so high a score


def _level_mistakes(normals: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
    """What likely mistakes give, (N,) each."""
    n = len(normals)
    reach = (normals[None] >= scores[:, None]).sum(1)
    above = (normals[None] > scores[:, None]).sum(1)
    p = (1 + reach) / (n + 1)
    return {
        "a normal with just this score counts, too: k is how many reach it": -np.log10((1 + above) / (n + 1)),
        "the logarithm is to base 10": -np.log(p),
        "the sign is wrong: rare scores get high levels": np.log10(p),
        "that is the share itself; take its negative logarithm": p,
        "k counts the normals that reach it, not those below": -np.log10((1 + n - reach) / (n + 1)),
        "the new one is among n + 1, not n": -np.log10((1 + reach) / n),
        "the 1 is missing above the line: the new one reaches its own score": (
            -np.log10(np.maximum(reach, 1e-300) / (n + 1))
        ),
    }


def _level_checks() -> tuple[Check, ...]:
    rng = np.random.default_rng(0)
    normals = rng.integers(0, 200, 99) / 10  # some are equal
    among = np.concatenate([normals[:6], [0.05, 12.34]])
    beyond = np.array([25.0, 30.0])

    def has_shape(answer: Any) -> None:
        values(answer, (len(among),), normals, among)

    def agrees(scores: np.ndarray) -> Any:
        def test(answer: Any) -> None:
            reach = (normals[None] >= scores[:, None]).sum(1)
            found = values(answer, (len(scores),), normals, scores)
            hint = "the numbers differ; by hand, what is the level of the highest of 9 normals?"
            wanted = -np.log10((1 + reach) / (len(normals) + 1))
            compare((found, wanted, _level_mistakes(normals, scores), hint))

        return test

    def is_finite(answer: Any) -> None:
        try:
            agrees(beyond)(answer)
        except NotYet as fault:
            if "infinite" in str(fault):
                raise NotYet(
                    "no normal reaches it, and still its level is finite: 1 + k is never 0"
                ) from None
            raise

    return (
        ("it gives a level for each score", has_shape),
        ("it counts the normals that reach a score", agrees(among)),
        ("a score that no normal reaches has a level, too", is_finite),
    )


# ---------------------------------------------------------------- neighbours of one kind


def _purity_mistakes(vectors: np.ndarray, labels: np.ndarray, count: int) -> dict[str, float]:
    """What likely mistakes give for vectors (N, d) and labels (N,)."""
    away = np.linalg.norm(vectors[:, None] - vectors[None], axis=2)
    long = np.linalg.norm(vectors, axis=1)
    along = -(vectors @ vectors.T)

    def alike(distance: np.ndarray, first: int, last: int) -> np.ndarray:
        others = distance + np.diag(np.full(len(labels), -1e6 if first else 1e6))  # itself first, or last
        hits: np.ndarray = labels[others.argsort(axis=1)[:, first:last]] == labels[:, None]
        return hits

    near = alike(away, 1, count + 1)
    return {
        "a vector is its own nearest neighbour and does not count": alike(away, 1, count).sum(1).mean()
        / count
        + 1 / count,
        "without itself, one neighbour is missing": alike(away, 1, count).mean() if count > 1 else 0.0,
        "those are the vectors that are farthest away": alike(-away, 0, count).mean(),
        "that is the cosine; take the distance": alike(along / np.outer(long, long), 0, count).mean(),
        "that is the product of two vectors; take the distance": alike(along, 0, count).mean(),
        "it asks for one neighbour of the same label; take the share": near.any(axis=1).mean(),
        "it asks whether most are alike; take the share": (near.mean(axis=1) > 0.5).mean(),
        "that is the sum over the neighbours; take the mean": near.sum(axis=1).mean(),
    }


def _purity_checks() -> tuple[Check, ...]:
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 50)
    vectors = rng.normal(size=(50, 3)) + 1.2 * (labels == "b")[:, None] + 1

    def gives_number(answer: Any) -> None:
        number(answer, vectors, labels, 5)

    def agrees(answer: Any) -> None:
        cases = []
        for count in (3, 10):
            found, wanted = number(answer, vectors, labels, count), neighbor_purity(vectors, labels, count)
            said = f"for {count} neighbours it gives {told(found)}, not {told(wanted)}"
            cases.append((found, wanted, _purity_mistakes(vectors, labels, count), said))
        compare(*cases)

    return (
        ("it gives a number", gives_number),
        ("it gives the share of neighbours that have the same label", agrees),
    )


SCORES: dict[str, Exercise] = {
    "top-k": Exercise("top_k(logits, labels, k)", _top_k_checks),
    "refuse": Exercise("answered(confidence, right, most_wrong)", _refuse_checks),
    "purity": Exercise("purity(vectors, labels, count)", _purity_checks),
    "precision": Exercise("precision(recall, fpr, share)", _precision_checks),
    "level": Exercise("level(normal_scores, scores)", _level_checks),
}
"""The exercises on scores, by name."""
