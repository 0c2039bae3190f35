"""Scores of images from their reconstructions: maps of the error, and one number for each image."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from companion.detection.metrics import check_scores

ErrorKind = Literal["mse", "l1", "hybrid"]


def error_map(images: Tensor, reconstructions: Tensor, kind: ErrorKind = "l1", window: int = 7) -> Tensor:
    """How far each pixel of a reconstruction is from its image, as a mean over the channels.

    Of images (N, C, H, W) in [0, 1], float32 (N, H, W): ``"mse"``, the squared error; ``"l1"``, the absolute
    error; ``"hybrid"``, the mean of l1 and 1 - SSIM, the structural similarity of Wang et al. 2004 ("Image
    Quality Assessment: From Error Visibility to Structural Similarity") in windows of an odd side.
    """
    assert images.shape == reconstructions.shape, (images.shape, reconstructions.shape)
    images, reconstructions = images.float(), reconstructions.float()
    difference = images - reconstructions
    if kind == "mse":
        return difference.square().mean(dim=1)
    absolute = difference.abs().mean(dim=1)
    if kind == "l1" or len(images) == 0:
        return absolute
    from torchmetrics.functional.image import structural_similarity_index_measure  # seconds to import

    _, similarity = structural_similarity_index_measure(
        reconstructions, images, gaussian_kernel=False, kernel_size=window, data_range=1.0,
        reduction="none", return_full_image=True,
    )  # fmt: skip
    return 0.5 * absolute + 0.5 * (1 - similarity.mean(dim=1))


def multiscale_map(
    images: Tensor, reconstructions: Tensor, kind: ErrorKind = "l1", scales: Sequence[int] = (1, 2, 4)
) -> Tensor:
    """The mean of error maps of the images made smaller, each brought back to the full size.

    Averaged over blocks, whose sides are ``scales``, errors without a common sign cancel. So fine texture
    that a net cannot reproduce counts less, and what is wrong over a larger area counts more. Shapes are
    those of :func:`error_map`.
    """
    size = tuple(images.shape[2:])
    total = images.new_zeros(len(images), *size)
    for scale in scales:
        small, rebuilt = (F.avg_pool2d(x, scale) if scale > 1 else x for x in (images, reconstructions))
        fits = min(7, *(side - 1 + side % 2 for side in small.shape[2:]))  # odd, inside the image
        one = error_map(small, rebuilt, kind, fits)
        total += F.interpolate(one[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return total / len(scales)


def image_scores(maps: Tensor, worst: bool = False) -> np.ndarray:
    """One score for each map (N, H, W), its mean or ``worst`` place: float64 (N,). NaN is refused."""
    flat = maps.flatten(1).double()
    return check_scores((flat.amax(dim=1) if worst else flat.mean(dim=1)).cpu().numpy())
