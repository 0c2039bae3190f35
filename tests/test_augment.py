from itertools import product

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as oracle

from companion.objectives.classification import random_cutout, random_shift_flip


def images_of(n: int, channels: int, height: int, width: int) -> torch.Tensor:
    count = n * channels * height * width
    return (torch.arange(count) % 255 + 1).to(torch.uint8).view(n, channels, height, width)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 5), height=st.integers(1, 9), width=st.integers(1, 9), max_shift=st.integers(0, 4),
    flip=st.booleans(), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_every_image_is_one_of_torchvisions_crops(n, height, width, max_shift, flip, seed):
    images = images_of(n, 3, height, width)
    generator = torch.Generator().manual_seed(seed)
    out = random_shift_flip(images, max_shift=max_shift, flip=flip, generator=generator)
    assert out.shape == images.shape
    assert out.dtype == torch.uint8
    for before, after in zip(images, out, strict=True):
        candidates = []
        for mirrored in [before, oracle.horizontal_flip(before)] if flip else [before]:
            padded, places = oracle.pad(mirrored, [max_shift]), range(2 * max_shift + 1)
            candidates += [oracle.crop(padded, *place, height, width) for place in product(places, places)]
        assert any(torch.equal(after, candidate) for candidate in candidates)


def test_all_shifts_and_both_sides_occur():
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 4] = 1  # stays in view under every shift
    generator = torch.Generator().manual_seed(0)
    out = random_shift_flip(image.expand(4000, 1, 9, 9), max_shift=4, flip=True, generator=generator)
    places = out[:, 0].flatten(1).argmax(dim=1).bincount(minlength=81)
    assert (places > 0).all()
    assert places.max() < 2.2 * places.float().mean()


def test_cutout_zeroes_one_square_of_each_image():
    generator = torch.Generator().manual_seed(0)
    out = random_cutout(torch.ones(500, 3, 16, 16), size=6, generator=generator)
    assert torch.equal(out, out[:, :1].expand_as(out))  # the same place in all channels
    holes = (out[:, 0] == 0).sum(dim=(1, 2))
    assert int(holes.max()) == 36
    assert int(holes.min()) >= 9  # a corner's centre leaves a quarter inside
    rows = (out[:, 0] == 0).any(dim=2)
    assert rows.any(dim=0).all()  # every row is reached
    assert (rows.sum(dim=1) * (out[:, 0] == 0).any(dim=1).sum(dim=1) == holes).all()  # it is a rectangle
