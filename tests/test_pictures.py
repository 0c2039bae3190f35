"""What cameras do to images, painted faults, and the objectives that use them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from companion.compute import pick_compute
from companion.models.autoencoders import ConvAutoencoder, ResidualAutoencoder
from companion.models.blocks import BasicResidualBlock
from companion.models.resnet import ResNet
from companion.objectives.reconstruction import (
    STILL,
    Camera,
    FaultDiscrimination,
    ImageReconstruction,
    some,
)
from companion.objectives.synthetic_anomalies import arms, camera_jitter, cut_paste, emptied, haze, spill
from companion.training import FitConfig, evaluate, fit

PAINTERS = (cut_paste, spill, emptied, arms, haze)
CPU = pick_compute("cpu", "float32")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def textured(
    count: int = 4, channels: int = 3, size: tuple[int, int] = (20, 32), seed: int = 0
) -> torch.Tensor:
    return 0.4 + 0.2 * torch.rand(count, channels, *size, generator=seeded(seed))


shapes = st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 20), st.integers(1, 20))


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([camera_jitter, *PAINTERS]), st.integers(0, 1000))
def test_shapes_and_range_are_kept_and_the_given_images_left_alone(shape, change, seed):
    images = torch.rand(shape, generator=seeded(seed))
    before = images.clone()
    out = change(images, generator=seeded(seed))
    again = change(images, generator=seeded(seed))
    assert torch.equal(images, before)
    if change is not camera_jitter:
        (out, where), again = out, again[0]
        assert where.shape == (shape[0], 1, *shape[2:])
        assert set(where.unique().tolist()) <= {0.0, 1.0}
    assert out.shape == images.shape
    assert torch.equal(out, again)
    if out.numel():
        assert out.min() >= 0
        assert out.max() <= 1


@pytest.mark.parametrize("change", [camera_jitter, *PAINTERS])
def test_what_are_no_float_images_is_refused(change):
    with pytest.raises(TypeError, match="divide by 255"):
        change(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    for bad in (torch.zeros(3, 8, 8), torch.zeros(2, 0, 8, 8), torch.zeros(2, 3, 0, 8)):
        with pytest.raises(ValueError, match="need images"):
            change(bad)
    with pytest.raises(ValueError, match="NaN"):
        change(torch.full((1, 1, 4, 4), torch.nan))


def test_a_still_camera_changes_nothing_and_one_that_shifts_does():
    images = textured()
    torch.testing.assert_close(STILL(images, seeded()), images)
    plain = camera_jitter(
        images, max_shift=0, max_zoom=0, brightness=0, contrast=0, flip=True, generator=seeded()
    )
    mirrored = [
        torch.allclose(a, b.flip(2)) or torch.allclose(a, b) for a, b in zip(plain, images, strict=True)
    ]
    assert all(mirrored)
    moved = Camera(0.3, 0, False, 0, 0, 0)(images, seeded())
    assert not torch.allclose(moved, images)
    assert moved.min() >= images.min() - 1e-6  # the edge is repeated, nothing black comes in
    for bad in ({"max_shift": -1}, {"max_zoom": 0.6}, {"tint": -0.1}):
        with pytest.raises(ValueError, match="not negative"):
            camera_jitter(images, **bad)


def test_brightness_contrast_and_tint_are_those_asked_for():
    images = textured(200, size=(4, 4))
    lit = Camera(0, 0, False, 0.1, 0, 0)(images, seeded())
    shift = (lit - images).mean(dim=(1, 2, 3))
    assert 0.08 < shift.max() <= 0.1 + 1e-6
    assert (lit - images).flatten(1).std(dim=1).max() < 1e-6
    tinted = Camera(0, 0, False, 0, 0, 0.05)(images, seeded())
    assert (tinted - images).mean(dim=(2, 3)).abs().max() <= 0.05 + 1e-6
    flat = Camera(0, 0, False, 0, 0.5, 0)(images, seeded())
    ratio = flat.flatten(1).std(dim=1) / images.flatten(1).std(dim=1)
    assert 0.5 - 1e-4 <= ratio.min() < 0.6
    assert 1.4 < ratio.max() <= 1.5 + 1e-4


def test_a_pasted_rectangle_comes_from_the_same_image():
    images = torch.arange(4 * 20 * 32).view(4, 1, 20, 32) / 2560
    out, where = cut_paste(images, smallest=0.05, largest=0.1, generator=seeded())
    assert torch.equal(out[where == 0], images[where == 0])
    area = where.mean(dim=(1, 2, 3))
    assert area.min() > 0.03
    assert area.max() < 0.13
    for painted, mask in zip(out, where, strict=True):
        rows, columns = mask[0].any(1).nonzero()[:, 0], mask[0].any(0).nonzero()[:, 0]
        inside = painted[0, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert mask.sum() == inside.numel()  # a rectangle
        if inside.shape[1] > 1 and inside.min() > 0 and inside.max() < 1:
            torch.testing.assert_close(inside.diff(dim=1), torch.full_like(inside[:, 1:], 1 / 2560))
    with pytest.raises(ValueError, match="smallest"):
        cut_paste(images, smallest=0.5, largest=0.1)


def test_spills_glitter_and_empty_moulds_are_smooth():
    images = textured(40)
    rough = images.diff(dim=3).abs().mean()
    spilt, where = spill(images, generator=seeded())
    inside = where.expand_as(images)[..., 1:] > 0
    assert spilt.diff(dim=3).abs()[inside].mean() > 1.3 * rough
    hollow, where = emptied(images, generator=seeded())
    middle = (slice(None), slice(None), slice(8, 14), slice(11, 21))
    assert (where[middle] == 1).all()
    assert hollow[middle].diff(dim=3).abs().mean() < 0.2 * rough
    with pytest.raises(ValueError, match="positive"):
        spill(images, strength=0)


def test_arms_come_from_the_edge_and_leave_most_of_the_image():
    images = textured(200)
    out, where = arms(images, largest=0.4, generator=seeded())
    share = where.mean(dim=(1, 2, 3))
    assert 0.02 < share.mean() < 0.4
    edge = torch.ones(20, 32, dtype=torch.bool)
    edge[1:-1, 1:-1] = False
    touching = where[:, 0][:, edge].sum(dim=1) > 0
    assert (touching | (share == 0)).float().mean() > 0.95
    far = where == 0
    assert (out - images).abs()[far.expand_as(images)].mean() < 0.05
    with pytest.raises(ValueError, match="reach"):
        arms(images, largest=0)


def test_haze_takes_contrast_and_keeps_the_shade():
    images = textured(60)
    out, where = haze(images, strongest=0.9, generator=seeded())
    ratio = out.flatten(1).std(dim=1) / images.flatten(1).std(dim=1)
    assert ratio.max() < 0.6
    assert (where == 1).all()
    assert ((out.mean(dim=(1, 2, 3)) / images.mean(dim=(1, 2, 3))).log().abs() < 0.4).all()
    with pytest.raises(ValueError, match="strength"):
        haze(images, strongest=0)


def test_some_changes_about_its_share():
    images = textured(400, size=(4, 4))
    out = some(lambda x, generator: (x + 1, x), images, 0.25, seeded())
    changed = (out != images).flatten(1).any(dim=1)
    assert 0.18 < changed.float().mean() < 0.32
    assert some(arms, images, 0.0, None) is images
    assert some(arms, images[:0], 0.5, seeded()).shape == (0, 3, 4, 4)


# ---------------------------------------------------------------- objectives


def images_uint8(count: int = 24, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return (255 * textured(count, channels, (16, 24), seed)).to(torch.uint8)


@pytest.mark.parametrize(
    ("net", "low"),
    [
        (lambda: ConvAutoencoder(3, (16, 24), 8, (4, 8)), -1.0),
        (lambda: ResidualAutoencoder(3, (16, 24), (4, 8), 2), 0.0),
    ],
)
def test_both_autoencoders_learn_to_reconstruct(net, low):
    torch.manual_seed(0)
    levels = torch.rand(24, 3, 1, 1, generator=seeded()).expand(-1, -1, 16, 24)
    model, images = net(), (255 * levels).to(torch.uint8).contiguous()
    objective = ImageReconstruction("l1", low, Camera(0.1, 0, True, 0.05, 0, 0), obstacles=0.2)
    config = FitConfig(num_steps=60, batch_size=12, lr=3e-3, optimizer="adam")
    before = evaluate(model, (images,), objective, CPU)["loss"]
    fit(model, (images,), objective, config, compute=CPU)
    after = evaluate(model, (images,), objective, CPU)["loss"]
    assert after < 0.8 * before
    given, made, codes = objective.reconstruct(model, images, batch_size=7)
    assert given.shape == made.shape == (24, 3, 16, 24)
    assert len(codes) == 24
    assert (given - made).abs().mean().item() * (1 - low) == pytest.approx(after, rel=1e-4)
    assert objective.prepare(images).min() >= low
    assert objective.reconstruct(model, images[:0])[1].shape == (0, 3, 16, 24)


def test_an_evaluation_augments_nothing():
    class Echo(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x), x

    images = images_uint8(5)
    expected = (images.double() / 255).square().mean().item()
    objective = ImageReconstruction("mse", 0.0, Camera(), 1.0)
    assert objective(Echo(), (images,), None)["loss"].item() == pytest.approx(expected, rel=1e-5)
    for bad in ({"loss": "l3"}, {"low": 0.5}, {"obstacles": 2.0}):
        with pytest.raises(ValueError, match="'l1' or 'mse'"):
            ImageReconstruction(**bad)
    with pytest.raises(TypeError, match="uint8"):
        objective(Echo(), (images.float(),), None)
    with pytest.raises(ValueError, match="need images"):
        objective(Echo(), (images[0],), None)


MOMENTS = {"mean": torch.full((3,), 0.5), "std": torch.full((3,), 0.1)}


def test_half_of_a_batch_is_made_anomalous():
    known = torch.zeros(2, 3, 16, 24, dtype=torch.uint8)
    objective = FaultDiscrimination(**MOMENTS, known=known, camera=STILL, obstacles=0, hazes=0)
    floats, labels = objective.training_batch(images_uint8(24), seeded())
    assert labels.tolist() == [0] * 12 + [1] * 12
    clean = images_uint8(24).float() / 255
    torch.testing.assert_close(floats[:12], clean[:12])
    assert (floats[12:16] == 0).all()
    assert (floats[16:] != clean[16:]).flatten(1).any(dim=1).all()
    again = objective.training_batch(images_uint8(24), seeded())[0]
    assert torch.equal(floats, again)
    few, labels = objective.training_batch(images_uint8(2), seeded())
    assert len(few) == len(labels) == 2


def test_it_learns_to_tell_faults_from_normal_images():
    torch.manual_seed(0)
    net = ResNet(BasicResidualBlock, (1, 1), 1, stem="cifar", width=4)
    images = images_uint8(64)
    objective = FaultDiscrimination(**MOMENTS, kinds=("spill", "empty", "cut"), obstacles=0.1, hazes=0)
    config = FitConfig(num_steps=40, batch_size=48, lr=1e-2, optimizer="adamw")
    fit(net, (images,), objective, config, compute=CPU)
    other = images_uint8(20, seed=5)
    empty = (255 * emptied(other.float() / 255, generator=seeded())[0]).to(torch.uint8)
    normal, faulty = objective.scores(net, other, batch_size=9), objective.scores(net, empty)
    assert faulty.mean() > normal.mean() + 1
    np.testing.assert_allclose(objective.scores(net, other.flip(3)), normal, rtol=1e-4, atol=1e-4)
    labels = torch.cat([torch.zeros(20), torch.ones(20)]).long()
    numbers = evaluate(net, (torch.cat([other, empty]), labels), objective, CPU)
    assert numbers["error"] < 0.3
    assert objective.scores(net, other[:0]).shape == (0,)


def test_normal_images_can_be_disturbed_for_a_threshold():
    images = images_uint8(40)
    objective = FaultDiscrimination(**MOMENTS, kinds=("spill",))
    out = objective.disturbed(images, seeded())
    assert out.dtype == torch.uint8
    assert out.shape == images.shape
    assert (out != images).flatten(1).any(dim=1).all()
    assert torch.equal(out, objective.disturbed(images, seeded()))
    still = FaultDiscrimination(**MOMENTS, kinds=("spill",), camera=STILL, obstacles=0, hazes=0)
    assert torch.equal(still.disturbed(images, seeded()), images)


def test_impossible_objectives_are_refused():
    for bad, message in (
        ({}, "no known anomalies"),
        ({"known": torch.zeros(0, 3, 4, 4, dtype=torch.uint8)}, "no known anomalies"),
        ({"kinds": ()}, "kinds are some of"),
        ({"kinds": ("crack",)}, "kinds are some of"),
        ({"kinds": ("spill",), "obstacles": 1.5}, "are shares"),
        ({"kinds": ("spill",), "hazes": -0.5}, "are shares"),
        ({"kinds": ("spill",), "smoothing": 0.5}, "smoothing"),
    ):
        with pytest.raises(ValueError, match=message):
            FaultDiscrimination(**MOMENTS, **bad)
    objective = FaultDiscrimination(**MOMENTS, kinds=("spill",))
    with pytest.raises(ValueError, match="one output"):
        objective.scores(ResNet(BasicResidualBlock, (1,), 2, stem="cifar", width=4), images_uint8(2))
