"""A residual autoencoder that finds unusual waveforms, with the habits of scikit-learn.

It learns to reconstruct normal windows; what it reconstructs badly is unusual. Sources: the blocks are
those of He et al. 2016b ("Identity Mappings in Deep Residual Networks"); a noisy input with a clean target is
Vincent et al. 2008 ("Extracting and Composing Robust Features with Denoising Autoencoders", section 2).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from torch import Tensor

from companion.compute import Compute, pick_compute
from companion.data.standardize import StandardiserKind, Standardizer, as_windows
from companion.detection.thresholds import fixed_fpr
from companion.models.autoencoders import NormKind, WaveAutoencoder
from companion.objectives.reconstruction import Loss, WaveformReconstruction
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

Schedule = Literal["constant", "cosine"]

_KIND, _VERSION = "ResNetAE", 1
_BATCH = 1024  # windows in one forward pass that learns nothing


class ResNetAE(BaseEstimator):  # type: ignore[misc]
    """A 1-D residual autoencoder over windows of fixed length.

    Windows are arrays (N, channels, L), or (N, L) for one channel. NaN marks gaps: the net is given a
    straight line across them, and they count neither in training nor in the score. Windows are
    standardised first; the score is in standardised units.

    Args:
        channels: of the waveform.
        depth: how often the length is halved; windows need ``2**depth`` samples.
        bottleneck: numbers in the latent vector.
        width: channels behind the first convolution.
        kernel_size: of the convolutions; odd.
        dropout: inside the residual blocks.
        norm: ``"batch"`` or ``"group"``.
        standardize: ``"window"``: each window and channel has mean 0 and standard deviation 1, so that
            offset and amplitude are invisible. ``"channel"``: mean and standard deviation of each
            channel over the training windows, kept with the model. ``"none"``: as they come.
        loss: mean absolute (``"l1"``) or squared (``"l2"``) residual, in training.
        score_norm: likewise, in the score.
        lr: of Adam.
        schedule: what becomes of the rate: ``"constant"``, or ``"cosine"`` down to 0 at the last epoch.
        weight_decay: of Adam, an L2 penalty.
        batch_size: windows in a step.
        patience: stop after this many epochs without a lower validation loss, and take the best
            weights; ``None`` for never.
        jitter: see :class:`companion.objectives.reconstruction.WaveformReconstruction`.
        max_shift: likewise.
        amplitude: likewise.
        seed: decides initial weights, hold-out, order, augmentation and dropout.

    Attributes:
        net_: the net, after :meth:`fit`.
        length_: samples in a window.
        history_: what was measured while training; empty after :meth:`load`.
        threshold_: windows with a higher score are flagged; ``None`` until :meth:`calibrate`.

    Example:
        >>> beats = np.sin(np.linspace(0, 6, 32)) + 0.1 * np.random.default_rng(0).normal(size=(40, 32))
        >>> model = ResNetAE(depth=2, bottleneck=4, width=4).fit(beats, epochs=2)
        >>> model.score(beats[:3]).shape
        (3,)
    """

    def __init__(
        self,
        channels: int = 1,
        depth: int = 4,
        bottleneck: int = 128,
        *,
        width: int = 16,
        kernel_size: int = 5,
        dropout: float = 0.0,
        norm: NormKind = "batch",
        standardize: StandardiserKind = "window",
        loss: Loss = "l1",
        score_norm: Loss = "l1",
        lr: float = 1e-3,
        schedule: Schedule = "constant",
        weight_decay: float = 1e-5,
        batch_size: int = 64,
        patience: int | None = 10,
        jitter: float = 0.1,
        max_shift: int = 0,
        amplitude: float = 0.1,
        seed: int = 0,
    ) -> None:
        self.channels, self.depth, self.bottleneck = channels, depth, bottleneck
        self.width, self.kernel_size, self.dropout, self.norm = width, kernel_size, dropout, norm
        self.standardize, self.loss, self.score_norm = standardize, loss, score_norm
        self.lr, self.schedule, self.weight_decay = lr, schedule, weight_decay
        self.batch_size, self.patience = batch_size, patience
        self.jitter, self.max_shift, self.amplitude = jitter, max_shift, amplitude
        self.seed = seed

    # ------------------------------------------------------------ learning

    def fit(
        self,
        train_windows: np.ndarray,
        y: None = None,
        *,
        epochs: int = 50,
        validation: np.ndarray | float = 0.1,
        compute: Compute | None = None,
        checkpoint: Path | None = None,
        progress: str | None = None,
        stop_after: int | None = None,
    ) -> ResNetAE:
        """Learn to reconstruct normal windows.

        Args:
            train_windows: (N, channels, L), or (N, L) for one channel; NaN where nothing is known.
            y: not used; scikit-learn's pipelines pass it.
            epochs: passes over the windows, at most.
            validation: normal windows for early stopping, or the share of ``train_windows`` that is held out
                at random for it; 0 for none. Windows that overlap must not be held out at random.
            compute: device and precision; by default the best device, in float32.
            checkpoint: a file to write checkpoints to, and to continue from if it is there.
            progress: the label of a progress bar; ``None`` for no bar.
            stop_after: leave after this many steps, to look at the start only.

        Returns:
            The model itself.

        Raises:
            ValueError: if the windows have another shape, infinite numbers or no numbers at all, if they
                are too few, or an argument is out of range.
        """
        learn, held_out = self._split(as_windows(train_windows, self.channels), validation)
        length = learn.shape[2]
        if held_out is not None and held_out.shape[2] != length:
            raise ValueError(f"validation windows have {held_out.shape[2]} samples, the others {length}")
        if self.batch_size < 2 or epochs < 1 or self.score_norm not in ("l1", "l2"):
            raise ValueError("need a batch_size of at least 2, an epoch, and score_norm 'l1' or 'l2'")
        compute = compute or pick_compute(precision="float32")
        self.standardizer_ = Standardizer(self.standardize).fit(learn)
        self.length_ = length
        self.threshold_: float | None = None
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
        objective = WaveformReconstruction(self.loss, self.jitter, self.max_shift, self.amplitude)
        data = self._tensors(learn)
        kept = None if held_out is None else self._tensors(held_out)
        digest = hashlib.sha256(learn.tobytes() + (b"" if held_out is None else held_out.tobytes()))
        self.history_ = train(
            self.net_,
            data,
            objective,
            config,
            compute=compute,
            seed=self.seed,
            evaluation=None if kept is None else lambda net: evaluate(net, kept, objective, compute),
            checkpoint=checkpoint,
            identity=f"{self._parameters()} {digest.hexdigest()}",
            progress=progress,
            stop_after=stop_after,
        )
        self.net_.eval()
        return self

    def _split(
        self, windows: np.ndarray, validation: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        empty = np.isnan(windows).all(axis=(1, 2))
        if empty.any():
            raise ValueError(f"{empty.sum()} training windows hold no number at all; leave them out")
        held_out: np.ndarray | None = None
        if not isinstance(validation, (int, float)):
            held_out = as_windows(validation, self.channels)
        elif not 0 <= validation < 1:
            raise ValueError(
                f"validation is an array of windows or a share from 0 to below 1, not {validation}"
            )
        elif validation > 0:
            order = np.random.default_rng(self.seed).permutation(len(windows))
            cut = max(1, round(validation * len(windows)))
            windows, held_out = windows[np.sort(order[cut:])], windows[np.sort(order[:cut])]
        if len(windows) < 2 or (held_out is not None and len(held_out) == 0):
            raise ValueError(
                "too few windows: at least 2 to learn from are needed, and 1 more if some are held out"
            )
        return windows, held_out

    def _build(self) -> WaveAutoencoder:
        """The net with its initial weights; the global generator is left as it was."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            return WaveAutoencoder(
                self.channels, self.length_, self.depth, self.bottleneck,
                self.width, self.kernel_size, self.dropout, self.norm,
            )  # fmt: skip

    def _parameters(self) -> str:
        """The parameters as JSON; NumPy's numbers become Python's."""
        return json.dumps(self.get_params(), default=lambda number: number.item())

    def _tensors(self, windows: np.ndarray) -> tuple[Tensor, Tensor]:
        """What the net is given: float32 (N, C, L) without NaN, and bool (N, C, L), where it was known."""
        standard = self.standardizer_.transform(windows)[0]
        return torch.from_numpy(standard), torch.from_numpy(~np.isnan(windows))

    # ------------------------------------------------------------ using

    def _checked(self, windows: np.ndarray) -> np.ndarray:
        if not hasattr(self, "net_"):
            raise ValueError("fit the model first, or load one")
        windows = as_windows(windows, self.channels)
        if windows.shape[2] != self.length_:
            raise ValueError(
                f"this model takes windows of {self.length_} samples, not of {windows.shape[2]}; "
                "cut or resample them, see companion.data.windows"
            )
        return windows

    @torch.inference_mode()
    def _reconstructed(self, standard: np.ndarray) -> np.ndarray:
        device = next(self.net_.parameters()).device
        self.net_.eval()
        out = np.empty_like(standard)
        for start in range(0, len(standard), _BATCH):
            batch = torch.from_numpy(standard[start : start + _BATCH]).to(device)
            out[start : start + _BATCH] = self.net_(batch)[0].float().cpu().numpy()
        return out

    def reconstruct(self, windows: np.ndarray) -> np.ndarray:
        """What the net makes of the windows, in their own units and shape; gaps are filled.

        Args:
            windows: (N, channels, L), or (N, L) for one channel; any N, none included.

        Returns:
            Of the shape of ``windows``; float32 for float32, else float64.

        Raises:
            ValueError: if the model is not fitted or the windows do not fit it.
        """
        checked = self._checked(windows)
        standard, center, scale = self.standardizer_.transform(checked)
        own: np.ndarray = (self._reconstructed(standard) * scale + center).astype(checked.dtype)
        return own.reshape(np.shape(windows))

    def residuals(self, windows: np.ndarray) -> np.ndarray:
        """Absolute residuals in standardised units, NaN in gaps.

        Args:
            windows: see :meth:`reconstruct`.

        Returns:
            float32 (N, channels, L).

        Raises:
            ValueError: see :meth:`reconstruct`.
        """
        checked = self._checked(windows)
        standard = self.standardizer_.transform(checked)[0]
        residuals = np.abs(self._reconstructed(standard) - standard)
        return np.where(np.isnan(checked), np.float32(np.nan), residuals)

    def score(self, windows: np.ndarray, y: None = None) -> np.ndarray:
        """Mean residual of each window in standardised units: the higher, the more unusual.

        Absolute residuals are averaged, or with ``score_norm="l2"`` their squares.

        Args:
            windows: see :meth:`reconstruct`.
            y: not used.

        Returns:
            float64 (N,); NaN for a window that holds no number at all.

        Raises:
            ValueError: see :meth:`reconstruct`.
        """
        residuals = self.residuals(windows).astype(np.float64)
        known = ~np.isnan(residuals)
        cost = residuals**2 if self.score_norm == "l2" else residuals
        total, count = np.where(known, cost, 0).sum(axis=(1, 2)), known.sum(axis=(1, 2))
        scores: np.ndarray = np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
        return scores

    def latent(self, windows: np.ndarray) -> np.ndarray:
        """The latent vectors, float32 (N, bottleneck); arguments and errors as :meth:`reconstruct`."""
        checked = self._checked(windows)
        standard = self.standardizer_.transform(checked)[0]
        device = next(self.net_.parameters()).device
        out = np.empty((len(standard), self.bottleneck), np.float32)
        with torch.inference_mode():
            for start in range(0, len(standard), _BATCH):
                batch = torch.from_numpy(standard[start : start + _BATCH]).to(device)
                out[start : start + _BATCH] = self.net_.encode(batch).float().cpu().numpy()
        return out

    def calibrate(self, normal_windows: np.ndarray, fpr: float = 0.01) -> ResNetAE:
        """Set ``threshold_`` so that about a share ``fpr`` of normal windows has a higher score.

        Args:
            normal_windows: that training did not see, see :meth:`reconstruct`.
            fpr: see :func:`companion.detection.thresholds.fixed_fpr`.

        Raises:
            ThresholdError: if there are too few windows for so small a share.
            ValueError: see :meth:`reconstruct`.
        """
        self.threshold_ = fixed_fpr(self.score(normal_windows), fpr)
        return self

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """Whether each window is flagged: bool (N,), true where the score is above ``threshold_``.

        A window without any number has no score and is not flagged.

        Raises:
            ValueError: if :meth:`calibrate` has not been called, or see :meth:`reconstruct`.
        """
        if getattr(self, "threshold_", None) is None:
            raise ValueError("there is no threshold yet; calibrate the model on normal windows first")
        flagged: np.ndarray = self.score(windows) > self.threshold_
        return flagged

    # ------------------------------------------------------------ keeping

    def save(self, path: Path) -> None:
        """Write parameters, weights, standardisation and threshold to one safetensors file."""
        if not hasattr(self, "net_"):
            raise ValueError("fit the model first")
        about = {
            "version": _VERSION,
            "parameters": json.loads(self._parameters()),
            "length": self.length_,
            "standardiser": self.standardizer_.state(),
            "threshold": self.threshold_,
        }
        save_weights(path, self.net_, kind=_KIND, about=json.dumps(about))

    @classmethod
    def load(cls, path: Path, compute: Compute | None = None) -> ResNetAE:
        """Read what :meth:`save` wrote; scores are the same to the last bit on the same device.

        Raises:
            CheckpointError: if the file is missing, damaged, or no model of this kind and version.
        """
        metadata = weights_metadata(path)
        if metadata.get("kind") != _KIND:
            raise CheckpointError(f"{path} holds no {_KIND}; `companion fit waveforms` makes one")
        try:
            about: dict[str, Any] = json.loads(metadata["about"])
            if about["version"] != _VERSION:
                raise CheckpointError(f"{path} has version {about['version']}, this program reads {_VERSION}")
            model = cls(**about["parameters"])
            model.length_, model.threshold_ = int(about["length"]), about["threshold"]
            model.standardizer_ = Standardizer.from_state(about["standardiser"])
            model.net_ = model._build()
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a model that can be read: {error}") from error
        load_weights(path, model.net_)
        (compute or pick_compute(precision="float32")).model(model.net_).eval()
        model.history_ = History()
        return model
