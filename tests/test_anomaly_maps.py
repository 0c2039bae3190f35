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


def test_error_maps_are_those_of_their_formulas_and_the_structural_part_is_ssim_computed_by_hand():
    a, b = pair()
    torch.testing.assert_close(error_map(a, b, "mse"), ((a - b) ** 2).mean(1))
    torch.testing.assert_close(error_map(a, b, "l1"), (a - b).abs().mean(1))
    a, b = (x.double() for x in pair(shape=(1, 1, 12, 16)))
    ours = 2 * error_map(a, b, "hybrid", window=5)[0] - error_map(a, b, "l1")[0]
    for row, column in ((2, 2), (6, 9), (9, 13)):
        x, y = (t[0, 0, row - 2 : row + 3, column - 2 : column + 3].flatten() for t in (a, b))
        c1, c2 = 0.01**2, 0.03**2
        both = ((x - x.mean()) * (y - y.mean())).mean()
        ssim = (2 * x.mean() * y.mean() + c1) * (2 * both + c2)
        ssim /= (x.mean() ** 2 + y.mean() ** 2 + c1) * (x.var(correction=0) + y.var(correction=0) + c2)
        assert ours[row, column].item() == pytest.approx(1 - ssim.item(), abs=1e-4)


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
