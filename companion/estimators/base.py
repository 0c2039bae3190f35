"""What all estimators share: fitting, a threshold, flags, and one file; the contract is scikit-learn's."""

import inspect
import json
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_type_hints

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from companion.compute import Compute, pick_compute
from companion.detection.thresholds import fixed_fpr
from companion.files import StateError, load_weights, save_weights
from companion.training import FitConfig, History, evaluate
from companion.training import fit as train

Count = Annotated[int, Field(ge=1, le=2**20)]
Positive = Annotated[float, Field(gt=0)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_CALIBRATION: dict[str, Any] = {  # facts of every detector
    "threshold_": float | None, "fpr_": Annotated[float, Field(gt=0, lt=1)] | None,
    "compared_": dict[str, float] | None, "held_": list[float] | None,
}  # fmt: skip


class AnomalyDetector(BaseEstimator):  # type: ignore[misc]
    """A net that learns from normal examples, and finds those unlike them.

    A child has the parameters ``lr``, ``batch_size``, ``patience`` and ``seed`` among its own, and says

    - ``_learn_shapes(X)``: sizes and statistics of the training data, in attributes named in ``_facts``,
    - ``_examples(X)``: tensors, one row an example,
    - ``_net()`` and ``_objective()``: what learns, and from what loss,
    - ``_score(X)``: how unusual each example is, float64 (N,).
    """

    lr: float
    batch_size: int
    patience: int | None
    seed: int
    _facts: ClassVar[dict[str, Any]]  # name and type of each fitted attribute that is kept, beside these:
    net_: nn.Module
    history_: History  #: what was measured while training; empty after :meth:`load`
    threshold_: float | None  #: examples with a higher score are flagged; ``None`` until :meth:`calibrate`
    fpr_: float | None  #: the share of normal examples that may be
    held_: list[float] | None = None  #: the scores that it was set by
    compared_: dict[str, float] | None = None  #: what it was chosen by

    def fit(
        self, X: Any, y: None = None, *, epochs: int = 30, validation: Any = None,
        compute: Compute | None = None, **training: Any,
    ) -> Self:  # fmt: skip
        """Learn from normal examples, by default on the best device, in float32.

        ``validation`` are other normal examples, for early stopping before all ``epochs``; ``y`` is not used.
        ``training`` are ``checkpoint``, ``progress`` and ``stop_after`` of :func:`companion.training.fit`.
        """
        self._parameters()  # refuses what is out of range
        self._learn_shapes(X)
        learn, held = self._examples(X), None if validation is None else self._examples(validation)
        if len(learn[0]) < 2 or epochs < 1:
            raise ValueError(f"too few: {len(learn[0])} examples to learn from, {epochs} epochs")
        compute = compute or pick_compute(precision="float32")
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed)
            self.net_ = self._net()
        self.threshold_ = self.fpr_ = self.held_ = self.compared_ = None
        objective, config = self._objective(), self.recipe(len(learn[0]), epochs, held is not None)
        self.history_ = train(
            self.net_, learn, objective, config, compute=compute, seed=self.seed,
            evaluation=None if held is None else lambda net: evaluate(net, held, objective, compute, 256),
            **training,
        )  # fmt: skip
        self.net_.eval()
        return self

    def recipe(self, count: int, epochs: int, watched: bool) -> FitConfig:
        """How the net learns from ``count`` examples, whether or not others are ``watched`` while it does."""
        steps = max(1, count // self.batch_size)
        return FitConfig(
            num_steps=epochs * steps, batch_size=self.batch_size, lr=self.lr, optimizer="adam",
            schedule="constant" if self.patience else "cosine", weight_decay=1e-5, eval_every=steps,
            checkpoint_every=10 * steps, patience=self.patience if watched else None,
        )  # fmt: skip

    def decision_function(self, X: Any) -> np.ndarray:
        """How unusual each example is, float64 (N,): the higher, the more; NaN where nothing is known."""
        check_is_fitted(self, "net_")
        return np.asarray(self._score(X))

    def calibrate(self, X: Any = None, fpr: float = 0.01) -> Self:
        """Set ``threshold_`` so that at most a share ``fpr`` of new normal examples is flagged, on average.

        ``X`` are normal examples that training did not see; n of them can promise 1 / (n + 1) at the least.
        Without ``X`` those of the last time count once more.
        """
        if X is None and not self.held_:
            raise ValueError("the model keeps no scores of normal data; give some")
        scores = np.array(self.held_) if X is None else self.decision_function(X)
        self.threshold_, self.fpr_, self.held_ = fixed_fpr(scores, fpr), fpr, np.sort(scores).tolist()
        return self

    def limit(self) -> tuple[float, float]:
        """``threshold_`` and ``fpr_``, which must be known."""
        if self.threshold_ is None or self.fpr_ is None:
            raise ValueError("there is no threshold yet; calibrate the model on normal examples first")
        return self.threshold_, self.fpr_

    def predict(self, X: Any) -> np.ma.MaskedArray[Any, Any]:
        """Whether each example is flagged: a masked array of bool (N,), masked where there is no score."""
        scores = self.decision_function(X)
        unknown = np.isnan(scores)
        return np.ma.masked_array((scores > self.limit()[0]) | unknown, mask=unknown)

    @classmethod
    def _settings(cls) -> type[BaseModel]:
        """The constructor's annotations, as something that checks values."""
        hints = get_type_hints(cls.__init__, include_extras=True)
        return _schema("Parameters", {name: hints[name] for name in inspect.signature(cls).parameters})

    def _parameters(self) -> dict[str, Any]:
        """The parameters, checked, as plain values; NumPy's numbers become Python's."""
        given = {k: v.item() if isinstance(v, np.generic) else v for k, v in self.get_params(False).items()}
        try:
            return self._settings()(**given).model_dump()
        except ValidationError as error:
            raise ValueError(_reason(error)) from error

    def save(self, path: Path | str) -> None:
        """Write weights, and as text parameters, statistics and threshold, to one file (safetensors)."""
        check_is_fitted(self, "net_")
        facts = {name: getattr(self, name) for name in self._facts | _CALIBRATION}
        about = json.dumps({"parameters": self._parameters(), "facts": facts})
        save_weights(Path(path), self.net_.state_dict(), kind=f"{type(self).__name__} 5", about=about)

    @classmethod
    def load(cls, path: Path | str, compute: Compute | None = None) -> Self:
        """Read what :meth:`save` wrote, or raise a StateError; on the same device all scores are the same.

        Nothing is allocated that the file does not hold, and no number that is not finite is let in.
        """
        weights, texts = load_weights(Path(path))
        if (found := texts.get("kind", "something else")) != f"{cls.__name__} 5":
            raise StateError(f"{path} holds {found}, not {cls.__name__} 5")
        facts = _schema("Facts", cls._facts | _CALIBRATION)
        schema = _schema("About", {"parameters": cls._settings(), "facts": facts})
        try:
            about: Any = schema.model_validate_json(texts["about"])
            model = cls(**{name: getattr(about.parameters, name) for name in cls._get_param_names()})
            for name in facts.model_fields:
                setattr(model, name, getattr(about.facts, name))
            with torch.device("meta"):  # shapes without memory
                model.net_ = model._net()
            check_weights(weights, model.net_)
        except (KeyError, ValueError, RuntimeError, ArithmeticError) as error:
            reason = _reason(error) if isinstance(error, ValidationError) else error
            raise StateError(f"{path} is not a model that can be used: {reason}") from error
        model.net_.load_state_dict(weights, assign=True)
        (compute or pick_compute(precision="float32")).model(model.net_).eval()
        model.history_ = History()
        return model


def _schema(name: str, fields: dict[str, Any]) -> type[BaseModel]:
    """A model of required fields with these types."""
    required: dict[str, Any] = {field: (kind, ...) for field, kind in fields.items()}
    return create_model(name, __config__=STRICT, **required)


def _reason(error: ValidationError) -> str:
    """The first of its complaints, in a line."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}, not {str(first['input'])[:40]!r}"


def check_weights(weights: dict[str, Tensor], net: nn.Module) -> None:
    """Refuse weights that are not the net's or are not finite."""
    wanted = net.state_dict()
    if weights.keys() != wanted.keys():
        raise ValueError("its weights are those of another net")
    for name, like in wanted.items():
        tensor = weights[name]
        if (tensor.shape, tensor.dtype) != (like.shape, like.dtype):
            raise ValueError(f"its {name} is not {like.dtype} {tuple(like.shape)}")
        least = 0.0 if name.endswith("running_var") else -torch.inf
        if not bool((torch.isfinite(tensor) & (tensor >= least)).all()):
            raise ValueError(f"its {name} holds numbers that no training leaves")


def swapped(state: Any) -> Any:
    """Arrays in dicts and lists as tensors, which a file may hold, and the way back; a net stays as it is."""
    if isinstance(state, dict):
        return {name: part if name == "net" else swapped(part) for name, part in state.items()}
    if isinstance(state, list):
        return [swapped(part) for part in state]
    if isinstance(state, Tensor):
        return state.numpy()
    return torch.from_numpy(state) if isinstance(state, np.ndarray) else state
