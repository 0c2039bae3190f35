"""Chapters 6 and 7: labelled sets of events as tensors, and the nets that learn them without labels."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from typing import Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from companion.compute import seed_everything
from companion.data.events import Events, entities
from companion.data.security import load_cloudtrail, load_demo_service, load_nsl_kdd, load_zeek
from companion.data.synthetic_events import EventConfig, generate_events
from companion.detection.event_detectors import drawn
from companion.detection.rates import kinds
from companion.experiments.base import Config, Context, data_info, window_means
from companion.models.masked_resnet import SelfSupervisedResNet
from companion.objectives.classification import Objective
from companion.objectives.event_features import EventFeatures
from companion.objectives.selfsupervised import Contrastive, MaskedFeatures
from companion.runs import DataInfo, SeedResult
from companion.training import FitConfig, evaluate

LOADERS: dict[str, Callable[[], Events]] = {  # real events; the demo service is real, its faults are injected
    "zeek": cache(load_zeek), "cloudtrail": cache(load_cloudtrail),
    "demo": cache(load_demo_service), "nsl_kdd": cache(load_nsl_kdd),
}  # fmt: skip
PARTS = ("validation", "test")


class EventSetsConfig(Config):
    """Which sets of events."""

    sets: tuple[str, ...] = ("generated", *LOADERS)  #: names
    num_events: int = 50_000  #: of the generated ones
    days: int = 28  #: likewise, over how long
    attack_share: float = 0.005  #: likewise
    learned: float = 0.8  #: the share of the training rows that a seed draws, for all its detectors alike


@dataclass(frozen=True)
class PreparedEvents:
    """A set as nets take it; the features were fitted on this seed's training rows."""

    name: str
    events: Events
    train: np.ndarray  #: the training rows that this seed has drawn; normal events only
    features: EventFeatures
    numerical: Tensor  #: float32 (N, numbers)
    categorical: Tensor  #: int64 (N, columns)
    kinds: np.ndarray  #: text (N,), the type of event
    entities: np.ndarray  #: text (N,), whom it is about; empty where nothing tells

    @property
    def calibration(self) -> np.ndarray:
        """Rows of normal events that nothing is trained on; scales and the end of training are set here."""
        return self.events.split["calibration"]

    @property
    def attacks(self) -> np.ndarray:
        """Bool (N,)."""
        return self.events.labels["attack"].notna().to_numpy(dtype=bool)

    def normal(self, part: str) -> np.ndarray:
        """Rows of the normal events of a part."""
        rows = self.events.split[part]
        return np.asarray(rows[~self.attacks[rows]])

    def tensors(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Numbers and categories of some rows."""
        return self.numerical[rows], self.categorical[rows]


def load(name: str, config: EventSetsConfig, seed: int) -> Events:
    """A set's events. Every seed has another generated company; the real sets are what they are."""
    if name in LOADERS:
        return LOADERS[name]()
    return generate_events(EventConfig(config.num_events, config.days, config.attack_share, seed))


@lru_cache(maxsize=2)
def prepared(name: str, config: EventSetsConfig, seed: int) -> PreparedEvents:
    """A set as tensors; what the encoder knows comes from the training rows of this seed alone."""
    events = load(name, config, seed)
    train = events.split["train"]
    train = train[drawn(len(train), round(config.learned * len(train)), seed)]
    features = EventFeatures(columns=events.entity)
    gaps = features.gaps(events.frame)
    features.fit(events.frame.iloc[train], gaps[train])
    numerical, categorical = features.transform(events.frame, gaps)
    nobody = pd.Series("", events.frame.index)
    who = entities(events.frame, events.entity).fillna("") if events.entity else nobody
    told = (kinds(events.frame), who.to_numpy(dtype=object))
    return PreparedEvents(name, events, train, features, numerical, categorical, *told)


@cache
def info() -> DataInfo:
    """What the sets are; synthetic if a real one has a stand-in. The generated set is told by a small one."""
    real = [loader() for loader in LOADERS.values()]
    told = data_info(*real, load("generated", EventSetsConfig(num_events=1000), 0), name="security events")
    return told.model_copy(update={"synthetic": any(data.synthetic for data in real)})


class Recipe(Config):
    """A net, its objective and its training: AdamW with a warm-up and a cosine."""

    objective: Literal["masked", "contrastive"] = "masked"
    num_steps: int = 5000  #: at most; 0 leaves the net untrained
    epochs: int = 200  #: a small set is seen so often, at most, but in at least a fifth of the steps
    lr: float = 3e-3  #: the highest learning rate
    patience: int | None = 25  #: of 50 evaluations on the calibration events, see ``FitConfig``
    batch_size: int = 512  #: events in a step
    d_model: int = 64  #: features of an embedding
    num_blocks: int = 2  #: of the net
    mask_rate: float = 0.3  #: of :class:`companion.objectives.selfsupervised.MaskedFeatures`
    corruption_rate: float = 0.3  #: of :class:`companion.objectives.selfsupervised.Contrastive`
    temperature: float = 0.1  #: likewise

    def fit(self, num_events: int) -> FitConfig:
        """The hyperparameters of the training on so many events."""
        most = self.epochs * max(1, num_events // self.batch_size)
        steps = min(self.num_steps, max(-(-self.num_steps // 5), most))
        return FitConfig(
            num_steps=steps, batch_size=self.batch_size, lr=self.lr, optimizer="adamw", weight_decay=1e-4,
            warmup_steps=min(50, steps // 10), schedule="cosine", eval_every=max(1, steps // 50),
            patience=self.patience,
        )  # fmt: skip


def make_net(events: PreparedEvents, recipe: Recipe, seed: int) -> SelfSupervisedResNet:
    """The untrained net for these events."""
    seed_everything(seed)
    sizes = events.numerical.shape[1], events.features.fitted.categorical_cardinalities
    return SelfSupervisedResNet(*sizes, recipe.d_model, recipe.num_blocks, d_projection=64)


def make_objective(events: PreparedEvents, recipe: Recipe, device: torch.device) -> Objective:
    """The objective of ``recipe``; families of fields are hidden or replaced as one."""
    groups = events.features.groups()
    if recipe.objective == "masked":
        return MaskedFeatures(recipe.mask_rate, groups)
    known = [part.to(device) for part in events.tensors(events.train)]
    return Contrastive(known[0], known[1], recipe.corruption_rate, recipe.temperature, groups)


def train(
    events: PreparedEvents, recipe: Recipe, seed: int, context: Context, name: str,
    result: SeedResult | None = None,
) -> SelfSupervisedResNet:  # fmt: skip
    """A net trained on the normal training events; ``result`` takes the losses as curves."""
    net, device = make_net(events, recipe, seed).to(context.compute.device), context.compute.device
    if recipe.num_steps:
        objective = make_objective(events, recipe, device)
        known = events.tensors(events.train)
        held = context.compute.resident(events.tensors(events.calibration))
        judge = partial(evaluate, data=held, objective=objective, compute=context.compute, batch_size=512)
        history = context.fit(
            name, net, known, objective, recipe.fit(len(known[0])), seed, evaluation=judge, result=result
        )
        if result is not None:
            result.curves[f"{name}.loss"] = window_means(history.train["loss"], 50)
            result.curves[f"{name}.held_out_loss"] = [round(v, 4) for v in history.evaluations["loss"]]
            result.metrics[f"{name}.steps"] = float(len(history.train["loss"]))
    return net.eval()
