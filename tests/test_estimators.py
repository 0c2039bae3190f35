"""The estimators: scikit-learn's contract, scores against an oracle, and what a file may hold."""

import json
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from companion.compute import pick_compute
from companion.data.casting import synthetic_moulds
from companion.estimators import FaultClassifier, ImageAE, PatchMemory, ResNetAE, WindowBaseline
from companion.files import StateError, load_weights, save_weights
from companion.objectives.synthetic_anomalies import CameraJitter
from tests.small_data import waves

CPU = pick_compute("cpu", "float32")
KINDS = ["window", "channel"]
WAVES = {"depth": 2, "bottleneck": 3, "width": 4, "batch_size": 16}
CHANNELS = WAVES | {"standardize": "channel"}
IMAGES = {"latent": 6, "widths": (4, 8), "batch_size": 16, "lr": 5e-3}


def moulds(kind="normal", count=60, seed=0):
    return synthetic_moulds(kind, count, (16, 24), seed)


@pytest.fixture(scope="module")
def wave_model():
    return ResNetAE(**WAVES, jitter=0.05).fit(waves(100), epochs=30, compute=CPU)


@pytest.fixture(scope="module")
def channel_model():
    model = ResNetAE(**CHANNELS).fit(waves(20, 32, 2), epochs=1, compute=CPU)
    return model.calibrate(waves(20, 32, 2), 0.1)


@pytest.fixture(scope="module")
def image_model():
    camera = CameraJitter(0.05, 0.05, True, 0.05, 0.05, 0)
    model = ImageAE(**IMAGES, scales=(1,), camera=camera, patience=12)
    return model.fit(moulds(count=108), epochs=12, validation=moulds(count=12, seed=9), compute=CPU)


CASES = {
    "waves": (lambda: ResNetAE(**WAVES), lambda seed: waves(60, seed=seed)),
    "channels": (lambda: ResNetAE(**CHANNELS, seed=np.int64(3)), lambda seed: waves(60, 32, 2, seed=seed)),
    "images": (lambda: ImageAE(**IMAGES), lambda seed: moulds(seed=seed)),
    "faults": (lambda: FaultClassifier(4, 3, batch_size=16), lambda seed: moulds(seed=seed)),
    "residual": (lambda: ImageAE("residual", 2, (4, 8), batch_size=16), lambda seed: moulds(seed=seed)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_contract_of_scikit_learn(case, tmp_path):
    make, data = CASES[case]
    model, path = make(), tmp_path / "model"
    assert 1 <= len(model.get_params()) <= 10
    for call in (model.decision_function, model.predict):
        with pytest.raises(NotFittedError):
            call(data(0))
    before = torch.random.get_rng_state()
    assert model.fit(data(0), epochs=2, compute=CPU) is model
    assert torch.equal(torch.random.get_rng_state(), before)
    with pytest.raises(ValueError, match="no threshold yet"):
        model.predict(data(1))
    scores = model.calibrate(data(2), fpr=0.1).decision_function(data(1))
    assert scores.dtype == np.float64
    assert scores.shape == (60,)
    assert model.predict(data(1)).tolist() == (scores > model.threshold_).tolist()
    again = clone(model).fit(data(0), epochs=2, compute=CPU)
    assert np.array_equal(again.decision_function(data(1)), scores)
    other = clone(model).set_params(seed=1).fit(data(0), epochs=2, compute=CPU)
    assert not np.array_equal(other.decision_function(data(1)), scores)
    model.save(path)
    loaded = type(model).load(path, CPU)
    assert np.array_equal(loaded.decision_function(data(1)), scores)
    assert (loaded.threshold_, loaded.fpr_) == (model.threshold_, 0.1)
    assert loaded.get_params() == model.get_params()
    loaded.save(path)
    assert clone(loaded).get_params() == model.get_params()
    with pytest.raises(ValueError, match="at least 999"):
        model.calibrate(data(0), fpr=0.001)


@pytest.mark.parametrize("case", ["waves", "images"])
def test_a_stopped_fit_continues_to_the_same_model(case, tmp_path):
    make, data = CASES[case]
    whole = make().fit(data(0), epochs=3, compute=CPU)
    rest = {"epochs": 3, "compute": CPU, "checkpoint": tmp_path / "checkpoint"}
    make().fit(data(0), stop_after=4, **rest)
    again = make().fit(data(0), **rest)
    assert np.array_equal(whole.decision_function(data(1)), again.decision_function(data(1)))


@pytest.mark.parametrize(
    ("model", "data", "arguments", "message"),
    [
        (ResNetAE(**WAVES), waves(10, length=3), {}, "at least 4 samples|halved|assert"),
        (ResNetAE(**WAVES), waves(1), {}, "too few"),
        (ResNetAE(**WAVES), waves(9), {"validation": waves(9, 20)}, "32 samples, not of 20"),
        (ResNetAE(**WAVES), waves(9), {"epochs": 0}, "0 epochs"),
        (ResNetAE(**WAVES), np.full((9, 32), np.nan), {}, "9 training windows hold no number"),
        (ResNetAE(**WAVES, standardize="batch"), waves(9), {}, "standardize: .*'window'"),
        (ImageAE(**IMAGES), moulds()[0], {}, r"\(N, C, H, W\)"),
        (ImageAE(**IMAGES), moulds().float(), {}, "uint8"),
    ],
)
def test_impossible_fits_are_refused(model, data, arguments, message):
    with pytest.raises((ValueError, AssertionError), match=message):
        model.fit(data, **{"epochs": 1, "compute": CPU} | arguments)


def altered(model, path, change):
    """Save ``model`` with its state changed."""
    model.save(path)
    weights, texts = load_weights(path)
    state = {"net": weights, "about": json.loads(texts["about"])}
    change(state)
    save_weights(path, state["net"], kind=texts["kind"], about=json.dumps(state["about"]))


def put(state, *place):
    *way, last, value = place
    for key in way:
        state = state[key]
    state[last] = value


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: put(s, "about", "facts", "threshold_", float("nan")), "facts.threshold_"),
        (lambda s: put(s, "about", "facts", "threshold_", "high"), "facts.threshold_"),
        (lambda s: put(s, "about", "facts", "std_", [0.0, 1.0]), "facts.std_"),
        (lambda s: put(s, "about", "facts", "mean_", [float("inf"), 0.0]), "facts.mean_"),
        (lambda s: put(s, "about", "facts", "mean_", [0.0]), "of each of 2 channels"),
        (lambda s: put(s, "about", "facts", "length_", 2**40), "facts.length_"),
        (lambda s: put(s, "about", "parameters", "bottleneck", 10**6), "is not torch.float32"),
        (lambda s: put(s, "about", "parameters", "depth", 60), "parameters.depth"),
        (lambda s: put(s, "about", "parameters", "color", 1), "parameters.color"),
        (lambda s: put(s, "about", []), "can be used"),
        (lambda s: put(s, "net", {}), "another net"),
        (lambda s: s["net"]["to_latent.bias"].fill_(float("nan")), "no training leaves"),
        (lambda s: s["net"]["encoder_norm.running_var"].fill_(-1), "no training leaves"),
        (lambda s: put(s, "net", "to_latent.weight", torch.zeros(3, 128).half()), "is not torch.float32"),
    ],
)
def test_a_file_with_other_content_is_refused(change, message, tmp_path, channel_model):
    altered(channel_model, tmp_path / "m", change)
    with pytest.raises(StateError, match=message):
        ResNetAE.load(tmp_path / "m")


@pytest.mark.parametrize("size", [{"latent": 10**6}, {"widths": (10**6, 10**6)}])
def test_a_small_file_takes_little_memory(size, tmp_path):
    model = ImageAE(**IMAGES).fit(moulds(count=20), epochs=1, compute=CPU)
    altered(model, tmp_path / "m", lambda s: (s["about"]["parameters"].update(size), s["net"].clear()))
    with pytest.raises(StateError, match="another net"):  # the net that it tells of has up to 10**13 weights
        ImageAE.load(tmp_path / "m")


def test_files_of_another_kind_are_refused(tmp_path, wave_model):
    path = tmp_path / "model"
    with pytest.raises(StateError, match="No such file"):
        ResNetAE.load(path)
    wave_model.save(path)
    with pytest.raises(StateError, match="holds ResNetAE 5, not ImageAE 5"):
        ImageAE.load(path)
    path.write_bytes(pickle.dumps("text"))
    with pytest.raises(StateError, match="not a readable"):
        ResNetAE.load(path)


def test_waveforms_that_it_never_saw_score_higher(wave_model):
    usual = wave_model.decision_function(waves(50, seed=1))
    assert wave_model.decision_function(np.roll(waves(50, seed=2), 9, axis=1)).min() > usual.max()
    normal = waves(2000, seed=8)
    wave_model.calibrate(normal[:1000], fpr=0.05)
    assert wave_model.predict(normal[1000:]).mean() == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("loss", ["l1", "l2"])
def test_the_score_is_the_residual_computed_by_hand(loss):
    model = ResNetAE(**WAVES, loss=loss).fit(waves(40), epochs=3, compute=CPU)
    windows = 5 + 3 * waves(7, seed=3)
    windows[2, 4:9] = np.nan
    filled = windows.copy()
    filled[2, 4:9] = np.interp(range(4, 9), [3, 9], windows[2, [3, 9]])
    mean, std = np.nanmean(windows, axis=1, keepdims=True), np.nanstd(windows, axis=1, keepdims=True)
    standard = torch.tensor((filled - mean) / std, dtype=torch.float32)
    with torch.no_grad():
        answer = model.net_(standard[:, None])[0][:, 0].numpy()
    residual = np.abs(answer - standard.numpy())
    residual[2, 4:9] = np.nan
    expected = np.nanmean(residual if loss == "l1" else residual**2, axis=1)
    np.testing.assert_allclose(model.decision_function(windows), expected, rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(windows), answer * std + mean, rtol=1e-4, atol=1e-4)


def test_a_window_without_a_number_has_neither_score_nor_verdict(wave_model):
    windows = waves(5, seed=5)
    windows[0, :10], windows[1], windows[2], windows[3, 1:] = np.nan, 3.0, np.nan, np.nan
    scores = wave_model.calibrate(waves(99, seed=6), 0.05).decision_function(windows)
    assert np.isnan(scores).tolist() == [False, False, True, False, False]
    flagged = wave_model.predict(windows)
    assert flagged.tolist()[2] is None
    assert np.asarray(flagged)[2]  # whoever drops the mask does not find it normal
    assert wave_model.decision_function(windows[:0]).shape == (0,)
    np.testing.assert_array_equal(wave_model.decision_function(windows[:, None]), scores)


@pytest.mark.parametrize("spike", [1e30, 1e39, 1.797e308])
def test_a_number_beyond_float32_is_flagged(spike):
    model = ResNetAE(**CHANNELS).fit(waves(40), epochs=1, compute=CPU)
    windows = waves(3, seed=1).astype(np.float64)
    windows[1, 5] = spike
    model.calibrate(waves(20, seed=2), 0.1)
    assert np.isfinite(model.decision_function(windows)).all()
    assert model.predict(windows).tolist()[1] is True


def test_spills_score_higher_than_normal_images(image_model):
    normal = image_model.decision_function(moulds(seed=1))
    assert np.median(image_model.decision_function(moulds("spill", seed=2))) > np.quantile(normal, 0.95)
    assert image_model.history_.evaluations["loss"][-1] < image_model.history_.evaluations["loss"][0]
    image_model.calibrate(moulds(count=99, seed=3), fpr=0.05)
    assert image_model.predict(moulds(count=200, seed=4)).mean() < 0.12


def test_maps_and_scores_fit_together(image_model):
    images = moulds(count=5, seed=6)
    assert image_model.maps(images).shape == (5, 16, 24)
    expected = (image_model.reconstruct(images) - images / 255).abs().mean(dim=(1, 2, 3))
    np.testing.assert_allclose(image_model.decision_function(images), expected, rtol=1e-5)
    assert image_model.decision_function(images[:0]).shape == (0,)
    with pytest.raises(ValueError, match=r"\(N, 3, 16, 24\)"):
        image_model.decision_function(images[..., :20])


def test_a_memory_of_patches_finds_what_is_new_and_where(tmp_path):
    model = PatchMemory(40, 300).fit(moulds(count=50)).calibrate(moulds(count=30, seed=1), 0.1)
    model.save(tmp_path / "m")
    again, spills = PatchMemory.load(tmp_path / "m"), moulds("spill", 20, seed=2)
    assert again.kept_ == (300, 288)
    assert again.predict(spills).mean() > 0.5 > 0.3 > again.predict(moulds(count=30, seed=3)).mean()
    changed = moulds(count=1, seed=4)
    changed[:, :, 8:12, 16:20] = 255
    rise = again.maps(changed) - again.maps(moulds(count=1, seed=4))
    assert rise[0, 8:12, 16:20].min() > rise[0, :, :8].max()
    np.testing.assert_allclose(again.maps(spills).mean(dim=(1, 2)), again.decision_function(spills), 1e-5)


@pytest.mark.parametrize("method", ["pca", "neighbours"])
def test_components_and_neighbours_need_no_training_and_are_kept(tmp_path, method):
    normal = waves(80).astype(np.float64)
    model = WindowBaseline(method, 3, standardize="channel").fit(normal, epochs=9)
    model.calibrate(waves(60, seed=1), 0.1)
    other = waves(20, seed=2).astype(np.float64)
    assert (model.decision_function(3 * other) > model.decision_function(other)).all()
    model.save(tmp_path / "m")
    again = WindowBaseline.load(tmp_path / "m")
    assert np.array_equal(again.decision_function(other), model.decision_function(other))
    assert again.limit() == model.limit()
    other[0, 4:6], other[1] = np.nan, np.nan
    assert np.isnan(again.decision_function(other)).tolist() == [i == 1 for i in range(20)]
    with pytest.raises(StateError, match="WindowBaseline"):
        ResNetAE.load(tmp_path / "m")
