"""The residual autoencoder for waveforms: the net, the objective, and the estimator around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from torch import nn

from companion import training as loop
from companion.compute import Compute
from companion.detection.thresholds import ThresholdError
from companion.estimators.waveforms import ResNetAE
from companion.models.autoencoders import WaveAutoencoder, WaveBlock
from companion.objectives.reconstruction import WaveformReconstruction, random_shift, reconstruction_error
from companion.training import CheckpointError, FitConfig, make_optimizer, save_weights

CPU = Compute(torch.device("cpu"), None)
SMALL = {"depth": 2, "bottleneck": 3, "width": 4, "batch_size": 16}


def waves(count, length=32, channels=None, seed=0):
    rng = np.random.default_rng(seed)
    shape = (count, length) if channels is None else (count, channels, length)
    phase = rng.uniform(0, 0.5, (*shape[:-1], 1))
    return (np.sin(np.linspace(0, 6, length) + phase) + 0.05 * rng.normal(size=shape)).astype(np.float32)


@pytest.fixture(scope="module")
def fitted():
    return ResNetAE(**SMALL, jitter=0.05, dropout=0.1).fit(waves(100), epochs=30, compute=CPU)


# ---------------------------------------------------------------- the net


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 40),
    st.integers(1, 9),
    st.sampled_from([1, 3, 5]),
    st.sampled_from(["batch", "group"]),
)
def test_any_length_comes_back(channels, depth, more, bottleneck, kernel, norm):
    length = 2**depth + more
    torch.manual_seed(length)
    net = WaveAutoencoder(channels, length, depth, bottleneck, 3, kernel, dropout=0.1, norm=norm)
    reconstruction, latent = net(torch.randn(3, channels, length))
    assert reconstruction.shape == (3, channels, length)
    assert latent.shape == (3, bottleneck)
    reconstruction.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())
    net.eval()
    whole = net(windows := torch.randn(4, channels, length))[0]
    alone = torch.cat([net(window[None])[0] for window in windows])
    torch.testing.assert_close(whole, alone, rtol=1e-3, atol=1e-3)


def test_a_block_is_preactivated_and_adds():
    block = WaveBlock(3, 3).eval()
    x = torch.randn(2, 3, 9)
    inner = block.conv2(torch.relu(block.norm2(block.conv1(torch.relu(block.norm1(x))))))
    assert torch.equal(block(x), inner + x)
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x)
    down = WaveBlock(3, 5, stride=2).eval()
    nn.init.zeros_(down.conv2.weight)
    assert torch.equal(down(x), down.shortcut(x))
    assert down(x).shape == (2, 5, 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 15}, r"halved 4 times; take windows of at least 16 samples, or depth=3"),
        ({"bottleneck": 0}, "at least 1"),
        ({"kernel_size": 4}, "odd"),
        ({"dropout": 1.0}, "dropout"),
        ({"norm": "layer"}, "norm"),
    ],
)
def test_impossible_nets_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WaveAutoencoder(**{"channels": 1, "length": 32} | arguments)
    with pytest.raises(ValueError, match=r"\(N, 1, 32\)"):
        WaveAutoencoder(1, 32)(torch.zeros(2, 2, 32))


# ---------------------------------------------------------------- the objective


def test_gaps_do_not_count():
    target = torch.randn(3, 2, 5)
    known = torch.rand(3, 2, 5) < 0.6
    known[2] = False
    shown = torch.where(known, target + 2, torch.full_like(target, 99.0))
    assert reconstruction_error(shown, target, known, "l1").tolist() == pytest.approx([2, 2, 0])
    assert reconstruction_error(shown, target, known, "l2").tolist() == pytest.approx([4, 4, 0])


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(1, 12))
def test_a_shift_moves_windows_and_gaps_together(max_shift, length):
    windows = torch.arange(4 * 2 * length, dtype=torch.float32).view(4, 2, length)
    known = torch.rand(4, 2, length) < 0.7
    generator = torch.Generator().manual_seed(length)
    moved, still = random_shift(windows, known, max_shift=max_shift, generator=generator)
    generator = torch.Generator().manual_seed(length)
    shifts = torch.randint(-max_shift, max_shift + 1, (4,), generator=generator)
    for n in range(4):
        for t in range(length):
            source = t - int(shifts[n])
            inside = 0 <= source < length
            nearest = min(max(source, 0), length - 1)
            assert torch.equal(moved[n, :, t], windows[n, :, nearest])
            assert torch.equal(still[n, :, t], known[n, :, nearest] & inside)


def test_the_input_is_noisy_and_the_target_is_not():
    class Watch(nn.Module):
        def forward(self, x):
            self.seen = x
            return x, x

    watch, windows = Watch(), torch.randn(500, 1, 20)
    known = torch.ones_like(windows, dtype=torch.bool)
    objective = WaveformReconstruction("l2", jitter=0.3, amplitude=0.2)
    loss = objective(watch, (windows, known), torch.Generator().manual_seed(0))["loss"]
    assert loss.item() == pytest.approx(0.09, rel=0.05)
    slopes = (watch.seen * windows).sum(2) / windows.square().sum(2)
    assert 0.5 < slopes.min() < 0.85
    assert 1.15 < slopes.max() < 1.5
    assert objective(watch, (windows, known), None)["loss"] == 0  # an evaluation augments nothing
    for bad in ({"loss": "huber"}, {"jitter": -1.0}, {"max_shift": -1}):
        with pytest.raises(ValueError, match="'l1' or 'l2'"):
            WaveformReconstruction(**bad)


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


# ---------------------------------------------------------------- the estimator


def test_it_finds_what_it_never_saw(fitted):
    usual, unusual = fitted.score(waves(50, seed=1)), fitted.score(np.roll(waves(50, seed=2), 9, axis=1))
    assert unusual.min() > usual.max()
    assert fitted.history_.train["loss"][-1] < 0.5 * fitted.history_.train["loss"][0]


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 3), st.integers(8, 21), st.sampled_from(["window", "channel", "none"]), st.integers(0, 9)
)
def test_shapes_are_kept(channels, length, standardize, count):
    model = ResNetAE(channels, **SMALL, standardize=standardize)
    model.fit(waves(12, length, channels), epochs=1, compute=CPU)
    windows = waves(count, length, channels, seed=1)
    assert model.reconstruct(windows).shape == windows.shape
    assert model.residuals(windows).shape == windows.shape
    assert model.score(windows).shape == (count,)
    assert model.latent(windows).shape == (count, 3)
    if channels == 1:
        assert np.array_equal(model.score(windows[:, 0]), model.score(windows))
        assert model.reconstruct(windows[:, 0]).shape == (count, length)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_score_is_the_residual_computed_by_hand(fitted, norm):
    windows = 5 + 3 * waves(7, seed=3)
    windows[2, 4:9] = np.nan
    model = clone(fitted).set_params(score_norm=norm)
    model.net_, model.standardizer_, model.length_ = fitted.net_, fitted.standardizer_, fitted.length_
    filled = windows.copy()
    filled[2, 4:9] = np.interp(range(4, 9), [3, 9], windows[2, [3, 9]])
    mean, std = np.nanmean(windows, axis=1, keepdims=True), np.nanstd(windows, axis=1, keepdims=True)
    standard = torch.tensor((filled - mean) / std, dtype=torch.float32)
    with torch.no_grad():
        answer = fitted.net_(standard[:, None])[0][:, 0].numpy()
    residual = np.abs(answer - standard.numpy())
    residual[2, 4:9] = np.nan
    expected = np.nanmean(residual if norm == "l1" else residual**2, axis=1)
    np.testing.assert_allclose(model.score(windows), expected, rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(windows), answer * std + mean, rtol=1e-4, atol=1e-4)


def test_offset_and_amplitude_are_invisible_where_each_window_is_standardised(fitted):
    windows = waves(20, seed=4).astype(np.float64)
    np.testing.assert_allclose(fitted.score(1e4 + 50 * windows), fitted.score(windows), rtol=1e-3)
    fixed = ResNetAE(**SMALL, standardize="channel").fit(waves(60), epochs=20, compute=CPU)
    assert (fixed.score(3 * windows) > 1.5 * fixed.score(windows)).all()


def test_gaps_and_constant_windows_have_a_score_and_empty_ones_have_none(fitted):
    windows = waves(5, seed=5)
    windows[0, :10] = np.nan
    windows[1] = 3.0
    windows[2] = np.nan
    windows[3, 1:] = np.nan
    scores = fitted.score(windows)
    assert np.isfinite(scores[[0, 1, 3, 4]]).all()
    assert np.isnan(scores[2])
    assert np.isfinite(fitted.reconstruct(windows)).all()
    gappy = waves(40)
    gappy[np.random.default_rng(0).random(gappy.shape) < 0.2] = np.nan
    again = ResNetAE(**SMALL, max_shift=2).fit(gappy, epochs=2, compute=CPU)
    assert np.isfinite(again.score(gappy)).all()


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_one_alone():
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    scores = [
        ResNetAE(**SMALL, seed=seed, dropout=0.2)
        .fit(waves(40), epochs=3, compute=CPU)
        .score(waves(9, seed=1))
        for seed in (0, 0, 1)
    ]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def test_a_stopped_fit_continues_to_the_same_model(tmp_path, monkeypatch):
    def fit(checkpoint):
        model = ResNetAE(**SMALL, dropout=0.1)
        return model.fit(
            waves(40), epochs=25, validation=waves(9, seed=2), checkpoint=checkpoint, compute=CPU
        )

    whole = fit(None)
    real, path = loop._Run.train_step, tmp_path / "fit.safetensors"

    def killed(self, *arguments):
        if self.step == 33:
            raise KeyboardInterrupt
        real(self, *arguments)

    monkeypatch.setattr(loop._Run, "train_step", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(path)
    monkeypatch.undo()
    assert path.exists()
    again = fit(path)
    assert np.array_equal(again.score(waves(9, seed=1)), whole.score(waves(9, seed=1)))
    assert again.history_.train == whole.history_.train
    with pytest.raises(CheckpointError, match="another config"):
        ResNetAE(**SMALL).fit(waves(40), epochs=25, checkpoint=path, compute=CPU)


def test_training_stops_early_and_takes_the_best_weights():
    model = ResNetAE(**SMALL, patience=2, lr=0.05, amplitude=0).fit(
        waves(40), epochs=60, validation=waves(20, seed=2), compute=CPU
    )
    losses = model.history_.evaluations["loss"]
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 3
    assert model.score(waves(20, seed=2)).mean() == pytest.approx(min(losses), rel=1e-5)


def test_a_saved_model_scores_the_same_to_the_last_bit(fitted, tmp_path):
    windows, path = waves(30, seed=6), tmp_path / "model.safetensors"
    for model in (
        fitted,
        ResNetAE(2, **SMALL, standardize="channel", norm="group").fit(waves(20, 32, 2), epochs=1),
    ):
        model.calibrate(waves(120, seed=7) if model.channels == 1 else waves(120, 32, 2), fpr=0.05)
        model.save(path)
        loaded = ResNetAE.load(path, CPU)
        given = windows if model.channels == 1 else waves(30, 32, 2, seed=6)
        assert np.array_equal(loaded.score(given), model.score(given))
        assert np.array_equal(loaded.predict(given), model.predict(given))
        assert loaded.get_params() == model.get_params()
        assert loaded.threshold_ == model.threshold_


def test_files_that_hold_no_model_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(CheckpointError, match="not a readable"):
        ResNetAE.load(path)
    save_weights(path, nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="holds no ResNetAE"):
        ResNetAE.load(path)
    save_weights(path, nn.Linear(1, 1), kind="ResNetAE", about='{"version": 99}')
    with pytest.raises(CheckpointError, match="version 99"):
        ResNetAE.load(path)
    save_weights(path, nn.Linear(1, 1), kind="ResNetAE", about='{"version": 1}')
    with pytest.raises(CheckpointError, match="can be read"):
        ResNetAE.load(path)


def test_a_threshold_keeps_its_rate(fitted):
    normal = waves(2000, seed=8)
    fitted.calibrate(normal[:1000], fpr=0.05)
    assert fitted.predict(normal[1000:]).mean() == pytest.approx(0.05, abs=0.03)
    assert fitted.predict(np.full((1, 32), np.nan)).tolist() == [False]
    with pytest.raises(ThresholdError, match="needs at least 999"):
        fitted.calibrate(normal[:100], fpr=0.001)


def test_its_parameters_can_be_looked_at_and_copied(fitted):
    assert fitted.get_params()["bottleneck"] == 3
    assert ResNetAE(bottleneck=np.int64(3))._parameters() == ResNetAE(bottleneck=3)._parameters()
    twin = clone(fitted)
    assert twin.get_params() == fitted.get_params()
    assert not hasattr(twin, "net_")
    assert "bottleneck=3" in repr(fitted)


@pytest.mark.parametrize(
    ("arguments", "windows", "message"),
    [
        ({}, waves(10, channels=2), r"\(windows, 1, samples\)"),
        ({}, waves(10, length=3), "at least 4 samples"),
        ({}, waves(2), "too few"),
        ({}, waves(0), "too few"),
        ({}, np.full((9, 32), np.nan), "9 training windows hold no number"),
        ({}, np.full((9, 32), np.inf), "infinite"),
        ({"batch_size": 1}, waves(10), "batch_size"),
        ({"score_norm": "l3"}, waves(10), "score_norm"),
        ({"standardize": "batch"}, waves(10), "standardize"),
        ({"loss": "huber"}, waves(10), "'l1' or 'l2'"),
    ],
)
def test_impossible_fits_are_refused(arguments, windows, message):
    with pytest.raises(ValueError, match=message):
        ResNetAE(**SMALL | arguments).fit(windows, epochs=1, compute=CPU)


def test_impossible_validation_is_refused():
    with pytest.raises(ValueError, match="share"):
        ResNetAE(**SMALL).fit(waves(9), validation=1.0)
    with pytest.raises(ValueError, match="20 samples"):
        ResNetAE(**SMALL).fit(waves(9), validation=waves(9, 20))
    with pytest.raises(ValueError, match="epoch"):
        ResNetAE(**SMALL).fit(waves(9), epochs=0)


def test_an_unfitted_model_and_other_windows_are_refused(fitted, tmp_path):
    for call in (ResNetAE().score, ResNetAE().reconstruct, ResNetAE().predict):
        with pytest.raises(ValueError, match=r"fit the model|calibrate"):
            call(waves(2))
    with pytest.raises(ValueError, match="fit the model"):
        ResNetAE().save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="32 samples, not of 30"):
        fitted.score(waves(2, 30))
