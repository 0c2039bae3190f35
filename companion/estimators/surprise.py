"""The surprise of a net that learned to predict hidden fields: the part of a detector that needs training."""

from dataclasses import asdict
from functools import partial
from typing import Any, Self

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.compute import Compute
from companion.detection.rates import FIRSTS, RATES, kinds
from companion.estimators.base import check_weights
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.encoding import TableEncoder
from companion.objectives.event_features import EventFeatures
from companion.objectives.selfsupervised import FamilySurprise, MaskedFeatures, nll
from companion.training import FitConfig, evaluate
from companion.training import fit as train

_HELD = 0.1  # of the rows, those that say when the training has converged, and what surprise is usual


class Surprise:
    """A masked net and its ``FamilySurprise``, for frames of events or rows of a table."""

    def __init__(self, entity: tuple[str, ...], num_steps: int, seed: int, compute: Compute) -> None:
        self.features = EventFeatures(entity, leave_out=RATES)
        self.num_steps, self.seed, self.compute = num_steps, seed, compute

    def fit(self, frame: pd.DataFrame, progress: str | None = None) -> Self:
        """Learn from normal rows, events with the columns ``RATES``."""
        held = np.random.default_rng(self.seed).random(len(frame)) < _HELD
        learn, later = frame[~held], frame[held]
        self.features.fit(learn, _gaps(learn))
        tensors, watched = self._tensors(learn), self._tensors(later)
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            self.net = self._build()
        objective = MaskedFeatures(groups=self.features.groups())
        config = FitConfig(
            num_steps=self.num_steps, batch_size=min(512, len(learn)), lr=3e-3, optimizer="adamw",
            schedule="cosine", warmup_steps=min(50, self.num_steps // 10),
            eval_every=max(1, self.num_steps // 50), patience=10,
        )  # fmt: skip
        self.history = train(
            self.net, tensors, objective, config, compute=self.compute, seed=self.seed, progress=progress,
            evaluation=partial(evaluate, data=watched, objective=objective, compute=self.compute),
        )  # fmt: skip
        self._judge().fit(*watched, kinds(later))
        return self

    def _build(self) -> SelfSupervisedResNet:
        encoder = self.features.fitted
        sizes = encoder.num_numerical_features, encoder.categorical_cardinalities
        return SelfSupervisedResNet(*sizes, d_model=64, num_blocks=2)

    def _judge(self) -> FamilySurprise:
        self.judge = FamilySurprise(self.net.eval(), self.features.groups(), self.compute)
        return self.judge

    def _tensors(self, frame: pd.DataFrame) -> tuple[Tensor, Tensor]:
        return self.features.transform(frame, _gaps(frame))

    def score(self, frame: pd.DataFrame) -> np.ndarray:
        """float64 (N,)."""
        return self.judge.score(*self._tensors(frame), kinds(frame))

    def costs(self, frame: pd.DataFrame) -> np.ndarray:
        """Each family's surprise at its worst field, in standard deviations, else 0: float64 (N, fields)."""
        tensors, groups = self._tensors(frame), np.array(self.features.groups())
        families = self.judge.deviations(*tensors, kinds(frame))
        nats = nll(self.net, *tensors, groups=self.features.groups(), compute=self.compute).numpy()
        found = np.zeros(nats.shape)
        for i in range(families.shape[1]):
            own = np.flatnonzero(groups == i)
            found[np.arange(len(nats)), own[nats[:, own].argmax(axis=1)]] = families[:, i]
        return found

    @torch.inference_mode()
    def expected(self, frame: pd.DataFrame, field: str) -> list[str]:
        """What the net takes a field of each row to be when its family is hidden."""
        groups, names = np.array(self.features.groups()), self.features.fields
        place = names.index(field)
        numerical, categorical = (part.to(self.compute.device) for part in self._tensors(frame))
        mask = torch.from_numpy(groups == groups[place]).to(self.compute.device).expand(len(frame), -1)
        guess, encoder = self.net(numerical, categorical, mask), self.features.fitted
        column = place - encoder.num_numerical_features
        if column < 0 and field not in encoder.scales:
            return ["another time"] * len(frame)
        if column < 0:
            mean, scale = (part[:, place].cpu().numpy() for part in (guess.mean, guess.scale))
            low, high = (encoder.unscale(field, mean + sign * scale) for sign in (-1, 1))
            return [f"{a:,.4g} to {b:,.4g}" for a, b in zip(low, high, strict=True)]
        shares, best = guess.logits[column].softmax(dim=1).max(dim=1)
        values = ["missing", "a rare value", *encoder.categories[field]]
        return [f"{values[int(i)]} ({100 * float(s):.0f} %)" for i, s in zip(best, shares, strict=True)]

    def state(self) -> dict[str, Any]:
        """All that is known."""
        usual = {name: [part.tolist() for part in both] for name, both in self.judge.usual.stats_.items()}
        return {"encoder": asdict(self.features.fitted), "net": self.net.state_dict(), "usual": usual}

    def restore(self, state: dict[str, Any]) -> Self:
        """Take what :meth:`state` gave."""
        self.features.encoder = TableEncoder(**state["encoder"])
        self.net = self._build()  # its sizes are those of lists in the file
        check_weights(state["net"], self.net)
        self.net.load_state_dict(state["net"])
        self.compute.model(self.net)
        usual = {name: (np.array(mean), np.array(scale)) for name, (mean, scale) in state["usual"].items()}
        self._judge().usual.stats_ = usual
        return self


def _gaps(frame: pd.DataFrame) -> np.ndarray:
    return frame[FIRSTS[0]].to_numpy(dtype=np.float64) if FIRSTS[0] in frame.columns else np.zeros(len(frame))
