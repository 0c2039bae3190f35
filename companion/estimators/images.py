"""An autoencoder that finds unusual images, with the habits of scikit-learn.

It learns to reconstruct normal images; what it reconstructs badly is unusual.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from companion.compute import Compute, pick_compute
from companion.detection.anomaly_maps import ErrorKind, error_map, image_scores, multiscale_map
from companion.detection.thresholds import fixed_fpr, tnr_target
from companion.models.autoencoders import ConvAutoencoder, ResidualAutoencoder
from companion.objectives.reconstruction import STILL, Camera, ImageReconstruction
from companion.training import (
    CheckpointError,
    FitConfig,
    History,
    evaluate,
    load_weights,
    save_weights,
    weights_metadata,
)
from companion.training import fit as train

_KIND, _VERSION = "ImageAE", 1
_BATCH = 512  # images in one forward pass that learns nothing


class ImageAE(BaseEstimator):  # type: ignore[misc]
    """An autoencoder over images of one size, grey or colour.

    Images are uint8 tensors (N, C, H, W), as :mod:`companion.data.images` reads them.

    Args:
        net: ``"conv"``, :class:`companion.models.autoencoders.ConvAutoencoder`, or ``"residual"``,
            :class:`companion.models.autoencoders.ResidualAutoencoder`.
        latent: numbers in the code of the one, channels in that of the other.
        widths: channels of the convolutions or stages.
        loss: mean absolute (``"l1"``) or squared (``"mse"``) error, in training.
        error: what the maps show, see :func:`companion.detection.anomaly_maps.error_map`.
        scales: of the maps, see :func:`companion.detection.anomaly_maps.multiscale_map`.
        top: the share of pixels that make the score, see
            :func:`companion.detection.anomaly_maps.image_scores`.
        camera: the augmentation while training.
        obstacles: the share of training images that get an obstacle.
        lr: of Adam.
        schedule: what becomes of the rate: ``"constant"``, or ``"cosine"`` down to 0 at the last epoch.
        weight_decay: of Adam, an L2 penalty.
        batch_size: images in a step.
        patience: stop after this many epochs without a lower validation loss, and take the best weights;
            ``None`` for never.
        seed: decides initial weights, hold-out, order and augmentation.

    Attributes:
        net_: the net, after :meth:`fit`.
        shape_: channels, height and width of an image.
        history_: what was measured while training; empty after :meth:`load`.
        threshold_: images with a higher score are flagged; ``None`` until :meth:`calibrate`.
        promised_fpr_: the share of normal images that may be, as :meth:`calibrate` was told.

    Example:
        >>> images = torch.randint(90, 110, (40, 1, 16, 16), dtype=torch.uint8)
        >>> model = ImageAE(latent=4, widths=(4, 8)).fit(images, epochs=1)
        >>> model.score(images[:3]).shape
        (3,)
    """

    def __init__(
        self,
        net: Literal["conv", "residual"] = "conv",
        latent: int = 64,
        widths: Sequence[int] = (32, 64, 128),
        *,
        loss: Literal["l1", "mse"] = "l1",
        error: ErrorKind = "l1",
        scales: Sequence[int] = (1,),
        top: float = 1.0,
        camera: Camera = STILL,
        obstacles: float = 0.0,
        lr: float = 1e-3,
        schedule: Literal["constant", "cosine"] = "constant",
        weight_decay: float = 1e-5,
        batch_size: int = 128,
        patience: int | None = 12,
        seed: int = 0,
    ) -> None:
        self.net, self.latent, self.widths = net, latent, widths
        self.loss, self.error, self.scales, self.top = loss, error, scales, top
        self.camera, self.obstacles = camera, obstacles
        self.lr, self.schedule, self.weight_decay = lr, schedule, weight_decay
        self.batch_size, self.patience, self.seed = batch_size, patience, seed

    # ------------------------------------------------------------ learning

    def fit(
        self,
        images: Tensor,
        y: None = None,
        *,
        epochs: int = 20,
        validation: Tensor | float = 0.1,
        compute: Compute | None = None,
        checkpoint: Path | None = None,
        progress: str | None = None,
        stop_after: int | None = None,
    ) -> ImageAE:
        """Learn to reconstruct normal images.

        Args:
            images: uint8 (N, C, H, W).
            y: not used; scikit-learn's pipelines pass it.
            epochs: passes over the images, at most.
            validation: normal images for early stopping, or the share of ``images`` that is held out at
                random for it; 0 for none. Copies of an image must not be held out at random.
            compute: device and precision; by default the best device, in float32.
            checkpoint: a file to write checkpoints to, and to continue from if it is there.
            progress: the label of a progress bar; ``None`` for no bar.
            stop_after: leave after this many steps, to look at the start only.

        Returns:
            The model itself.

        Raises:
            ValueError: if the images have another shape or are too few, or an argument is out of range.
            TypeError: if they are not uint8.
        """
        learn, held_out = self._split(images, validation)
        if self.batch_size < 2 or epochs < 1 or not 0 < self.top <= 1:
            raise ValueError("need a batch_size of at least 2, an epoch, and for top a share above 0")
        compute = compute or pick_compute(precision="float32")
        self.shape_: tuple[int, int, int] = tuple(learn.shape[1:])  # type: ignore[assignment]
        self.threshold_: float | None = None
        self.promised_fpr_: float | None = None
        self.net_ = self._build()
        steps = max(1, len(learn) // self.batch_size)
        config = FitConfig(
            num_steps=epochs * steps,
            batch_size=self.batch_size,
            lr=self.lr,
            optimizer="adam",
            schedule=self.schedule,
            weight_decay=self.weight_decay,
            eval_every=steps,
            checkpoint_every=10 * steps,
            patience=None if held_out is None else self.patience,
        )
        objective = self._objective()
        self.history_ = train(
            self.net_,
            (learn,),
            objective,
            config,
            compute=compute,
            seed=self.seed,
            evaluation=(
                None
                if held_out is None
                else lambda net: evaluate(net, (held_out,), objective, compute, _BATCH)
            ),
            checkpoint=checkpoint,
            identity=f"{self._parameters()} {hashlib.sha256(learn.contiguous().numpy().data).hexdigest()}",
            progress=progress,
            stop_after=stop_after,
        )
        self.net_.eval()
        return self

    def _split(self, images: Tensor, validation: Tensor | float) -> tuple[Tensor, Tensor | None]:
        images, held_out = _checked(images), None
        if isinstance(validation, Tensor):
            held_out = _checked(validation, tuple(images.shape[1:]))
        elif not 0 <= validation < 1:
            raise ValueError(f"validation is images or a share from 0 to below 1, not {validation}")
        elif validation > 0:
            order = torch.from_numpy(np.random.default_rng(self.seed).permutation(len(images)))
            cut = max(1, round(validation * len(images)))
            images, held_out = images[order[cut:].sort().values], images[order[:cut].sort().values]
        if len(images) < 2 or (held_out is not None and len(held_out) == 0):
            raise ValueError(
                "too few images: at least 2 to learn from are needed, and 1 more if some are held out"
            )
        return images, held_out

    def _objective(self) -> ImageReconstruction:
        low = -1.0 if self.net == "conv" else 0.0  # tanh and the sigmoid
        return ImageReconstruction(self.loss, low, self.camera, self.obstacles)

    def _build(self) -> ConvAutoencoder | ResidualAutoencoder:
        """The net with its initial weights; the global generator is left as it was."""
        if self.net not in ("conv", "residual"):
            raise ValueError(f"the net is 'conv' or 'residual', not {self.net!r}")
        channels, *size = self.shape_
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            if self.net == "conv":
                return ConvAutoencoder(channels, (size[0], size[1]), self.latent, self.widths)
            return ResidualAutoencoder(channels, (size[0], size[1]), self.widths, self.latent)

    def _parameters(self) -> str:
        """The parameters as JSON."""
        plain = self.get_params(deep=False) | {"camera": asdict(self.camera)}
        plain |= {"widths": list(self.widths), "scales": list(self.scales)}
        return json.dumps(plain, default=lambda number: number.item())

    # ------------------------------------------------------------ using

    def _ready(self, images: Tensor) -> Tensor:
        if not hasattr(self, "net_"):
            raise ValueError("fit the model first, or load one")
        return _checked(images, self.shape_)

    def reconstruct(self, images: Tensor) -> Tensor:
        """What the net makes of the images.

        Args:
            images: uint8 (N, C, H, W) of the size that the model was fitted on; any N, none included.

        Returns:
            Float32 (N, C, H, W) in [0, 1], on the CPU.

        Raises:
            ValueError: if the model is not fitted or the images do not fit it.
            TypeError: if they are not uint8.
        """
        images = self._ready(images)
        return self._objective().reconstruct(self.net_, images, _BATCH)[1]

    def latent_codes(self, images: Tensor) -> np.ndarray:
        """The codes as rows, float32 (N, d); arguments and errors as :meth:`reconstruct`."""
        images = self._ready(images)
        codes = self._objective().reconstruct(self.net_, images, _BATCH)[2]
        return np.asarray(codes.flatten(1).numpy())

    def maps(self, images: Tensor) -> Tensor:
        """How badly each place is reconstructed, float32 (N, H, W).

        Arguments and errors as :meth:`reconstruct`.
        """
        images = self._ready(images)
        parts = [torch.empty(0, *self.shape_[1:])]
        for start in range(0, len(images), _BATCH):
            given, made, _ = self._objective().reconstruct(self.net_, images[start : start + _BATCH], _BATCH)
            if tuple(self.scales) == (1,):
                parts.append(error_map(given, made, self.error))
            else:
                parts.append(multiscale_map(given, made, self.error, scales=self.scales))
        return torch.cat(parts)

    def score(self, images: Tensor, y: None = None) -> np.ndarray:
        """The mean over the highest pixels of each image's map, float64 (N,).

        Arguments and errors as :meth:`reconstruct`; ``y`` is not used.
        """
        return image_scores(self.maps(images), self.top)

    def calibrate(
        self, normal: Tensor, fpr: float = 0.01, anomalous: Tensor | None = None, tnr: float = 0.95
    ) -> ImageAE:
        """Set ``threshold_``, from normal images that training did not see, and from known anomalies, if any.

        Args:
            normal: uint8 (N, C, H, W).
            fpr: without anomalies: the share of normal images with a higher score, see
                :func:`companion.detection.thresholds.fixed_fpr`.
            anomalous: uint8 (M, C, H, W).
            tnr: with anomalies: see :func:`companion.detection.thresholds.tnr_target`.

        Raises:
            ThresholdError: if there are too few images for so small a share, or all scores are equal.
            ValueError: see :meth:`reconstruct`.
        """
        scores = self.score(normal)
        self.threshold_ = (
            fixed_fpr(scores, fpr) if anomalous is None else tnr_target(scores, self.score(anomalous), tnr)
        )
        self.promised_fpr_ = fpr if anomalous is None else 1 - tnr
        return self

    def predict(self, images: Tensor) -> np.ndarray:
        """Whether each image is flagged: bool (N,), true where the score is above ``threshold_``.

        Raises:
            ValueError: if :meth:`calibrate` has not been called, or see :meth:`reconstruct`.
        """
        if getattr(self, "threshold_", None) is None:
            raise ValueError("there is no threshold yet; calibrate the model on normal images first")
        flagged: np.ndarray = self.score(images) > self.threshold_
        return flagged

    # ------------------------------------------------------------ keeping

    def save(self, path: Path) -> None:
        """Write parameters, weights and threshold to one safetensors file.

        Raises:
            ValueError: if the model is not fitted.
        """
        if not hasattr(self, "net_"):
            raise ValueError("fit the model first")
        about = {
            "version": _VERSION,
            "parameters": json.loads(self._parameters()),
            "shape": list(self.shape_),
            "threshold": self.threshold_,
            "promised_fpr": self.promised_fpr_,
        }
        save_weights(path, self.net_, kind=_KIND, about=json.dumps(about))

    @classmethod
    def load(cls, path: Path, compute: Compute | None = None) -> ImageAE:
        """Read what :meth:`save` wrote; scores are the same to the last bit on the same device.

        Raises:
            CheckpointError: if the file is missing, damaged, or no model of this kind and version.
        """
        metadata = weights_metadata(path)
        if metadata.get("kind") != _KIND:
            raise CheckpointError(f"{path} holds no {_KIND}")
        try:
            about: dict[str, Any] = json.loads(metadata["about"])
            if about["version"] != _VERSION:
                raise CheckpointError(f"{path} has version {about['version']}, this program reads {_VERSION}")
            parameters: dict[str, Any] = about["parameters"]
            parameters["camera"] = Camera(**parameters["camera"])
            parameters |= {name: tuple(parameters[name]) for name in ("widths", "scales")}
            model = cls(**parameters)
            channels, height, width = about["shape"]
            model.shape_, model.threshold_ = (channels, height, width), about["threshold"]
            model.promised_fpr_ = about.get("promised_fpr")
            model.net_ = model._build()
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a model that can be read: {error}") from error
        load_weights(path, model.net_)
        (compute or pick_compute(precision="float32")).model(model.net_).eval()
        model.history_ = History()
        return model


def _checked(images: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 in 0..255, not {images.dtype}")
    if images.ndim != 4 or (shape is not None and tuple(images.shape[1:]) != shape):
        wanted = "(N, C, H, W)" if shape is None else f"(N, {', '.join(map(str, shape))})"
        raise ValueError(f"this model takes images {wanted}, not {tuple(images.shape)}")
    return images
