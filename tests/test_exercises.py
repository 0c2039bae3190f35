"""The checker of exercises: right answers pass whatever their names, and wrong ones hear what is wrong."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion.exercises import EXERCISES, check
from companion.exercises.base import NotYet, compare, number, values
from companion.models.blocks import BasicResidualBlock, BottleneckBlock, PreActResidualBlock


class Mine(nn.Module):
    """A right answer with other names, in another order; subclasses spoil it."""

    bias = False
    always = False
    stride_at = 1

    def __init__(self, in_channels, width, stride):
        super().__init__()
        if in_channels != width or stride != 1 or self.always:
            projection = nn.Conv2d(in_channels, width, 1, stride, bias=False)
            self.way = nn.Sequential(projection, nn.BatchNorm2d(width))
        else:
            self.way = nn.Identity()
        first, second = (stride, 1) if self.stride_at == 1 else (1, stride)
        self.b = nn.Conv2d(width, width, 3, second, 1, bias=self.bias)
        self.a = nn.Conv2d(in_channels, width, 3, first, 1, bias=self.bias)
        self.after_b, self.after_a = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def branch(self, x):
        return self.after_b(self.b(F.relu(self.after_a(self.a(x)))))

    def forward(self, x):
        return F.relu(self.branch(x) + self.way(x))


def spoilt(**changes):
    return type("Spoilt", (Mine,), changes)


class StartsAtZero(Mine):
    def __init__(self, in_channels, width, stride):
        super().__init__(in_channels, width, stride)
        nn.init.zeros_(self.after_b.weight)


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("residual-block", BasicResidualBlock),
        ("residual-block", Mine),
        ("residual-block", StartsAtZero),
        ("pre-activated-block", PreActResidualBlock),
        ("bottleneck-block", BottleneckBlock),
        ("convolution", lambda maps, weight: F.conv2d(maps, weight, padding=1)),
        ("convolution", lambda maps, weight: F.conv2d(maps.double(), weight.double(), padding=1)),
    ],
)
def test_right_answers_are_right(exercise, answer):
    report = check(exercise, answer)
    assert report.right, report
    assert repr(report).startswith(f"{exercise}: all right\n  right:   it is called as ")


@pytest.mark.parametrize(
    ("answer", "promise", "fault"),
    [
        (3, "is called as", "of type int; hand over Block itself"),
        (lambda *args: "block", "can be made", "of type str; derive"),
        (spoilt(forward=lambda self, x: None), "can be made", "no tensor"),
        (lambda i, w, s: Mine(i, w, 1), "right shape", r"into \(2, 32, 8, 8\), not \(2, 32, 4, 4\)"),
        (spoilt(forward=lambda self, x: F.relu(self.branch(x))), "weights at zero", "returns zeros"),
        (spoilt(forward=lambda self, x: self.branch(x) + self.way(x)), "weights at zero", "negative numbers"),
        (spoilt(forward=lambda self, x: F.relu(self.branch(x)) + self.way(x)), "take away", "only add"),
        (
            spoilt(forward=lambda self, x: F.relu(self.branch(x) + 2 * self.way(x))),
            "weights at zero",
            "something else",
        ),
        (spoilt(bias=True), "many weights", "biases"),
        (spoilt(always=True), "many weights", "only where the shape changes"),
        (
            spoilt(forward=lambda self, x: F.relu(self.branch(x.detach()).detach() + self.way(x))),
            "gradients",
            "b.weight, a.weight",
        ),
        (spoilt(stride_at=2), "computes what", "stride where it belongs"),
        (
            spoilt(branch=lambda self, x: self.after_b(self.b(self.after_a(F.relu(self.a(x)))))),
            "computes what",
            "conv, norm, ReLU",
        ),
    ],
)
def test_a_wrong_block_hears_what_is_wrong(answer, promise, fault):
    report = check("residual-block", answer)
    assert not report.right
    (found,) = (finding for finding in report.findings if promise in finding.promise)
    assert re.search(fault, found.fault), report


def test_a_pre_activated_block_ends_with_the_addition():
    report = check("pre-activated-block", BasicResidualBlock)
    assert "nothing may follow the addition" in repr(report)


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda maps, weight: None, "it gives None; is there a `return`?"),
        (lambda maps, weight: maps.numpy(), "something of type ndarray, and a tensor"),
        (lambda maps, weight: F.conv2d(maps, weight), "not (2, 4, 7, 5)"),
        (lambda maps, weight: F.conv2d(maps, weight.flip(2, 3), padding=1), "upside down"),
        (lambda maps, weight: F.conv2d(F.pad(maps, (1,) * 4, mode="reflect"), weight), "border"),
        (lambda maps, weight: F.conv2d(maps, weight.transpose(2, 3), padding=1), "which order"),
    ],
)
def test_a_wrong_convolution_hears_what_is_wrong(function, fault):
    assert fault in repr(check("convolution", function))


def identity_weight(channels, value=1.0, place=(1, 1)):
    weight = torch.zeros(channels, channels, 3, 3)
    for channel in range(channels):
        weight[(channel, channel, *place)] = value
    return weight


def test_a_convolution_that_changes_nothing_is_right():
    assert check("identity-weight", identity_weight).right
    assert check("identity-weight", lambda channels: identity_weight(channels).numpy()).right


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda c: torch.zeros(c, 1, 3, 3), "shape (4, 1, 3, 3), and not (4, 4, 3, 3)"),
        (lambda c: torch.zeros(c, c, 3, 3), "the branch of a residual block needs"),
        (lambda c: identity_weight(c).sum(0, keepdim=True).expand(c, -1, -1, -1), "the sum of all channels"),
        (lambda c: identity_weight(c, place=(slice(None), slice(None))), "the sum of its window"),
        (lambda c: identity_weight(c, 1 / 9, (slice(None), slice(None))), "the kernel that blurs"),
        (lambda c: identity_weight(c, place=(0, 0)), "the middle is [1, 1]"),
        (lambda c: identity_weight(c, 2), "differs from its input by up to"),
    ],
)
def test_a_convolution_that_changes_something_hears_what(answer, fault):
    assert fault in repr(check("identity-weight", answer))


def test_checking_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check("residual-block", Mine)
    assert torch.equal(torch.rand(2), expected)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match="there are: convolution, identity-weight"):
        check("everything", Mine)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_every_answer_that_is_none_hears_it_in_words(exercise):
    call = EXERCISES[exercise].call
    name = call.partition("(")[0]
    assert EXERCISES[exercise].checks()
    report = check(exercise, 7)
    assert f"this is something of type int; hand over {name} itself" in report.findings[0].fault
    report = check(exercise, lambda: 7)
    assert report.findings[0].promise == f"it is called as {call}"
    assert report.findings[0].fault == "yours takes ()"

    def raises(*args):
        raise RuntimeError("out of order")

    assert "it raises RuntimeError: out of order" in repr(check(exercise, raises))
    for nothing in (None, "seven"):
        report = check(exercise, lambda *args, gives=nothing: gives)
        if exercise == "paper-stride" and nothing is None:
            continue  # a net may be changed in place
        assert len(report.findings) == 2, report
        assert re.search("None; is there a `return`|of type (NoneType|str)", report.findings[1].fault), report


def test_a_function_written_in_c_is_called_all_the_same():
    assert check("precision", max).findings[0].fault == ""


# ---------------------------------------------------------------- what checks are made of


@pytest.mark.parametrize("given", [3, 3.0, np.float32(3), np.array([3]), torch.tensor(3.0)])
def test_a_number_may_be_of_any_library(given):
    assert number(lambda: given) == 3


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (None, "None; is there a `return`"),
        (True, "of type bool, and a number"),
        ("3", "of type str, and a number"),
        (torch.zeros(2, 3), r"shape \(2, 3\), and one number"),
        (float("nan"), "gives nan; is something divided by 0"),
        (float("inf"), "gives inf"),
    ],
)
def test_what_is_no_number_hears_what_it_is(given, fault):
    with pytest.raises(NotYet, match=fault):
        number(lambda: given)


@pytest.mark.parametrize("given", [[1, 2], (1.0, 2), np.array([1, 2]), nn.Parameter(torch.tensor([1.0, 2]))])
def test_numbers_may_be_of_any_library(given):
    assert values(lambda: given, (2,)).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ({}, "of type dict, and numbers"),
        ("ab", "of type str"),
        ([1, 2, 3], r"shape \(3,\), and not \(2,\)"),
        ([1, float("nan")], "NaN or infinite"),
    ],
)
def test_what_are_no_numbers_hears_what_it_is(given, fault):
    with pytest.raises(NotYet, match=fault):
        values(lambda: given, (2,))


def test_an_answer_that_changes_what_it_is_given_hears_that():
    for argument in (torch.zeros(2), np.zeros(2), [0, 0]):

        def spoil(x):
            x[0] = 1
            return 3

        with pytest.raises(NotYet, match="changes what it is given"):
            number(spoil, argument)
        assert argument[0] == 0


def test_a_hint_is_given_if_the_mistake_explains_all_cases():
    compare((1, 1, {"doubled": 2}, "off"), (3, 3, {"doubled": 6}, "off"))
    with pytest.raises(NotYet, match="doubled"):
        compare((2, 1, {"doubled": 2}, "off"), (6, 3, {"doubled": 6}, "off"))
    with pytest.raises(NotYet, match="second is off"):
        compare((1, 1, {"doubled": 2}, "first is off"), (6, 3, {"doubled": 6}, "second is off"))
