"""What checks an exercise is made of: an answer is called, and compared with a reference.

So names, and the way to the answer, are the reader's own. For the likeliest mistakes an exercise has answers
that make them: who gives the same numbers hears the hint.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations, product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from companion.models.resnet import count_parameters

Answer = Callable[..., Any]
Check = Callable[[Any, Any], None]


class NotYet(Exception):
    """A check that failed; the message says what was seen and where to look."""


@dataclass(frozen=True)
class Exercise:
    """An exercise that can be checked."""

    call: str  #: how an answer is called, such as ``conv(maps, weight)``; its name is the reader's own
    right: Answer  #: the reference
    #: makes the arguments with which both are called; none if only the properties count
    inputs: Callable[[], Sequence[tuple[Any, ...]]] = lambda: ()
    mistakes: Mapping[str, Answer] = field(default_factory=dict)  #: answers with a likely mistake, by hint
    measure: Answer = lambda found, *_: found  #: what is compared, of a result and the arguments
    #: promises, each with a function of answer and reference that raises ``NotYet``
    properties: Mapping[str, Check] = field(default_factory=dict)

    def agrees(self, answer: Answer, right: Answer) -> None:
        """Compare the answer with the reference, and with the mistakes, over all inputs."""
        inputs = self.inputs()

        def results(of: Answer) -> list[Any]:
            found = [numbers(of, given, numbers(right, given).shape) for given in inputs]
            return [self.measure(each, *given) for each, given in zip(found, inputs, strict=True)]

        found = results(answer)
        off = [given for given, *pair in zip(inputs, found, results(right), strict=True) if not near(*pair)]
        for hint, mistake in self.mistakes.items() if off else ():
            if all(map(near, found, results(mistake))):
                raise NotYet(hint)
        if off:
            mine, theirs = (numbers(of, off[0]) for of in (answer, right))
            small = ", ".join(repr(x) for x in off[0] if np.size(x) == 1)
            told = (f"{mine.item():g}", f"{theirs.item():g}") if mine.numel() == 1 else (mine, theirs)
            raise NotYet(f"{small and f'with {small} '}it gives {told[0]}, and not {told[1]}")

    def findings(self, answer: Any) -> dict[str, str]:
        """By promise, what the answer does instead, or ``""``."""
        checks = {f"{self.call} gives the numbers of the reference": self.agrees} if self.inputs() else {}
        found: dict[str, str] = {}
        for promise, test in {**checks, **self.properties}.items():
            try:
                test(answer, self.right)
                found[promise] = ""
            except NotYet as fault:
                found[promise] = str(fault)
            except Exception as error:
                found[promise] = f"called as {self.call}, it raises {type(error).__name__}: {error}"
        return found


@dataclass(frozen=True)
class Report:
    """What the checks found: what a right answer does, and what this one does instead, or ``""``."""

    exercise: str
    findings: Mapping[str, str]

    @property
    def right(self) -> bool:
        """Whether nothing is missing."""
        return not any(self.findings.values())

    def __repr__(self) -> str:
        lines = [f"{self.exercise}: {'all right' if self.right else 'not yet right'}"]
        for promise, fault in self.findings.items():
            lines.append(f"  not yet: {promise}\n           {fault}" if fault else f"  right:   {promise}")
        return "\n".join(lines)


def kind(value: Any) -> str:
    """What a value is, in words."""
    return f"something of type {type(value).__name__}"


def numbers(answer: Answer, given: Sequence[Any], shape: Sequence[int] | None = None) -> Tensor:
    """What an answer gives, as float64: from a tensor, an array, a list or a number of any library."""
    kept = copy.deepcopy(tuple(given))
    found = answer(*kept)
    if not all(np.array_equal(*pair) for pair in zip(kept, given, strict=True)):
        raise NotYet("it changes what it is given; whoever calls it still needs that, so work on a copy")
    try:
        found = found.detach().cpu() if isinstance(found, Tensor) else found
        array = torch.as_tensor(np.asarray(found)).double()
    except (TypeError, ValueError):
        raise NotYet(f"it gives {kind(found)}, and numbers are asked for") from None
    if shape is not None and array.shape != shape and not array.numel() == math.prod(shape) == 1:
        raise NotYet(f"it gives numbers of shape {tuple(array.shape)}, and not {tuple(shape)}")
    if not torch.isfinite(array).all():
        raise NotYet("it gives NaN or infinity; is something divided by 0? do exponentials overflow?")
    return array.reshape(array.shape if shape is None else tuple(shape))


def near(one: Any, other: Any) -> bool:
    """Whether numbers are equal but for rounding."""
    one, other = (torch.as_tensor(x, dtype=torch.float64) for x in (one, other))
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-5, atol=2e-5)


def normals(*shape: int) -> Tensor:
    """The same normal numbers at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _made(block: Answer, right: Answer, case: tuple[int, int, int]) -> nn.Module:
    torch.manual_seed(0)
    module = block(case[0], case[1] // getattr(right, "expansion", 1), case[2])
    if not isinstance(module, nn.Module):
        raise NotYet(f"it makes {kind(module)}; derive the class from nn.Module")
    return module.eval()


def _computes_the_same(block: Answer, right: Answer) -> None:
    for case, size in product(((16, 16, 1), (16, 32, 1), (16, 32, 2)), (8, 9)):
        mine, theirs = (_made(of, right, case) for of in (block, right))
        for norm in (m for m in theirs.modules() if isinstance(m, nn.BatchNorm2d)):
            for tensor in (*norm.parameters(), *norm.buffers()):
                if tensor.is_floating_point():
                    nn.init.uniform_(tensor, 0.5, 1.5)  # so that no two norms are alike
        made = f"from {case[0]} to {case[1]} channels with stride {case[2]}"
        x = normals(2, case[0], size, size)
        wanted = theirs(x)
        shapes = [tuple(tensor.shape) for tensor in (x, mine(x), wanted)]
        if shapes[1] != shapes[2]:
            raise NotYet("{} it turns {} into {}, not {}".format(made, *shapes))
        if (many := count_parameters(mine)) != (few := count_parameters(theirs)):
            hint = "is there a bias in front of a norm, or a projection where the shape stays?"
            hint = hint if many > few else "has each convolution a norm of its own, the projection too?"
            raise NotYet(f"{made} it has {many:,} weights and not {few:,}; {hint}")
        if not any(torch.allclose(mine(x), wanted, atol=1e-4) for _ in _same_weights(mine, theirs)):
            hint = "is the shortcut added, and are convs, norms, ReLUs and the stride where they belong?"
            raise NotYet(f"{made} the results differ; {hint}")


def _same_weights(mine: nn.Module, theirs: nn.Module) -> Iterator[None]:
    """Load the original's weights in every order of layers in which they fit."""
    kinds = nn.Conv2d, nn.BatchNorm2d
    own, other = ([[m for m in net.modules() if type(m) is of] for of in kinds] for net in (mine, theirs))
    for orders in product(*map(permutations, other)):
        pairs = [pair for layers in zip(own, orders, strict=True) for pair in zip(*layers, strict=True)]
        if all(a.weight.shape == b.weight.shape for a, b in pairs):
            for a, b in pairs:
                a.load_state_dict(b.state_dict())
            yield


BLOCK = {"with the original's weights it computes what the original does": _computes_the_same}
