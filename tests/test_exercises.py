"""The checker of exercises: right answers pass whatever their names, and wrong ones hear what is wrong."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from companion.exercises import EXERCISES, check
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


@pytest.mark.parametrize(
    ("exercise", "answer"),
    [
        ("residual-block", BasicResidualBlock),
        ("residual-block", Mine),
        ("pre-activated-block", PreActResidualBlock),
        ("bottleneck-block", BottleneckBlock),
        ("convolution", lambda maps, weight: F.conv2d(maps, weight, padding=1)),
    ],
)
def test_right_answers_are_right(exercise, answer):
    report = check(exercise, answer)
    assert report.right, report
    assert repr(report).startswith(f"{exercise}: all right\n  right:   ")


@pytest.mark.parametrize(
    ("answer", "promise", "fault"),
    [
        (3, "can be made", "TypeError"),
        (lambda *args: "block", "can be made", "a str; derive"),
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
        (lambda maps, weight: F.conv2d(maps, weight), "not (2, 4, 7, 5)"),
        (lambda maps, weight: F.conv2d(maps, weight.flip(2, 3), padding=1), "upside down"),
        (lambda maps, weight: F.conv2d(F.pad(maps, (1,) * 4, mode="reflect"), weight), "border"),
        (lambda maps, weight: F.conv2d(maps, weight.transpose(2, 3), padding=1), "which order"),
    ],
)
def test_a_wrong_convolution_hears_what_is_wrong(function, fault):
    assert fault in repr(check("convolution", function))


def test_checking_leaves_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    check("residual-block", Mine)
    assert torch.equal(torch.rand(2), expected)


def test_an_unknown_exercise_is_refused():
    with pytest.raises(ValueError, match="there are: convolution, residual-block"):
        check("everything", Mine)
    assert all(test() for test in EXERCISES.values())
