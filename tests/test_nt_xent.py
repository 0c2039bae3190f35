from __future__ import annotations

import math

import pytest
import torch

from companion.objectives.selfsupervised import nt_xent


def brute_force(a, b, temperature):
    """The definition, one pair after the other."""
    views = [*a, *b]
    total = torch.zeros((), dtype=a.dtype)
    for i, view in enumerate(views):
        partner = (i + len(a)) % len(views)
        terms = {
            k: torch.exp(torch.dot(view, other) / (view.norm() * other.norm()) / temperature)
            for k, other in enumerate(views)
            if k != i
        }
        total = total - torch.log(terms[partner] / sum(terms.values()))
    return total / len(views)


@pytest.mark.parametrize("count", [1, 2, 7])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_nt_xent_and_its_gradient_are_those_of_the_definition(count, temperature):
    torch.manual_seed(count)
    a, b = torch.randn(2, count, 5, dtype=torch.float64)
    ours, theirs = ([t.clone().requires_grad_() for t in (a, b)] for _ in range(2))
    fast, slow = nt_xent(*ours, temperature), brute_force(*theirs, temperature)
    assert fast.item() == pytest.approx(slow.item(), abs=1e-6)
    assert nt_xent(a.float(), b.float(), temperature).item() == pytest.approx(slow.item(), abs=1e-5)
    for mine, his in zip(torch.autograd.grad(fast, ours), torch.autograd.grad(slow, theirs), strict=True):
        torch.testing.assert_close(mine, his, atol=1e-10, rtol=1e-6)


def test_the_gradient_of_nt_xent_is_that_of_finite_differences():
    a, b = torch.randn(2, 3, 4, dtype=torch.float64)
    a.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: nt_xent(a, b, 0.5), a)


def test_a_row_is_not_compared_with_itself_but_with_all_others():
    same = torch.ones(5, 3)  # every cosine is 1: one of the nine others is right
    assert nt_xent(same, same, 0.3).item() == pytest.approx(math.log(9), abs=1e-6)
    a = torch.eye(4)  # the partner at 1, the 6 others at 0
    assert nt_xent(a, a, 1.0).item() == pytest.approx(math.log(1 + 6 / math.e), abs=1e-6)


def test_nt_xent_keeps_its_precision_in_mixed_precision():
    a, b = torch.randn(2, 32, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nt_xent(a, b, 0.05)
    assert mixed.item() == nt_xent(a, b, 0.05).item()


@pytest.mark.parametrize(
    ("a", "b", "temperature"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), 1.0),
        (torch.ones(0, 3), torch.ones(0, 3), 1.0),
        (torch.ones(3), torch.ones(3), 1.0),
        (torch.ones(2, 3), torch.ones(2, 3), 0.0),
    ],
)
def test_what_nt_xent_cannot_compare_is_refused(a, b, temperature):
    with pytest.raises(ValueError, match=r"one shape|temperature"):
        nt_xent(a, b, temperature)
