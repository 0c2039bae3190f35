"""What cameras do to images, painted anomalies, and the objectives that use them."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from companion.objectives.reconstruction import ImageReconstruction
from companion.objectives.synthetic_anomalies import (
    STILL,
    CameraJitter,
    OutlierExposure,
    cut_paste,
    empty_mould,
    fog,
    occlusion,
    random_apply,
    spill,
)
from tests.small_data import MOMENTS


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textured(count: int = 4, size: tuple[int, int] = (20, 32), seed: int = 0) -> torch.Tensor:
    return 0.4 + 0.2 * torch.rand(count, 3, *size, generator=seeded(seed))


def images_uint8(count: int, size: tuple[int, int] = (16, 24), seed: int = 0) -> torch.Tensor:
    return (255 * textured(count, size=size, seed=seed)).to(torch.uint8)


shapes = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 20))
changes = st.sampled_from([CameraJitter(), spill, empty_mould, occlusion, fog])


@settings(max_examples=40, deadline=None)
@given(shapes, changes, st.integers(0, 1000))
def test_shapes_and_range_are_kept_and_the_given_images_left_alone(shape, change, seed):
    images = torch.rand(shape, generator=seeded(seed))
    before = images.clone()
    out = change(images, seeded(seed))
    assert torch.equal(images, before)
    assert torch.equal(out, change(images, seeded(seed)))
    assert out.shape == images.shape
    assert ((out >= 0) & (out <= 1)).all()


def jittered(images: torch.Tensor, **only: float) -> torch.Tensor:
    """By a camera of which nothing but this changes."""
    return replace(STILL, **only)(images, seeded())


def test_a_camera_does_what_it_is_asked_for():
    images = textured(200, size=(4, 4))
    torch.testing.assert_close(jittered(images), images)
    flipped = (jittered(images, flip=True) - images.flip(3)).flatten(1).abs().amax(dim=1) < 1e-5
    assert 60 < flipped.sum() < 140
    moved = jittered(images, max_shift=0.3)
    assert not torch.allclose(moved, images)
    assert moved.min() >= images.min() - 1e-6  # nothing black comes in: the edge is repeated
    lit = jittered(images, brightness=0.1) - images
    assert 0.08 < lit.mean(dim=(1, 2, 3)).max() <= 0.1 + 1e-6
    assert lit.flatten(1).std(dim=1).max() < 1e-6
    assert (jittered(images, tint=0.05) - images).mean(dim=(2, 3)).abs().max() <= 0.05 + 1e-6
    ratio = jittered(images, contrast=0.5).flatten(1).std(dim=1) / images.flatten(1).std(dim=1)
    assert 0.5 - 1e-4 <= ratio.min() < 0.6
    assert 1.4 < ratio.max() <= 1.5 + 1e-4


def test_spills_glitter_and_empty_moulds_are_smooth():
    images = textured(40)
    rough = images.diff(dim=3).abs().mean()
    spilt = spill(images, seeded())
    painted = (spilt - images).abs() > 0.1
    assert 0.02 < painted.float().mean() < 0.6
    assert spilt.diff(dim=3).abs()[painted[..., 1:]].mean() > 1.3 * rough
    hollow = empty_mould(images, seeded())[:, :, 8:14, 11:21]
    assert hollow.diff(dim=3).abs().mean() < 0.2 * rough


def test_occlusions_come_from_the_edge_and_leave_most_of_the_image():
    images = textured(200)
    hidden = ((occlusion(images, seeded()) - images).abs() > 0.1).any(dim=1)  # (N, H, W)
    share = hidden.float().mean(dim=(1, 2))
    assert 0.02 < share.mean() < 0.4
    edge = torch.ones(20, 32, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    assert (hidden[:, edge].any(dim=1) | (share == 0)).float().mean() > 0.95


def test_fog_takes_contrast_and_keeps_the_shade():
    images = textured(60)
    out = fog(images, seeded())
    assert (out.flatten(1).std(dim=1) / images.flatten(1).std(dim=1)).max() < 0.6
    assert ((out.mean(dim=(1, 2, 3)) / images.mean(dim=(1, 2, 3))).log().abs() < 0.4).all()


def test_a_random_change_meets_about_its_share():
    images = textured(400, size=(4, 4))
    out = random_apply(lambda x, generator: x + 1, images, 0.25, seeded())
    assert 0.18 < (out != images).flatten(1).any(dim=1).float().mean() < 0.32
    assert random_apply(fog, images, 0.0, None) is images
    assert random_apply(fog, images[:0], 0.5, seeded()).shape == (0, 3, 4, 4)


def test_an_evaluation_augments_nothing():
    class Zero(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x), x

    images = images_uint8(5)
    expected = (images.double() / 255).square().mean().item()
    objective = ImageReconstruction("mse", 0.0, CameraJitter())
    assert objective(Zero(), (images,), None)["loss"].item() == pytest.approx(expected, rel=1e-5)


def test_half_of_a_batch_is_made_anomalous():
    known = torch.zeros(2, 3, 16, 24, dtype=torch.uint8)
    objective = OutlierExposure(*MOMENTS, known=known, camera=STILL, occlusions=0, fogged=0)
    floats, labels = objective.training_batch(images_uint8(24), seeded())
    assert labels.tolist() == [0] * 12 + [1] * 12
    clean = images_uint8(24).float() / 255
    torch.testing.assert_close(floats[:12], clean[:12])
    assert (floats[12:16] == 0).all()
    assert (floats[16:] != clean[16:]).flatten(1).any(dim=1).all()
    assert torch.equal(floats, objective.training_batch(images_uint8(24), seeded())[0])
    few, labels = objective.training_batch(images_uint8(2), seeded())
    assert len(few) == len(labels) == 2
    grey = OutlierExposure(torch.zeros(1), torch.ones(1)).normalized(torch.rand(2, 1, 4, 4))
    assert grey.shape == (2, 3, 4, 4)


def test_fog_meets_normal_images_alone_or_faults_as_well():
    plain = OutlierExposure(*MOMENTS, painters=(cut_paste,), camera=STILL, occlusions=0, fogged=1)
    alone, together = (
        replace(plain, fog_faults=both).training_batch(images_uint8(24), seeded())[0]
        for both in (False, True)
    )
    clear = images_uint8(24).float() / 255
    assert (alone[:12].std(dim=(2, 3)) < clear[:12].std(dim=(2, 3))).all()
    assert (together[12:].std(dim=(2, 3)) < alone[12:].std(dim=(2, 3))).all()
    changed = (alone[12:] != clear[12:]).any(dim=1).float().mean()
    assert 0.01 < changed < 0.2  # a rectangle of each
