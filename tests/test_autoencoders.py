"""The autoencoders: parameter counts, shapes, gradients, and what they refuse."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from companion.models.autoencoders import ConvAutoencoder, ResidualAutoencoder, WaveAutoencoder, WaveBlock
from companion.models.resnet import count_parameters
from companion.objectives.reconstruction import WaveformReconstruction


def test_the_residual_autoencoder_has_the_parameters_of_its_source():
    net = ResidualAutoencoder()
    assert count_parameters(net.encoder) == 11_109_536
    assert count_parameters(net.decoder) == 12_726_721
    assert count_parameters(net) == 23_836_257
    assert net.latent_shape == (16, 16, 16)
    biased = [name for name, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.bias is not None]
    assert biased == ["decoder.4"]


def test_the_convolutional_autoencoder_has_the_layers_of_its_source():
    net = ConvAutoencoder()
    convolutions = 9 * (32 + 32 * 64 + 64 * 128) + 16 * (128 * 64 + 64 * 32 + 32) + 1
    linear = 2 * 8192 * 512 + 512 + 8192
    norms = 2 * (32 + 64 + 128 + 64 + 32)
    assert count_parameters(net) == convolutions + linear + norms
    assert net.latent_shape == (512,)


@settings(max_examples=12, deadline=None)
@given(*map(st.integers, (1, 1, 1), (3, 3, 4)), st.lists(st.integers(1, 6), min_size=1, max_size=3))
def test_small_ones_give_back_the_shape(channels, high, wide, widths):
    size = (high * 2 ** len(widths), wide * 2 ** len(widths))
    images = torch.rand(2, channels, *size)
    residual = ResidualAutoencoder(channels, size, widths=widths, latent_channels=2)
    for net in (ConvAutoencoder(channels, size, latent=3, widths=widths), residual):
        x_hat, z = net.eval()(images)
        assert x_hat.shape == images.shape
        assert tuple(z.shape[1:]) == net.latent_shape
        assert torch.equal(net.decode(net.encode(images)), x_hat)


def test_every_parameter_gets_a_gradient_and_the_ranges_are_those_of_tanh_and_of_the_sigmoid():
    size, images = (2, (16, 24)), 5 * torch.randn(3, 2, 16, 24)
    for net, low in ((ConvAutoencoder(*size, 6, (4, 8)), -1), (ResidualAutoencoder(*size, (4, 8), 3), 0)):
        x_hat = net(images)[0]
        assert low <= x_hat.min() <= x_hat.max() <= 1
        x_hat.square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in net.parameters())


def test_the_convolution_and_the_upsampling_commute():
    stage, code = ResidualAutoencoder(1, (8, 8), (4,), 3).eval().decoder[0], torch.randn(2, 3, 5, 6)
    other = stage.conv(nn.functional.interpolate(code, scale_factor=2, mode="bilinear"))
    torch.testing.assert_close(stage(code), stage.blocks(stage.norm(other)))


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 40), st.integers(1, 9))
def test_a_window_of_any_length_comes_back(channels, depth, more, bottleneck):
    length = 2**depth + more
    torch.manual_seed(length)
    net = WaveAutoencoder(channels, length, depth, bottleneck, 3)
    reconstruction, latent = net(torch.randn(3, channels, length))
    assert reconstruction.shape == (3, channels, length)
    assert latent.shape == (3, *net.latent_shape)
    reconstruction.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    net.eval()
    whole = net(windows := torch.randn(4, channels, length))[0]
    alone = torch.cat([net(window[None])[0] for window in windows])
    torch.testing.assert_close(whole, alone, rtol=1e-3, atol=1e-3)


def test_a_block_over_time_is_preactivated_and_adds():
    block = WaveBlock(3, 3).eval()
    x = torch.randn(2, 3, 9)
    inner = block.conv2(torch.relu(block.bn2(block.conv1(torch.relu(block.bn1(x))))))
    assert torch.equal(block(x), inner + x)
    down = WaveBlock(3, 5, stride=2).eval()
    nn.init.zeros_(down.conv2.weight)
    assert torch.equal(down(x), down.shortcut(x))
    assert down(x).shape == (2, 5, 5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="sides that 8 divides"):
        ConvAutoencoder(size=(60, 64))
    with pytest.raises(ValueError, match="take windows of at least 16 samples, or depth=3"):
        WaveAutoencoder(1, 15)


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
