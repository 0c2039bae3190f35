"""Looking at a trained classifier: its answers, how sure it is, where it looks, and what throws it off."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from companion.compute import Compute
from companion.data.download import DataError
from companion.data.images import decode
from companion.objectives.classification import ImageClassification


@torch.inference_mode()
def predict(model: nn.Module, images: Tensor, objective: ImageClassification, compute: Compute) -> Tensor:
    """The logits of ``model`` in evaluation mode, float32 (N, num_classes) on the CPU, of uint8 (N, C, H, W).

    ``objective`` normalises, and averages over mirror images if it says so. The model's mode stays.
    """
    was_training = model.training
    model.eval()
    with compute.autocast():
        batches = (batch.to(compute.device) for batch in torch.split(images, 1000))
        logits = [objective.logits(model, batch).cpu() for batch in batches]
    model.train(was_training)
    return torch.cat(logits)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The tau with the lowest cross-entropy of ``softmax(logits / tau)`` (Guo et al. 2017, section 4.2).

    It changes no answer. Fit it on validation data: logits (N, num_classes) and labels, int64 (N,).
    """

    def loss(log_t: float) -> float:
        return float(F.cross_entropy(logits.double() / np.exp(log_t), labels))

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), options={"xatol": 1e-9}).x))


def grad_cam(model: nn.Module, layer: nn.Module, pixels: Tensor, classes: Tensor) -> Tensor:
    """Where the evidence for a class lies (Selvaraju et al. 2017, section 3).

    The maps (N, C, h, w) that ``layer``, a module of the classifier, makes of normalised images
    (N, 3, H, W) are averaged with weights: the mean gradients of the logit of the class, int64 (N,), in each
    map. What is negative is set to zero. Gives (N, H, W) in [0, 1], each map divided by its maximum; all zero
    where nothing speaks for the class.
    """
    kept: list[Tensor] = []
    with layer.register_forward_hook(lambda module, inputs, output: kept.append(output)):
        logits = model(pixels)
    maps = kept[0]
    score = logits.gather(1, classes.to(logits.device)[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, maps)
    weights = gradient.mean(dim=(2, 3), keepdim=True)  # (N, C, 1, 1)
    heat = F.relu((weights * maps).sum(dim=1, keepdim=True)).detach()  # (N, 1, h, w)
    heat = F.interpolate(heat.float(), pixels.shape[2:], mode="bilinear")[:, 0]
    return heat / heat.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)


def load_image(path: str | Path, size: int = 32) -> Tensor:
    """The middle square of an image file as a viewer shows it, scaled: uint8 (1, 3, ``size``, ``size``)."""
    try:
        image, _ = decode(Path(path).read_bytes(), (size, size), color=True)
    except (OSError, DataError) as error:
        raise DataError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    square = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)[None].contiguous()
