"""Scores of images from their reconstructions: maps of the error, and one number for each image.

The higher, the more unusual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ErrorKind = Literal["mse", "l1", "hybrid"]


def _checked(images: Tensor, reconstructions: Tensor) -> tuple[Tensor, Tensor]:
    if images.ndim != 4 or images.shape != reconstructions.shape:
        raise ValueError(
            f"need images and reconstructions (N, C, H, W), not {tuple(images.shape)} "
            f"and {tuple(reconstructions.shape)}"
        )
    if not (images.is_floating_point() and reconstructions.is_floating_point()):
        raise TypeError(f"need floating-point images, not {images.dtype} and {reconstructions.dtype}")
    bad = ~(torch.isfinite(images) & torch.isfinite(reconstructions)).flatten(1).all(dim=1)
    if bad.any():
        raise ValueError(f"{int(bad.sum())} images or reconstructions hold NaN or infinity")
    return images.float(), reconstructions.float()


def error_map(
    images: Tensor,
    reconstructions: Tensor,
    kind: ErrorKind = "l1",
    *,
    alpha: float = 0.5,
    beta: float = 0.5,
    window: int = 7,
    data_range: float = 1.0,
) -> Tensor:
    """How far each pixel of a reconstruction is from its image, as a mean over the channels.

    Args:
        images: float (N, C, H, W).
        reconstructions: likewise.
        kind: ``"mse"``, the squared error; ``"l1"``, the absolute error; ``"hybrid"``, ``alpha * l1 + beta *
            (1 - SSIM)`` with the structural similarity of Wang et al. 2004 ("Image Quality Assessment: From
            Error Visibility to Structural Similarity") as torchmetrics computes it.
        alpha: weight of the absolute error in ``"hybrid"``.
        beta: weight of the structural error in ``"hybrid"``.
        window: side of the SSIM's window in pixels, odd.
        data_range: the largest difference between two pixels: 1 for images in [0, 1], 2 for [-1, 1].

    Returns:
        float32 (N, H, W).

    Raises:
        ValueError: if the shapes differ, there is NaN or infinity, or an argument is out of range.
        TypeError: if the images are not floating-point.
    """
    images, reconstructions = _checked(images, reconstructions)
    if kind not in ("mse", "l1", "hybrid") or min(alpha, beta) < 0 or window % 2 == 0 or data_range <= 0:
        raise ValueError(
            f"need 'mse', 'l1' or 'hybrid', weights that are not negative, an odd window and a positive "
            f"range, not {kind!r}, {alpha}, {beta}, {window}, {data_range}"
        )
    difference = images - reconstructions
    if kind == "mse":
        return difference.square().mean(dim=1)
    absolute = difference.abs().mean(dim=1)
    if kind == "l1" or len(images) == 0:
        return absolute
    from torchmetrics.functional.image import structural_similarity_index_measure  # seconds to import

    _, similarity = structural_similarity_index_measure(
        reconstructions,
        images,
        gaussian_kernel=False,
        kernel_size=window,
        data_range=data_range,
        reduction="none",
        return_full_image=True,
    )
    return alpha * absolute + beta * (1 - similarity.mean(dim=1))


def multiscale_map(
    images: Tensor,
    reconstructions: Tensor,
    kind: ErrorKind = "l1",
    *,
    scales: Sequence[int] = (1, 2, 4),
    alpha: float = 0.5,
    beta: float = 0.5,
    window: int = 7,
    data_range: float = 1.0,
) -> Tensor:
    """The mean of error maps of the images made smaller, each brought back to the full size.

    Averaged over blocks, errors without a common sign cancel. So fine texture that a net cannot reproduce
    counts less, and what is wrong over a larger area counts more.

    Args:
        images: float (N, C, H, W).
        reconstructions: likewise.
        kind: see :func:`error_map`.
        scales: sides of the blocks.
        alpha: see :func:`error_map`.
        beta: likewise.
        window: likewise.
        data_range: likewise.

    Returns:
        float32 (N, H, W).

    Raises:
        ValueError: see :func:`error_map`; or a scale is not from 1 to the shorter side.
        TypeError: see :func:`error_map`.
    """
    images, reconstructions = _checked(images, reconstructions)
    size = tuple(images.shape[2:])
    if not scales or not 1 <= min(scales) <= max(scales) <= min(size):
        raise ValueError(f"scales lie between 1 and {min(size)}, not {tuple(scales)}")
    total = images.new_zeros(len(images), *size)
    for scale in scales:
        small, rebuilt = (F.avg_pool2d(x, scale) if scale > 1 else x for x in (images, reconstructions))
        fits = min(window, *(side - 1 + side % 2 for side in small.shape[2:]))  # odd, inside the image
        one = error_map(small, rebuilt, kind, alpha=alpha, beta=beta, window=fits, data_range=data_range)
        total += F.interpolate(one[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
    return total / len(scales)


def image_scores(maps: Tensor, top: float = 1.0, where: Tensor | None = None) -> np.ndarray:
    """One score for each image: the mean over the highest values of its map.

    Args:
        maps: float (N, H, W).
        top: the share of the pixels that count, the highest ones; 1 for the mean over all, a small one for
            faults of a few pixels.
        where: bool (H, W), which pixels count at all; ``None`` for all.

    Returns:
        float64 (N,).

    Raises:
        ValueError: if the maps have not three axes or hold NaN, ``top`` is no share, or no pixel counts.

    Example:
        >>> image_scores(torch.tensor([[[0.0, 1.0], [2.0, 5.0]]]), top=0.5).tolist()
        [3.5]
    """
    if maps.ndim != 3 or not 0 < top <= 1:
        raise ValueError(f"need maps (N, H, W) and a share above 0, not {tuple(maps.shape)} and {top}")
    pixels = maps.flatten(1).double()
    if where is not None:
        if where.shape != maps.shape[1:] or not where.any():
            raise ValueError(f"need bool (H, W) with a pixel that counts, not {tuple(where.shape)}")
        pixels = pixels[:, where.flatten()]
    if pixels.isnan().any():
        raise ValueError(f"{int(pixels.isnan().any(dim=1).sum())} maps hold NaN")
    count = max(1, round(top * pixels.shape[1]))
    scores: np.ndarray = pixels.topk(count, dim=1).values.mean(dim=1).cpu().numpy()
    return scores


def robust_scale(scores: np.ndarray, normal_scores: np.ndarray) -> np.ndarray:
    """Scores in units of the spread of normals, so that scores of several kinds can be added.

    Args:
        scores: (N,).
        normal_scores: (n,) of normals that the detector was not fitted on.

    Returns:
        float64 (N,), 0 at the median of the normals and 1 at their 95 % quantile.

    Raises:
        ValueError: if there are no normals, something is not finite, or the normals do not differ.
    """
    scores, normals = (np.asarray(values, dtype=np.float64) for values in (scores, normal_scores))
    if normals.ndim != 1 or scores.ndim != 1 or len(normals) == 0:
        raise ValueError(f"need scores (N,) and scores of normals, not {scores.shape} and {normals.shape}")
    if not (np.isfinite(scores).all() and np.isfinite(normals).all()):
        raise ValueError("some scores are NaN or infinite; leave them out")
    middle, high = np.quantile(normals, [0.5, 0.95])
    if high <= middle:
        raise ValueError("the scores of the normals do not differ, so they give no unit")
    units: np.ndarray = (scores - middle) / (high - middle)
    return units
