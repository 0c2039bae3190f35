"""The autoencoder for images as an estimator."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import clone
from torch import nn

from companion.compute import pick_compute
from companion.data.casting_synthetic import synthetic_moulds
from companion.detection.thresholds import ThresholdError
from companion.estimators.images import ImageAE
from companion.objectives.reconstruction import Camera
from companion.training import CheckpointError, save_weights

CPU = pick_compute("cpu", "float32")
SMALL = {"latent": 6, "widths": (4, 8), "batch_size": 16, "lr": 5e-3}


def moulds(kind="normal", count=60, seed=0):
    return synthetic_moulds(kind, count, (16, 24), seed)


@pytest.fixture(scope="module")
def fitted() -> ImageAE:
    model = ImageAE(**SMALL, camera=Camera(0.05, 0.05, True, 0.05, 0.05, 0))
    return model.fit(moulds(count=120), epochs=12, compute=CPU)


def test_spills_score_higher_than_normal_images(fitted):
    normal, spilt = fitted.score(moulds(seed=1)), fitted.score(moulds("spill", seed=2))
    assert np.median(spilt) > np.quantile(normal, 0.95)
    assert fitted.history_.evaluations["loss"][-1] < fitted.history_.evaluations["loss"][0]
    fitted.calibrate(moulds(count=99, seed=3), fpr=0.05)
    assert fitted.predict(moulds(count=200, seed=4)).mean() < 0.12
    fitted.calibrate(moulds(seed=3), anomalous=moulds("spill", seed=5))
    assert fitted.predict(moulds("spill", seed=2)).mean() > 0.5


@pytest.mark.parametrize(
    "settings", [{}, {"error": "hybrid"}, {"scales": (1, 2), "error": "mse", "top": 0.1}]
)
def test_maps_scores_and_codes_fit_together(fitted, settings):
    model = clone(fitted).set_params(**settings)
    model.net_, model.shape_ = fitted.net_, fitted.shape_
    images = moulds(count=5, seed=6)
    maps = model.maps(images)
    assert maps.shape == (5, 16, 24)
    count = max(1, round(model.top * 16 * 24))
    expected = maps.flatten(1).double().topk(count).values.mean(1).numpy()
    np.testing.assert_allclose(model.score(images), expected)
    assert model.reconstruct(images).shape == images.shape
    assert model.latent_codes(images).shape == (5, 6)
    assert model.score(images[:0]).shape == (0,)


def test_a_saved_model_scores_the_same_to_the_last_bit(fitted, tmp_path):
    path, images = tmp_path / "model.safetensors", moulds(count=20, seed=7)
    residual = ImageAE("residual", 2, (4, 8), scales=(1, 2), top=0.5).fit(moulds(), epochs=1, compute=CPU)
    for model in (fitted, residual):
        model.calibrate(moulds(count=40, seed=8), fpr=0.1)
        model.save(path)
        loaded = ImageAE.load(path, CPU)
        assert np.array_equal(loaded.score(images), model.score(images))
        assert np.array_equal(loaded.predict(images), model.predict(images))
        assert loaded.get_params() == model.get_params()


def test_the_same_seed_gives_the_same_model_and_a_stopped_fit_continues(tmp_path):
    path = tmp_path / "fit.safetensors"
    whole = ImageAE(**SMALL).fit(moulds(), epochs=3, compute=CPU)
    ImageAE(**SMALL).fit(moulds(), epochs=3, compute=CPU, checkpoint=path, stop_after=4)
    again = ImageAE(**SMALL).fit(moulds(), epochs=3, compute=CPU, checkpoint=path)
    assert np.array_equal(whole.score(moulds(seed=1)), again.score(moulds(seed=1)))
    other = ImageAE(**SMALL, seed=1).fit(moulds(), epochs=3, compute=CPU)
    assert not np.array_equal(whole.score(moulds(seed=1)), other.score(moulds(seed=1)))


@pytest.mark.parametrize(
    ("settings", "images", "arguments", "error", "message"),
    [
        ({}, moulds()[:2], {}, ValueError, "too few"),
        ({}, moulds()[:1], {"validation": 0}, ValueError, "too few"),
        ({}, moulds()[0], {}, ValueError, r"\(N, C, H, W\)"),
        ({}, moulds().float(), {}, TypeError, "uint8"),
        ({}, moulds(), {"validation": 1.0}, ValueError, "share"),
        ({}, moulds(), {"validation": moulds()[:, :1]}, ValueError, "3, 16, 24"),
        ({}, moulds(), {"epochs": 0}, ValueError, "an epoch"),
        ({"batch_size": 1}, moulds(), {}, ValueError, "batch_size"),
        ({"top": 0}, moulds(), {}, ValueError, "top"),
        ({"net": "dense"}, moulds(), {}, ValueError, "'conv' or 'residual'"),
        ({"loss": "l3"}, moulds(), {}, ValueError, "'l1' or 'mse'"),
        ({"widths": (4, 8, 8, 8)}, moulds(), {}, ValueError, "sides that 16 divides"),
    ],
)
def test_impossible_fits_are_refused(settings, images, arguments, error, message):
    with pytest.raises(error, match=message):
        ImageAE(**SMALL | settings).fit(images, **{"epochs": 1, "compute": CPU} | arguments)


def test_unfitted_models_and_other_images_are_refused(fitted, tmp_path):
    for call in (ImageAE().score, ImageAE().reconstruct, ImageAE().predict):
        with pytest.raises(ValueError, match=r"fit the model|calibrate"):
            call(moulds())
    with pytest.raises(ValueError, match="fit the model"):
        ImageAE().save(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"\(N, 3, 16, 24\)"):
        fitted.score(moulds()[..., :20])
    with pytest.raises(ThresholdError, match="at least 999"):
        fitted.calibrate(moulds(), fpr=0.001)


def test_files_that_hold_no_model_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    with pytest.raises(CheckpointError, match="not a readable"):
        ImageAE.load(path)
    for about, message in (('{"version": 9}', "version 9"), ('{"version": 1}', "can be read")):
        save_weights(path, nn.Linear(1, 1), kind="ImageAE", about=about)
        with pytest.raises(CheckpointError, match=message):
            ImageAE.load(path)
    save_weights(path, nn.Linear(1, 1))
    with pytest.raises(CheckpointError, match="holds no ImageAE"):
        ImageAE.load(path)
