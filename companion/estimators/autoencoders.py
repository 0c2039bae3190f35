"""Autoencoders that find unusual waveforms and images: what they reconstruct badly is unusual."""

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from companion.data.series import StandardizerKind, as_windows, channel_statistics, standardize
from companion.detection.anomaly_maps import image_scores, multiscale_map
from companion.estimators.base import AnomalyDetector, Count, Positive
from companion.models.autoencoders import ConvAutoencoder, ResidualAutoencoder, WaveAutoencoder
from companion.objectives.reconstruction import ImageReconstruction, Loss, WaveformReconstruction
from companion.objectives.synthetic_anomalies import CameraJitter, as_floats

_BATCH = 512  # examples in one forward pass that learns nothing
Batch = Annotated[int, Field(ge=2)]
Range = tuple[float, float]
Numbers = Annotated[tuple[Count, ...], Field(min_length=1, max_length=8)]


class ResNetAE(AnomalyDetector):
    """A 1-D residual autoencoder over windows of fixed length.

    Windows are arrays (N, channels, L), or (N, L) for one channel. NaN marks gaps, which count neither in
    training nor in the score: the mean residual, in standardised units.

    Args:
        bottleneck, depth, width: of :class:`companion.models.autoencoders.WaveAutoencoder`.
        standardize: see :func:`companion.data.series.standardize`; by ``"window"``, offset and amplitude are
            invisible.
        loss: mean absolute or squared residual, in training and in the score.
        jitter: standard deviation of the noise that is added to the input while training.
        patience: stop after so many epochs without a lower validation loss, and take the best weights; the
            learning rate is constant then, and falls to 0 as a cosine otherwise.

    Example:
        >>> beats = np.sin(np.linspace(0, 6, 32)) + 0.1 * np.random.default_rng(0).normal(size=(40, 32))
        >>> model = ResNetAE(depth=2, bottleneck=4, width=4).fit(beats, epochs=2)
        >>> model.decision_function(beats[:3]).shape
        (3,)
    """

    _facts: ClassVar = {
        "channels_": Count, "length_": Count, "mean_": list[float] | None, "std_": list[Positive] | None,
        "columns_": list[str] | None, "stride_": Count | None,
    }  # fmt: skip

    def __init__(
        self, bottleneck: Count = 2, depth: Annotated[int, Field(ge=1, le=16)] = 4, width: Count = 8, *,
        standardize: StandardizerKind = "window", loss: Loss = "l2",
        jitter: Annotated[float, Field(ge=0)] = 0.1, lr: Positive = 1e-3, batch_size: Batch = 64,
        patience: Count | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.bottleneck, self.depth, self.width = bottleneck, depth, width
        self.standardize, self.loss, self.jitter = standardize, loss, jitter
        self.lr, self.batch_size, self.patience, self.seed = lr, batch_size, patience, seed

    def _learn_shapes(self, X: np.ndarray) -> None:
        windows = as_windows(X, np.shape(X)[1] if np.ndim(X) == 3 else 1)
        empty = int(np.isnan(windows).all(axis=(1, 2)).sum())
        if empty:
            raise ValueError(f"{empty} training windows hold no number at all; leave them out")
        self.mean_: list[float] | None = None
        self.std_: list[float] | None = None
        if self.standardize == "channel":
            self.mean_, self.std_ = channel_statistics(windows)
        self.channels_, self.length_ = windows.shape[1:]
        self.columns_: list[str] | None = None  # names of the channels, if whoever fits it tells them
        self.stride_: int | None = None  # samples from window to window of the series that it learns from

    def _net(self) -> WaveAutoencoder:
        known = {len(self.mean_ or ()), len(self.std_ or ())}
        if self.standardize == "channel" and known != {self.channels_}:
            raise ValueError(f"need a mean and a standard deviation of each of {self.channels_} channels")
        return WaveAutoencoder(self.channels_, self.length_, self.depth, self.bottleneck, self.width)

    def _objective(self) -> WaveformReconstruction:
        return WaveformReconstruction(self.loss, self.jitter)

    def _examples(self, X: np.ndarray) -> tuple[Tensor, ...]:
        windows = self._windows(X)
        return torch.from_numpy(self._standard(windows)[0]), torch.from_numpy(~np.isnan(windows))

    def _windows(self, X: np.ndarray) -> np.ndarray:
        windows = as_windows(X, self.channels_)
        if windows.shape[2] != self.length_:
            raise ValueError(f"this model takes windows of {self.length_} samples, not of {windows.shape[2]}")
        return windows

    def _standard(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return standardize(windows, self.standardize, (self.mean_, self.std_))

    @torch.inference_mode()
    def _rebuilt(self, standard: np.ndarray) -> np.ndarray:
        device = next(self.net_.parameters()).device
        batches = torch.split(torch.from_numpy(standard), _BATCH)
        return torch.cat([self.net_(batch.to(device))[0].float().cpu() for batch in batches]).numpy()

    def reconstruct(self, X: np.ndarray) -> np.ndarray:
        """What the net makes of windows, in their own units, shape and type; gaps are filled."""
        check_is_fitted(self, "net_")
        windows = self._windows(X)
        standard, center, scale = self._standard(windows)
        own: np.ndarray = (self._rebuilt(standard) * scale + center).astype(windows.dtype)
        return own.reshape(np.shape(X))

    def _score(self, X: np.ndarray) -> np.ndarray:
        """The mean residual of each window; NaN for one that holds no number at all."""
        windows = self._windows(X)
        known, standard = ~np.isnan(windows), self._standard(windows)[0]
        residuals = np.abs(self._rebuilt(standard) - standard).astype(np.float64)
        cost = residuals**2 if self.loss == "l2" else residuals
        total, count = np.where(known, cost, 0).sum(axis=(1, 2)), known.sum(axis=(1, 2))
        scores = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        beyond = ~np.isfinite(scores) & (count > 0)  # the net could not compute it: as unusual as can be
        return np.where(beyond, np.finfo(np.float64).max, scores)


class ImageDetector(AnomalyDetector):
    """What detectors over images uint8 (N, C, H, W), grey or colour, share; :meth:`maps` says where it is."""

    _maps: Any  #: of a child: maps of one batch
    worst_ = False  #: whether the score is the most unusual place of the map, for small faults, or the mean
    _facts: ClassVar = {"shape_": tuple[Literal[1, 3], Count, Count], "value_range_": Range | None}

    def _learn_shapes(self, X: Tensor) -> None:
        if X.ndim != 4:
            raise ValueError(f"images are uint8 (N, C, H, W), not {tuple(X.shape)}")
        self.shape_, self.worst_ = tuple(X.shape[1:]), False
        self.value_range_: Range | None = None  # black and white of files deeper than 8 bits

    def _examples(self, X: Tensor) -> tuple[Tensor, ...]:
        if X.dtype != torch.uint8 or tuple(X.shape[1:]) != self.shape_:
            asked = ", ".join(map(str, self.shape_))
            raise ValueError(f"this model takes uint8 images (N, {asked}), not {X.dtype} {tuple(X.shape)}")
        return (X,)

    def maps(self, X: Tensor) -> Tensor:
        """How unusual each place of the images is, float32 (N, H, W)."""
        check_is_fitted(self, "net_")
        images, parts = self._examples(X)[0], [torch.empty(0, *self.shape_[1:])]
        return torch.cat(parts + [self._maps(images[i : i + _BATCH]) for i in range(0, len(X), _BATCH)])

    def _score(self, X: Tensor) -> np.ndarray:
        return image_scores(self.maps(X), self.worst_)


class ImageAE(ImageDetector):
    """An autoencoder over images uint8 (N, C, H, W), grey or colour; the score is the mean of an error map.

    Args:
        net: :class:`companion.models.autoencoders.ConvAutoencoder` or ``ResidualAutoencoder``.
        latent: numbers in the code of the one, channels in that of the other.
        loss: mean absolute or squared error, in training and in the maps.
        scales: of the maps, see :func:`companion.detection.anomaly_maps.multiscale_map`.

    Example:
        >>> images = torch.randint(90, 110, (40, 1, 16, 16), dtype=torch.uint8)
        >>> model = ImageAE(latent=4, widths=(4, 8)).fit(images, epochs=1)
        >>> model.decision_function(images[:3]).shape
        (3,)
    """

    _facts: ClassVar = ImageDetector._facts | {"worst_": bool}

    def __init__(
        self, net: Literal["conv", "residual"] = "conv", latent: Count = 32, widths: Numbers = (32, 64, 128),
        *, loss: Literal["l1", "mse"] = "l1", scales: Numbers = (1,),
        camera: CameraJitter = CameraJitter(),  # noqa: B008
        lr: Positive = 2e-3, batch_size: Batch = 128, patience: Count | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        self.net, self.latent, self.widths = net, latent, widths
        self.loss, self.scales, self.camera = loss, scales, camera
        self.lr, self.batch_size, self.patience, self.seed = lr, batch_size, patience, seed

    def _net(self) -> ConvAutoencoder | ResidualAutoencoder:
        channels, height, width = self.shape_
        if self.net == "conv":
            return ConvAutoencoder(channels, (height, width), self.latent, self.widths)
        return ResidualAutoencoder(channels, (height, width), self.widths, self.latent)

    def _objective(self) -> ImageReconstruction:
        low = -1.0 if self.net == "conv" else 0.0  # tanh and the sigmoid
        return ImageReconstruction(self.loss, low, self.camera)

    @torch.inference_mode()
    def reconstruct(self, X: Tensor) -> Tensor:
        """What the net makes of the images: float32 (N, C, H, W) in [0, 1], on the CPU."""
        check_is_fitted(self, "net_")
        low, device, made = self._objective().low, next(self.net_.parameters()).device, []
        for batch in torch.split(self._examples(X)[0], _BATCH):  # one empty batch of no images
            x_hat = self.net_((as_floats(batch) * (1 - low) + low).to(device))[0]
            made.append(((x_hat.float() - low) / (1 - low)).cpu())
        return torch.cat(made)

    def _maps(self, X: Tensor) -> Tensor:
        return multiscale_map(as_floats(X), self.reconstruct(X), self.loss, scales=self.scales)
