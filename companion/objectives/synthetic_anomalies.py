"""Synthetic anomalies for images, harmless disturbances, and a classifier's objective that learns from both.

The functions take float images (N, C, H, W) in [0, 1], on any device, and return new ones, clipped to [0, 1].
Random numbers come from a CPU generator; the global one if it is ``None``.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from companion.objectives.classification import Batch, random_shift_flip

Change = Callable[[Tensor, Generator | None], Tensor]


def as_floats(images: Tensor) -> Tensor:
    """uint8 images (N, C, H, W) as float32 in [0, 1]."""
    assert images.dtype == torch.uint8, images.dtype
    return images.float() / 255


def draws(images: Tensor, generator: Generator | None) -> Callable[[float, float], Tensor]:
    """Draws one number from a range for each of N images: (N, 1, 1, 1), of their device and dtype."""
    shape = (len(images), 1, 1, 1)
    return lambda low, high: (low + (high - low) * torch.rand(shape, generator=generator)).to(images)


def smooth_noise(like: Tensor, rows: int, columns: int, generator: Generator | None) -> Tensor:
    """Normal deviates on a grid of at least 2 x 2, interpolated to the shape of ``like`` (N, C, H, W)."""
    grid = torch.randn(*like.shape[:2], max(2, rows), max(2, columns), generator=generator)
    noise = F.interpolate(grid, size=tuple(like.shape[2:]), mode="bilinear", align_corners=False)
    return noise.to(like)


def coordinates(images: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres from -1 to 1: x (1, 1, 1, W) and y (1, 1, H, 1)."""
    axes = [(torch.arange(n, device=images.device) + 0.5) * 2 / n - 1 for n in images.shape[2:]]
    y, x = (axis.to(images.dtype) for axis in axes)
    return x.view(1, 1, 1, -1), y.view(1, 1, -1, 1)


def random_apply(change: Change, images: Tensor, share: float, generator: Generator | None) -> Tensor:
    """Apply ``change`` to each image with probability ``share``."""
    if share == 0 or not (chosen := torch.rand(len(images), generator=generator) < share).any():
        return images
    images, chosen = images.clone(), chosen.to(images.device)
    images[chosen] = change(images[chosen], generator)
    return images


@dataclass(frozen=True)
class CameraJitter:
    """Move, zoom, mirror and light every image at random, as a touched camera does; edges are repeated."""

    max_shift: float = 0.2  #: the largest shift in either direction, as a share of the side
    max_zoom: float = 0.25  #: the largest share by which sides are scaled; against each other half as much
    flip: bool = True  #: whether half the images are mirrored left to right
    brightness: float = 0.12  #: the largest amount that is added to all pixels
    contrast: float = 0.25  #: the largest share by which differences from the image's mean grow or shrink
    tint: float = 0.03  #: the largest amount that is added to single channels

    def __call__(self, images: Tensor, generator: Generator | None) -> Tensor:
        """Float images (N, C, H, W), jittered."""
        count = len(images)
        if self.flip:
            images = random_shift_flip(images, max_shift=0, flip=True, generator=generator)
        if count and (self.max_shift or self.max_zoom):
            moves = (2 * torch.rand(4, count, generator=generator) - 1).to(images)
            scale, aspect = 1 + self.max_zoom * moves[0], 1 + 0.5 * self.max_zoom * moves[1]
            matrix = images.new_zeros(count, 2, 3)
            matrix[:, 0, 0], matrix[:, 1, 1] = scale * aspect, scale / aspect
            matrix[:, :, 2] = 2 * self.max_shift * moves[2:].T
            grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
            images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        draw = draws(images, generator)
        light, contrast = draw(-self.brightness, self.brightness), 1 + draw(-self.contrast, self.contrast)
        images = mean + (images - mean) * contrast + light
        if self.tint:
            tints = torch.rand(count, images.shape[1], 1, 1, generator=generator).to(images)
            images = images + self.tint * (2 * tints - 1)
        return images.clamp(0, 1)


STILL = CameraJitter(0.0, 0.0, False, 0.0, 0.0, 0.0)  # which draws random numbers all the same


def occlusion(images: Tensor, generator: Generator | None) -> Tensor:
    """Put something in front of each image that reaches into it from a side: an arm, a helmet, a beam.

    Two in five are bars of any slant, two in five are discs, and one covers all behind a straight line; over
    at most two fifths of the side. Each has one colour, nearly black to bright, a shade and soft edges.
    """
    count, channels, height, width = images.shape
    (x, y), draw = coordinates(images), draws(images, generator)
    angle = draw(-math.pi, math.pi)
    reach = 0.8 * draw(0.1, 1)
    along = x * torch.cos(angle) + y * torch.sin(angle)
    across = y * torch.cos(angle) - x * torch.sin(angle)
    wide, place = draw(0.08, 0.4), draw(-0.8, 0.8)
    bar = torch.minimum(along - (1 - reach), wide - (across - place).abs())
    radius = draw(0.3, 1.2)
    center = 1 - reach + radius
    disc = radius - ((along - center).square() + (across - place).square()).sqrt()
    kind = draw(0, 1)
    shape = torch.where(kind < 0.4, bar, torch.where(kind < 0.8, disc, along - (1 - reach)))
    soft = torch.sigmoid(shape * draw(10, 40))  # (N, 1, H, W)
    own = torch.rand(count, channels, 1, 1, generator=generator).to(images)
    mean = images.mean(dim=(2, 3), keepdim=True)
    mixed = draw(0.2, 1)
    color = mixed * own * draw(0.1, 1) + (1 - mixed) * mean
    shade = 0.1 * smooth_noise(images, 3, 4, generator)
    fine = 0.04 * smooth_noise(images[:, :1], height // 3, width // 3, generator)
    return (images * (1 - soft) + (color + shade + fine) * soft).clamp(0, 1)


def fog(images: Tensor, generator: Generator | None) -> Tensor:
    """Put steam or smoke in front of each image: blurred, and mixed with one shade that is nearly even."""
    draw = draws(images, generator)
    amount = 0.98 * draw(0.3, 1)
    smooth = F.avg_pool2d(images, 3, stride=1, padding=1, count_include_pad=False)
    shade = images.mean(dim=(2, 3), keepdim=True) * draw(0.7, 1.15)
    drift = 0.03 * smooth_noise(images[:, :1], 2, 3, generator)
    return ((1 - amount) * smooth + amount * (shade + drift)).clamp(0, 1)


def spill(images: Tensor, generator: Generator | None) -> Tensor:
    """Paint bright glittering streaks from a random place of each image's middle downwards."""
    height, width = images.shape[2:]
    (x, y), draw = coordinates(images), draws(images, generator)
    middle, reach = draw(-0.3, 0.3), draw(0.15, 0.5)
    top, bottom = draw(-0.9, 0.3), draw(0.5, 1.3)
    lean = draw(-0.4, 0.4)
    across = (x - middle - lean * y) / reach
    body = torch.exp(-across.square()) * torch.sigmoid(12 * (y - top)) * torch.sigmoid(12 * (bottom - y))
    streaks = smooth_noise(images[:, :1], height // 6, width // 3, generator)
    glitter = smooth_noise(images, height * 2 // 3, width * 2 // 3, generator)
    force = 0.5 * draw(0.33, 1)
    amount = body * streaks.abs().clamp(max=2)  # (N, 1, H, W)
    return (images + force * amount * (0.5 + 0.8 * glitter)).clamp(0, 1)


def empty_mould(images: Tensor, generator: Generator | None) -> Tensor:
    """Give an ellipse in the middle of each image one smooth shade, a mixture of those at its rim.

    It has a gradient; now and then some bright specks are left at the lower edge.
    """
    channels, height, width = images.shape[1:]
    (x, y), draw = coordinates(images), draws(images, generator)
    middle = [draw(-0.12, 0.12) for _ in range(2)]
    radii = [draw(low, low + 0.25) for low in (0.75, 0.7)]
    distance = (((x - middle[0]) / radii[0]).square() + ((y - middle[1] - 0.1) / radii[1]).square()).sqrt()
    soft = torch.sigmoid((1 - distance) * draw(8, 30))  # (N, 1, H, W)
    rim = ((distance > 0.8) & (distance < 1.05)).to(images)
    color = (images * rim).sum(dim=(2, 3), keepdim=True) / rim.sum(dim=(2, 3), keepdim=True).clamp(min=1)
    tint = torch.tensor([-0.03, -0.02, 0.02]) if channels == 3 else torch.zeros(channels)
    color = color + tint.to(images).view(1, -1, 1, 1) * draw(0, 1.5)
    shade = 0.08 * (y * draw(-1, 1) + x * draw(-0.5, 0.5))
    grain = smooth_noise(images, height // 2, width // 2, generator)
    filled = color + draw(-0.06, 0.06) + shade + 0.006 * grain
    out = images * (1 - soft) + filled * soft
    specks = torch.exp(-((distance - 0.9) / 0.08).square()) * torch.sigmoid(10 * (y - 0.4))
    sparkle = smooth_noise(images, height, width, generator).clamp(0, 2)
    sparkling = (draw(0, 1) < 0.4).to(images)
    return (out + 0.2 * sparkling * specks * sparkle).clamp(0, 1)


def cut_paste(images: Tensor, generator: Generator | None, least: float = 0.02, most: float = 0.15) -> Tensor:
    """Copy a rectangle of each image to another place of it, a little brighter or darker.

    Li et al. 2021, "CutPaste": this share of the area, sides in a ratio of up to 3.3. It imitates no fault.
    """
    (x, y), draw = coordinates(images), draws(images, generator)
    area, ratio = draw(least, most), torch.exp(draw(-1.2, 1.2))
    wide, high = (x - draw(-0.8, 0.8)).abs(), (y - draw(-0.8, 0.8)).abs()
    inside = (wide < (area * ratio).sqrt()) & (high < (area / ratio).sqrt())
    matrix = torch.eye(2, 3).to(images).repeat(len(images), 1, 1)
    matrix[:, :, 2] = torch.cat([draw(-1, 1), draw(-1, 1)], dim=1)[:, :, 0, 0]
    grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
    other = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    return torch.where(inside, other * draw(0.9, 1.1), images).clamp(0, 1)


PAINTERS: dict[str, Change] = {"spill": spill, "empty": empty_mould, "cut": cut_paste}


@dataclass(frozen=True)
class OutlierExposure:
    """Tell normal images from anomalies: known ones, and normal ones into which anomalies were painted.

    Known ones as in Hendrycks et al. 2019, "Deep Anomaly Detection with Outlier Exposure"; painted ones as in
    Li et al. 2021, "CutPaste", and Zavrtanik et al. 2021, "DRAEM", but these imitate expected faults. The
    net's one output is the logit of an anomaly.
    """

    mean: Tensor  #: (C,) of the pixels scaled to [0, 1], for normalising
    std: Tensor  #: (C,), likewise
    known: Tensor | None = None  #: uint8 (K, C, H, W), known anomalies for training
    painters: tuple[Change, ...] = (spill, empty_mould)  #: each paints one kind of anomaly
    camera: CameraJitter = field(default_factory=CameraJitter)  #: the augmentation
    occlusions: float = 0.4  #: the share of images that get one
    fogged: float = 0.15  #: the share of images that are seen through fog
    fog_faults: bool = True  #: whether anomalies are, too, or only normal images

    def normalized(self, floats: Tensor) -> Tensor:
        """Float images (N, C, H, W) in [0, 1] as the net takes them: (N, 3, H, W), grey ones three times."""
        mean, std = (each.to(floats).view(1, -1, 1, 1) for each in (self.mean, self.std))
        return ((floats - mean) / std).expand(-1, 3, -1, -1)

    def _draw_known(self, images: Tensor, generator: Generator | None) -> Tensor:
        """As many known anomalies, at random."""
        assert self.known is not None
        rows = torch.randint(len(self.known), (len(images),), generator=generator)
        return as_floats(self.known[rows.to(self.known.device)]).to(images)

    def training_batch(self, images: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Half of the normal images, uint8 (N, C, H, W), turned into anomalies, and all augmented.

        Gives float images (N, C, H, W), and float labels (N,), 0 for the first half and 1 for the others.
        """
        floats = as_floats(images)
        half = len(floats) // 2
        parts = [random_apply(fog, floats[:half], 0 if self.fog_faults else self.fogged, generator)]
        makers = [self._draw_known] * (self.known is not None) + [*self.painters]
        for make, normal in zip(makers, floats[half:].tensor_split(len(makers)), strict=True):
            parts.append(make(normal, generator) if len(normal) else normal)
        batch = random_apply(fog, torch.cat(parts), self.fogged if self.fog_faults else 0, generator)
        moved = self.camera(batch, generator)
        labels = (torch.arange(len(floats), device=floats.device) >= half).float()
        return random_apply(occlusion, moved, self.occlusions, generator), labels

    def augmented(self, images: Tensor, generator: Generator | None = None) -> Tensor:
        """Normal images uint8 (N, C, H, W) as training shows them: in fog, by a moving camera, occluded."""
        floats = self.camera(random_apply(fog, as_floats(images), self.fogged, generator), generator)
        return (255 * random_apply(occlusion, floats, self.occlusions, generator)).round().to(torch.uint8)

    def __call__(self, model: nn.Module, batch: Batch, generator: Generator | None) -> dict[str, Tensor]:
        """``loss`` (nats) and ``error`` (share on the wrong side of 0) of normal images, uint8."""
        assert generator is not None, "this objective trains only"
        floats, labels = self.training_batch(batch[0], generator)
        logits = model(self.normalized(floats)).float()[:, 0]  # (N,)
        targets = 0.98 * labels + 0.01  # smoothed: logits would saturate, and rank no more
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        return {"loss": loss, "error": ((logits.detach() > 0) != (labels > 0.5)).float().mean()}
