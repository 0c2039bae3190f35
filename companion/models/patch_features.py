"""Features of image patches, taken from inside a residual net that has learned something else."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.inference_mode()
def patch_features(
    net: nn.Module, images: Tensor, stages: Sequence[int] = (1, 2), grid: tuple[int, int] | None = None
) -> Tensor:
    """The maps behind some stages of a net, smoothed, brought to one grid and put side by side.

    Smoothing over 3x3 positions makes each vector one of a larger patch (Roth et al. 2022, section 3.1).

    Args:
        net: with ``stages``, as :class:`companion.models.resnet.ResNet` and
            :class:`companion.models.resnet9.ResNet9` have them; left in the mode in which it came, and used
            in evaluation mode.
        images: float (N, C, H, W), prepared as the net had them in training.
        stages: which stages, counted from 0.
        grid: height and width of the grid; that of the first of the stages if not given.

    Returns:
        float32 (N, h, w, d), where d counts the channels of all those stages.

    Raises:
        ValueError: if the net has no such stages, or none is asked for.
    """
    inner = getattr(net, "stages", None)
    if not isinstance(inner, nn.Sequential) or not stages or not 0 <= min(stages) <= max(stages) < len(inner):
        known = len(inner) if isinstance(inner, nn.Sequential) else 0
        raise ValueError(f"this net has {known} stages, counted from 0, and {tuple(stages)} were asked for")
    caught: dict[int, Tensor] = {}

    def keep(number: int) -> None:
        def hook(_module: nn.Module, _given: object, maps: Tensor) -> None:
            caught[number] = maps

        handles.append(inner[number].register_forward_hook(hook))

    handles: list[torch.utils.hooks.RemovableHandle] = []
    was_training = net.training
    try:
        for number in stages:
            keep(number)
        net.eval()(images)
    finally:
        net.train(was_training)
        for handle in handles:
            handle.remove()
    size = grid or tuple(caught[stages[0]].shape[2:])
    smoothed = (
        F.avg_pool2d(caught[n].float(), 3, stride=1, padding=1, count_include_pad=False) for n in stages
    )
    resized = [F.interpolate(maps, size=size, mode="bilinear", align_corners=False) for maps in smoothed]
    return torch.cat(resized, dim=1).permute(0, 2, 3, 1).contiguous()  # (N, h, w, d)
