"""The residual autoencoder for waveforms: the net and the objective."""

import numpy as np
import pytest
import torch
from torch import nn

from companion.objectives.reconstruction import WaveformReconstruction
from companion.training import FitConfig, make_optimizer


def waves(count, length=32, channels=None, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, length) if channels is None else (count, channels, length)
    phase = rng.uniform(0, 0.5, (*shape[:-1], 1))
    return (np.sin(np.linspace(0, 6, length) + phase) + 0.05 * rng.normal(size=shape)).astype(np.float32)


def test_gaps_do_not_count():
    target = torch.randn(3, 2, 5)
    known = torch.rand(3, 2, 5) < 0.6
    known[2] = False
    shown = torch.where(known, target + 2, torch.full_like(target, 99.0))
    for loss, each in (("l1", 2), ("l2", 4)):
        found = WaveformReconstruction(loss)(lambda _: (shown, None), (target, known), None)["loss"]
        assert found.item() == pytest.approx((each + each + 0) / 3)


def test_the_input_is_noisy_and_the_target_is_not():
    class Watch(nn.Module):
        def forward(self, x):
            self.seen = x
            return x, x

    watch, windows = Watch(), torch.randn(500, 1, 20)
    known = torch.ones_like(windows, dtype=torch.bool)
    objective = WaveformReconstruction("l2", jitter=0.3)
    loss = objective(watch, (windows, known), torch.Generator().manual_seed(0))["loss"]
    assert loss.item() == pytest.approx(0.09, rel=0.05)
    assert (watch.seen - windows).std().item() == pytest.approx(0.3, rel=0.05)
    assert objective(watch, (windows, known), None)["loss"] == 0  # an evaluation augments nothing


def test_adam_adds_the_decay_to_the_gradient():
    def after_a_step(optimizer):
        net = nn.Linear(1, 1, bias=False)
        nn.init.constant_(net.weight, 2.0)
        stepper = make_optimizer(net, FitConfig(num_steps=1, lr=0.1, optimizer=optimizer, weight_decay=0.5))
        net.weight.grad = torch.tensor([[3.0]])
        stepper.step()
        return net.weight.item()

    assert after_a_step("adam") == pytest.approx(2 - 0.1)  # whatever the decay, the first step has size lr
    assert after_a_step("adamw") == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1)
