"""A second pair of eyes for exercises: says what is right in a reader's answer, and what is not yet.

No solution is compared letter by letter. Each check asks for something that a right answer does: its shapes,
what it computes when its weights are zero, where gradients arrive, how many weights it has. So names, and the
order in which layers are made, are the reader's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.models.blocks import BasicResidualBlock, BottleneckBlock, PreActResidualBlock


class _NotYet(Exception):
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

# ---------------------------------------------------------------- blocks

_CASES = ((16, 16, 1), (16, 32, 1), (16, 32, 2))
"""Channels that come in, channels that go out, stride."""


def _block_checks(
    reference: Callable[..., nn.Module], expansion: int, preactivated: bool
) -> tuple[Check, ...]:
    """The checks of a block that is made as ``Block(in_channels, width, stride)``."""

    def make(block: Callable[..., nn.Module], case: tuple[int, int, int]) -> tuple[nn.Module, nn.Module]:
        args = (case[0], case[1] // expansion, case[2])
        torch.manual_seed(0)
        return block(*args), reference(*args)

    def is_made(block: Any) -> None:
        made = make(block, _CASES[0])[0]
        if not isinstance(made, nn.Module):
            raise _NotYet(f"it gives a {type(made).__name__}; derive the class from nn.Module")
        for case in _CASES:
            made = make(block, case)[0]
            if not isinstance(made(torch.randn(2, case[0], 8, 8)), Tensor):
                raise _NotYet("its forward returns no tensor; is there a `return`?")

    def has_shape(block: Any) -> None:
        for case, size in product(_CASES, (8, 9)):
            mine, theirs = make(block, case)
            x = torch.randn(2, case[0], size, size)
            found, wanted = tuple(mine(x).shape), tuple(theirs(x).shape)
            if found != wanted:
                made = f"Block{(case[0], case[1] // expansion, case[2])}"
                raise _NotYet(f"{made} turns {tuple(x.shape)} into {found}, not {wanted}")

    def starts_as_shortcut(block: Any) -> None:
        mine = make(block, _CASES[0])[0]
        for parameter in mine.parameters():
            nn.init.zeros_(parameter)
        x = torch.randn(2, 16, 8, 8)
        out, wanted = mine(x), x if preactivated else x.relu()
        if torch.equal(out, wanted):
            return
        if not out.any():
            raise _NotYet("it returns zeros: nothing carries the input past the layers")
        if torch.equal(out, x):
            raise _NotYet(
                "it returns the input with its negative numbers: the last ReLU comes after the addition"
            )
        if torch.equal(out, x.relu()):
            raise _NotYet("it loses the negative numbers: nothing may follow the addition")
        raise _NotYet("it returns something else than its input; what else is on the shortcut?")

    def can_take_away(block: Any) -> None:
        mine, x = make(block, _CASES[0])[0], torch.rand(8, 16, 8, 8) + 1
        if not (mine(x) < x).any():
            raise _NotYet("no number gets smaller: a ReLU at the end of the branch lets it only add")

    def counts(block: Any) -> None:
        for case in _CASES:
            mine, theirs = (sum(p.numel() for p in b.parameters()) for b in make(block, case))
            if mine == theirs:
                continue
            hint = "look at the projection: it stands only where the shape changes"
            if any(isinstance(m, nn.Conv2d) and m.bias is not None for m in make(block, case)[0].modules()):
                hint = "its convolutions have biases, which the norms make useless"
            raise _NotYet(f"from {case[0]} to {case[1]} channels it has {mine:,} and not {theirs:,}; {hint}")

    def learns_everywhere(block: Any) -> None:
        mine = make(block, _CASES[2])[0]
        mine(torch.randn(4, 16, 8, 8)).square().sum().backward()
        dead = [name for name, p in mine.named_parameters() if p.grad is None or not p.grad.any()]
        if dead:
            raise _NotYet(f"none arrives at {', '.join(dead)}; is it used in forward, and nothing detached?")

    def computes_the_same(block: Any) -> None:
        for case in _CASES:
            mine, theirs = (b.eval() for b in make(block, case))
            _shake(theirs)
            x = torch.randn(2, case[0], 8, 8)
            wanted = theirs(x)
            if not any(torch.allclose(mine(x), wanted, atol=1e-4) for _ in _same_weights(mine, theirs)):
                order = "norm, ReLU, conv" if preactivated else "conv, norm, ReLU"
                raise _NotYet(
                    f"from {case[0]} to {case[1]} channels with stride {case[2]} the results differ; "
                    f"is the order {order} everywhere, and the stride where it belongs?"
                )

    end = "its input, negative numbers too" if preactivated else "the ReLU of its input"
    return (
        ("it can be made and called", is_made),
        ("its outputs have the right shape, also for stride 2 and odd sizes", has_shape),
        (f"with all weights at zero it returns {end}", starts_as_shortcut),
        ("its branch can also take away", can_take_away),
        ("it has as many weights as the original", counts),
        ("gradients arrive at every weight", learns_everywhere),
        ("with the original's weights it computes what the original does", computes_the_same),
    )


@torch.no_grad()
def _shake(module: nn.Module) -> None:
    """Give every norm numbers of its own, so that no two can be mistaken for each other."""
    for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            if tensor is not None:
                tensor.uniform_(0.5, 1.5)


def _same_weights(mine: nn.Module, theirs: nn.Module) -> Iterator[None]:
    """Load the original's weights in every order of layers in which they fit."""
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    own, other = ([[m for m in b.modules() if type(m) is kind] for kind in kinds] for b in (mine, theirs))
    shapes = [[[t.shape for t in m.state_dict().values()] for m in layers] for layers in own]
    for orders in product(*(permutations(layers) for layers in other)):
        found = [[[t.shape for t in m.state_dict().values()] for m in order] for order in orders]
        if found == shapes:
            for target, source in (
                (t, s) for a, b in zip(own, orders, strict=True) for t, s in zip(a, b, strict=True)
            ):
                target.load_state_dict(source.state_dict())
            yield


# ---------------------------------------------------------------- a convolution by hand


def _unfold_checks() -> tuple[Check, ...]:
    """The checks of a function ``conv(maps, weight)``."""
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 3, 7, 5), torch.randn(4, 3, 3, 3)

    def has_shape(function: Any) -> None:
        found = tuple(function(maps, weight).shape)
        if found != (2, 4, 7, 5):
            given = f"maps of {tuple(maps.shape)} and weights of {tuple(weight.shape)}"
            raise _NotYet(f"{given} give {found}, not (2, 4, 7, 5)")

    def agrees(function: Any) -> None:
        out, wanted = function(maps, weight), F.conv2d(maps, weight, padding=1)
        if torch.allclose(out, wanted, atol=1e-4):
            return
        if torch.allclose(out, F.conv2d(maps, weight.flip(2, 3), padding=1), atol=1e-4):
            raise _NotYet("the kernel is upside down: layers called convolutions do not flip it")
        if torch.allclose(out[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-4):
            raise _NotYet("the inside is right and the border is not: pad with one row of zeros")
        raise _NotYet("the numbers differ; in which order do channels and window lie in a column?")

    return (
        ("its outputs have the right shape", has_shape),
        ("it computes what `F.conv2d` computes with padding 1", agrees),
    )


EXERCISES: dict[str, Callable[[], tuple[Check, ...]]] = {
    "convolution": _unfold_checks,
    "residual-block": lambda: _block_checks(BasicResidualBlock, 1, False),
    "pre-activated-block": lambda: _block_checks(PreActResidualBlock, 1, True),
    "bottleneck-block": lambda: _block_checks(BottleneckBlock, 4, False),
}
"""What can be checked.

A convolution is called as ``conv(maps, weight)``; a block is made as ``Block(in_channels, width, stride)``.
"""


def check(exercise: str, answer: Any) -> Report:
    """Say whether the answer to an exercise is right, and if not, what is wrong.

    Args:
        exercise: one of :data:`EXERCISES`.
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
          not yet: its outputs have the right shape
                   maps of (2, 3, 7, 5) and weights of (4, 3, 3, 3) give (2, 3, 7, 5), not (2, 4, 7, 5)
    """
    if exercise not in EXERCISES:
        raise ValueError(f"there is no exercise {exercise!r} to check; there are: {', '.join(EXERCISES)}")
    findings = []
    with torch.random.fork_rng(devices=[]):
        for number, (promise, test) in enumerate(EXERCISES[exercise]()):
            try:
                test(answer)
                findings.append(Finding(promise))
            except _NotYet as fault:
                findings.append(Finding(promise, str(fault)))
            except Exception as error:
                findings.append(Finding(promise, f"it raises {type(error).__name__}: {error}"))
            if findings[-1].fault and number < 2:
                break  # what cannot be called or has another shape can be asked nothing else
    return Report(exercise, tuple(findings))
