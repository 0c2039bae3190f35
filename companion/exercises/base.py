"""What every check of an exercise is made of: reports, calls of a reader's answer, comparisons."""

from __future__ import annotations

import copy
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


class NotYet(Exception):
    """A check that failed; the message says what was seen and where to look."""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes:
        promise: what a right answer does.
        fault: what this one does instead, or ``""``.
    """

    promise: str
    fault: str = ""


@dataclass(frozen=True)
class Report:
    """What all checks of an exercise found, up to the first one that leaves the others without sense.

    Attributes:
        exercise: its name.
        findings: one for each check.
    """

    exercise: str
    findings: tuple[Finding, ...]

    @property
    def right(self) -> bool:
        """Whether nothing is missing."""
        return not any(finding.fault for finding in self.findings)

    def __repr__(self) -> str:
        lines = [
            f"  not yet: {f.promise}\n           {f.fault}" if f.fault else f"  right:   {f.promise}"
            for f in self.findings
        ]
        return "\n".join([f"{self.exercise}: {'all right' if self.right else 'not yet right'}", *lines])


Check = tuple[str, Callable[[Any], None]]


@dataclass(frozen=True)
class Exercise:
    """An exercise that can be checked.

    Attributes:
        call: how an answer is called, such as ``top_k(logits, labels, k)``. Its name is the reader's own.
        checks: makes the checks, each a promise and a function of the answer that raises :class:`NotYet`. An
            answer that breaks one of the first two is asked nothing else.
    """

    call: str
    checks: Callable[[], tuple[Check, ...]] = field(repr=False)

    def misfit(self, answer: Any) -> str:
        """Why the answer cannot be called as it should be, or ``""``."""
        name, _, inside = self.call.rstrip(")").partition("(")
        if not callable(answer):
            return f"this is {kind(answer)}; hand over {name} itself, and not what it gives"
        try:
            inspect.signature(answer).bind(*inside.split(", "))
        except TypeError:
            return f"yours takes {inspect.signature(answer)}"
        except ValueError:
            return ""  # written in C, and does not tell
        return ""


# ---------------------------------------------------------------- calling an answer


def kind(value: Any) -> str:
    """What a value is, in words.

    Example:
        >>> kind("seven")
        'something of type str'
    """
    return f"something of type {type(value).__name__}"


def same(one: Any, other: Any) -> bool:
    """Whether two arguments of any kind hold the same."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return np.array_equal(one, other)
    return bool(one == other)


def called(answer: Callable[..., Any], *args: Any) -> Any:
    """What an answer gives for these arguments.

    Raises:
        NotYet: if that is ``None``, or an argument was changed.
    """
    given = copy.deepcopy(args)
    found = answer(*given)
    if not all(same(*pair) for pair in zip(given, args, strict=True)):
        raise NotYet("it changes what it is given; whoever calls it still needs that, so work on a copy")
    if found is None:
        raise NotYet("it gives None; is there a `return`?")
    return found


def number(answer: Callable[..., Any], *args: Any) -> float:
    """The number that an answer gives, be it Python's, NumPy's or PyTorch's.

    Raises:
        NotYet: if it is none, or NaN or infinite; or see :func:`called`.
    """
    found = called(answer, *args)
    if isinstance(found, Tensor | np.ndarray) and math.prod(found.shape) == 1:
        found = found.item()
    if isinstance(found, Tensor | np.ndarray):
        raise NotYet(f"it gives numbers of shape {tuple(found.shape)}, and one number is asked for")
    if isinstance(found, bool) or not isinstance(found, numbers.Real):
        raise NotYet(f"it gives {kind(found)}, and a number is asked for")
    if not math.isfinite(found):
        raise NotYet(f"it gives {found}; is something divided by 0, or the logarithm of 0 taken?")
    return float(found)


def values(answer: Callable[..., Any], shape: tuple[int, ...], *args: Any) -> Tensor:
    """The numbers that an answer gives, as float64 of ``shape``: a tensor, an array, a list or a tuple.

    Raises:
        NotYet: if they are no numbers, of another shape, NaN or infinite; or see :func:`called`.
    """
    found = called(answer, *args)
    try:
        array = torch.as_tensor(np.asarray(found.detach().cpu() if isinstance(found, Tensor) else found))
    except (TypeError, ValueError):
        raise NotYet(f"it gives {kind(found)}, and numbers of shape {shape} are asked for") from None
    if tuple(array.shape) != shape:
        raise NotYet(f"it gives numbers of shape {tuple(array.shape)}, and not {shape}")
    if not torch.isfinite(array).all():
        raise NotYet("some of what it gives is NaN or infinite")
    return array.double()


# ---------------------------------------------------------------- comparing


def near(found: Any, wanted: Any) -> bool:
    """Whether numbers are equal but for rounding."""
    one, other = (torch.as_tensor(value, dtype=torch.float64) for value in (found, wanted))
    return torch.allclose(one, other, rtol=1e-6, atol=2e-5)


def told(value: Any) -> str:
    """A number as text: whole ones with commas, others with four digits.

    Example:
        >>> told(1234.0), told(0.123456)
        ('1,234', '0.1235')
    """
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


Case = tuple[Any, Any, Mapping[str, Any], str]


def compare(*cases: Case) -> None:
    """Accept what is wanted in every case.

    Args:
        cases: for each what the answer gives; what it should give; what likely mistakes would give, by the
            hint for them, the same hints in every case; and what to say of anything else.

    Raises:
        NotYet: with the hint of the first mistake that explains all cases, or with what the first case has to
            say that is wrong.
    """
    off = [case for case in cases if not near(case[0], case[1])]
    if not off:
        return
    for hint in off[0][2]:
        if all(near(found, mistakes[hint]) for found, _, mistakes, _ in cases):
            raise NotYet(hint)
    raise NotYet(off[0][3])
