"""A second pair of eyes for exercises: says what is right in a reader's answer, and what is not yet.

No solution is compared letter by letter. Each check asks for something that a right answer does: its shapes,
its values on small inputs, what it computes when its weights are zero, where gradients arrive. The reference
is the package's own function. So names, and the way to the answer, are the reader's own.
"""

from __future__ import annotations

from typing import Any

import torch

from companion.exercises.base import Exercise, Finding, NotYet, Report
from companion.exercises.blocks import BLOCKS
from companion.exercises.counts import COUNTS
from companion.exercises.losses import LOSSES
from companion.exercises.scores import SCORES
from companion.exercises.verdicts import VERDICTS

EXERCISES: dict[str, Exercise] = {**BLOCKS, **COUNTS, **LOSSES, **SCORES, **VERDICTS}
"""What can be checked, by name."""


def check(exercise: str, answer: Any) -> Report:
    """Say whether the answer to an exercise is right, and if not, what is wrong.

    Args:
        exercise: one of the names in ``EXERCISES``.
        answer: the class or function that you wrote.

    Returns:
        A report that prints as text. The state of PyTorch's random numbers is as before.

    Raises:
        ValueError: if there is no such exercise.

    Example:
        >>> from companion.models.blocks import BasicResidualBlock
        >>> check("residual-block", BasicResidualBlock).right
        True
        >>> check("convolution", lambda maps, weight: maps)
        convolution: not yet right
          right:   it is called as conv(maps, weight)
          not yet: its outputs have the right shape
                   maps of (2, 3, 7, 5) and weights of (4, 3, 3, 3) give (2, 3, 7, 5), not (2, 4, 7, 5)
    """
    if exercise not in EXERCISES:
        raise ValueError(f"there is no exercise {exercise!r} to check; there are: {', '.join(EXERCISES)}")
    asked = EXERCISES[exercise]
    findings = [Finding(f"it is called as {asked.call}", asked.misfit(answer))]
    if findings[0].fault:
        return Report(exercise, tuple(findings))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        for place, (promise, test) in enumerate(asked.checks()):
            try:
                test(answer)
                findings.append(Finding(promise))
            except NotYet as fault:
                findings.append(Finding(promise, str(fault)))
            except Exception as error:
                findings.append(Finding(promise, f"it raises {type(error).__name__}: {error}"))
            if findings[-1].fault and place < 2:
                break  # what cannot be called or has another shape can be asked nothing else
    return Report(exercise, tuple(findings))
