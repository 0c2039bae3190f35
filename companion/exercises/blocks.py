"""Checks of residual blocks, of a convolution by hand, and of one that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import permutations, product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from companion.exercises.base import Check, Exercise, NotYet, called, compare, kind, values
from companion.models.blocks import BasicResidualBlock, BottleneckBlock, PreActResidualBlock

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
            raise NotYet(f"it makes {kind(made)}; derive the class from nn.Module")
        for case in _CASES:
            made = make(block, case)[0]
            if not isinstance(made(torch.randn(2, case[0], 8, 8)), Tensor):
                raise NotYet("its forward returns no tensor; is there a `return`?")

    def has_shape(block: Any) -> None:
        for case, size in product(_CASES, (8, 9)):
            mine, theirs = make(block, case)
            x = torch.randn(2, case[0], size, size)
            found, wanted = tuple(mine(x).shape), tuple(theirs(x).shape)
            if found != wanted:
                made = f"Block{(case[0], case[1] // expansion, case[2])}"
                raise NotYet(f"{made} turns {tuple(x.shape)} into {found}, not {wanted}")

    def starts_as_shortcut(block: Any) -> None:
        mine = make(block, _CASES[0])[0]
        for parameter in mine.parameters():
            nn.init.zeros_(parameter)
        x = torch.randn(2, 16, 8, 8)
        out, wanted = mine(x), x if preactivated else x.relu()
        if torch.equal(out, wanted):
            return
        if not out.any():
            raise NotYet(
                "it returns zeros: no path without weights carries the input past the layers, as one must "
                "where the shape stays"
            )
        if torch.equal(out, x):
            raise NotYet(
                "it returns the input with its negative numbers: the last ReLU comes after the addition"
            )
        if torch.equal(out, x.relu()):
            raise NotYet("it loses the negative numbers: nothing may follow the addition")
        raise NotYet("it returns something else than its input; what else is on the shortcut?")

    def can_take_away(block: Any) -> None:
        mine, x = _awake(make(block, _CASES[0])[0]), torch.rand(8, 16, 8, 8) + 1
        if not (mine(x) < x).any():
            raise NotYet("no number gets smaller: a ReLU at the end of the branch lets it only add")

    def counts(block: Any) -> None:
        for case in _CASES:
            mine, theirs = (sum(p.numel() for p in b.parameters()) for b in make(block, case))
            if mine == theirs:
                continue
            hint = "look at the projection: it stands only where the shape changes"
            if any(isinstance(m, nn.Conv2d) and m.bias is not None for m in make(block, case)[0].modules()):
                hint = "its convolutions have biases, which the norms make useless"
            raise NotYet(f"from {case[0]} to {case[1]} channels it has {mine:,} and not {theirs:,}; {hint}")

    def learns_everywhere(block: Any) -> None:
        mine = _awake(make(block, _CASES[2])[0])
        mine(torch.randn(4, 16, 8, 8)).square().sum().backward()
        dead = [name for name, p in mine.named_parameters() if p.grad is None or not p.grad.any()]
        if dead:
            raise NotYet(f"none arrives at {', '.join(dead)}; is it used in forward, and nothing detached?")

    def computes_the_same(block: Any) -> None:
        for case in _CASES:
            mine, theirs = (b.eval() for b in make(block, case))
            _shake(theirs)
            x = torch.randn(2, case[0], 8, 8)
            wanted = theirs(x)
            if not any(torch.allclose(mine(x), wanted, atol=1e-4) for _ in _same_weights(mine, theirs)):
                order = "norm, ReLU, conv" if preactivated else "conv, norm, ReLU"
                raise NotYet(
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


def _awake(module: nn.Module) -> nn.Module:
    """The module, with numbers in weights that start at zero, as those of a branch's last norm may."""
    for norm in (m for m in module.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)):
        if norm.weight is not None and not norm.weight.any():
            nn.init.normal_(norm.weight, std=0.1)
    return module


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
        out = called(function, maps, weight)
        if not isinstance(out, Tensor):
            raise NotYet(f"it gives {kind(out)}, and a tensor is asked for")
        found = tuple(out.shape)
        if found != (2, 4, 7, 5):
            given = f"maps of {tuple(maps.shape)} and weights of {tuple(weight.shape)}"
            raise NotYet(f"{given} give {found}, not (2, 4, 7, 5)")

    def agrees(function: Any) -> None:
        out, wanted = function(maps, weight).detach().cpu().to(maps.dtype), F.conv2d(maps, weight, padding=1)
        if torch.allclose(out, wanted, atol=1e-4):
            return
        if torch.allclose(out, F.conv2d(maps, weight.flip(2, 3), padding=1), atol=1e-4):
            raise NotYet("the kernel is upside down: layers called convolutions do not flip it")
        if torch.allclose(out[..., 1:-1, 1:-1], wanted[..., 1:-1, 1:-1], atol=1e-4):
            raise NotYet("the inside is right and the border is not: pad with one row of zeros")
        raise NotYet("the numbers differ; in which order do channels and window lie in a column?")

    return (
        ("its outputs have the right shape", has_shape),
        ("it computes what `F.conv2d` computes with padding 1", agrees),
    )


# ---------------------------------------------------------------- a convolution that changes nothing


def _identity_checks() -> tuple[Check, ...]:
    """The checks of a function ``identity_weight(channels)``."""
    torch.manual_seed(0)
    maps = torch.randn(2, 4, 6, 7).double()
    own = torch.eye(4).double()[:, :, None, None]

    def has_shape(answer: Any) -> None:
        values(answer, (4, 4, 3, 3), 4)

    def changes_nothing(answer: Any) -> None:
        middle = F.pad(torch.ones(1, 1), (1, 1, 1, 1))
        corner = F.pad(torch.ones(1, 1), (0, 2, 0, 2))
        mistakes = {
            "all weights are zero, which is what the branch of a residual block needs": own * 0 * middle,
            "each channel gets the sum of all channels; let channel i pass to channel i only": (
                torch.ones_like(own) * middle
            ),
            "each position gets the sum of its window; a one belongs into the middle only": own
            * torch.ones(3, 3),
            "each position gets the mean of its window; that is the kernel that blurs": own
            * torch.full((3, 3), 1 / 9),
            "the one is in a corner, which shifts the maps; the middle is [1, 1]": own * corner,
        }
        results = {hint: F.conv2d(maps, wrong, padding=1) for hint, wrong in mistakes.items()}
        found = F.conv2d(maps, values(answer, (4, 4, 3, 3), 4), padding=1)
        said = f"an output differs from its input by up to {(found - maps).abs().max():.2g}"
        compare((found, maps, results, said))

    return (
        ("it gives the weights of a 3x3 convolution", has_shape),
        ("with them, and padding 1, a convolution returns its input", changes_nothing),
    )


_CALL = "Block(in_channels, width, stride)"
BLOCKS: dict[str, Exercise] = {
    "convolution": Exercise("conv(maps, weight)", _unfold_checks),
    "identity-weight": Exercise("identity_weight(channels)", _identity_checks),
    "residual-block": Exercise(_CALL, lambda: _block_checks(BasicResidualBlock, 1, False)),
    "pre-activated-block": Exercise(_CALL, lambda: _block_checks(PreActResidualBlock, 1, True)),
    "bottleneck-block": Exercise(_CALL, lambda: _block_checks(BottleneckBlock, 4, False)),
}
"""The exercises on blocks, by name."""
