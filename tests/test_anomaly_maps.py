"""Scores of images: error maps and scales."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.detection.anomaly_maps import error_map, image_scores, multiscale_map
from companion.models.resnet9 import ResNet9, patch_features


def pair(seed: int = 0, shape: tuple[int, ...] = (3, 2, 12, 16)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)


def test_error_maps_are_those_of_their_formulas():
    a, b = pair()
    torch.testing.assert_close(error_map(a, b, "mse"), ((a - b) ** 2).mean(1))
    torch.testing.assert_close(error_map(a, b, "l1"), (a - b).abs().mean(1))
    # where both images are of one colour, SSIM compares only these (Wang et al. 2004, equation 6)
    a, b = (torch.full((1, 1, 9, 9), level) for level in (0.2, 0.6))
    ssim = (2 * 0.2 * 0.6 + 0.01**2) / (0.2**2 + 0.6**2 + 0.01**2)
    torch.testing.assert_close(
        error_map(a, b, "hybrid"), torch.full((1, 9, 9), 0.5 * 0.4 + 0.5 * (1 - ssim)), rtol=0, atol=1e-3
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.sampled_from(["mse", "l1", "hybrid"]), st.integers(0, 99))
def test_a_perfect_reconstruction_has_no_error_and_others_have(channels, kind, seed):
    a, b = pair(seed, (2, channels, 9, 11))
    assert error_map(a, a, kind).abs().max() < 1e-5
    assert multiscale_map(a, a, kind).abs().max() < 1e-5
    assert (image_scores(error_map(a, b, kind)) > 0).all()
    assert multiscale_map(a, b, kind).shape == (2, 9, 11)
    assert error_map(a[:0], b[:0], kind).shape == (0, 9, 11)


def test_averages_over_blocks_forgive_texture_and_not_areas():
    flat = torch.full((1, 1, 16, 16), 0.5)
    checks = flat + 0.2 * ((torch.arange(16)[:, None] + torch.arange(16)) % 2 * 2 - 1)
    area = flat + 0.2
    torch.testing.assert_close(error_map(checks, flat), error_map(area, flat))
    assert multiscale_map(checks, flat, scales=(2, 4)).max() < 1e-6
    torch.testing.assert_close(multiscale_map(area, flat, scales=(1, 2, 4)), torch.full((1, 16, 16), 0.2))


def test_a_map_that_holds_nan_has_no_score():
    assert image_scores(torch.zeros(0, 3, 4)).shape == (0,)
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        image_scores(torch.tensor([[[0.0, torch.nan]], [[1.0, 2.0]]]))


def test_patch_features_are_the_smoothed_maps_of_the_stages():
    net, images = ResNet9(4), torch.rand(2, 3, 32, 48)
    found = patch_features(net, images, (1, 2, 3), (16, 24))
    assert found.shape == (2, 16, 24, 8 + 16 + 32)
    with torch.no_grad():
        maps = net.eval().stages[:2](images)
    assert found[0, 3, 5, :8].tolist() == pytest.approx(
        maps[0, :, 2:5, 4:7].mean(dim=(1, 2)).tolist(), rel=1e-4
    )
    assert patch_features(net, images, (0,), (3, 5)).shape == (2, 3, 5, 4)
