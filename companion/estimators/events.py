"""One object that learns what events, or rows of a table, look like and finds the unusual ones."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from companion.compute import Compute, pick_compute
from companion.data.events import ENTITY_COLUMNS, entities, split_by_time
from companion.data.sessions import SESSION_COLUMNS
from companion.detection.alarms import alert_threshold, days
from companion.detection.choice import choose_detectors, inject
from companion.detection.event_detectors import drawn
from companion.detection.plain_columns import PlainColumns
from companion.detection.rates import RATES, rates, remember
from companion.detection.simple import CHUNK, Drift, SimpleDetectors, packed, unpacked
from companion.detection.thresholds import FisherTail, fixed_fpr
from companion.estimators.base import swapped
from companion.estimators.reasons import reasons
from companion.estimators.surprise import Surprise
from companion.files import StateError, load_state, save_state

_KIND = "EventDetector 8"
_FACTS = ("threshold_", "share_", "counts_", "chosen_", "_held", "_kept", "_when", "_days")
_LEAST = 50  # rows to learn from
_HELD = 0.2  # the share of the rows, their latest part, that chooses and calibrates
_STEPS, _TRIMMED = 3, 40_000  # times that the most unusual are left out, at first of so many events
_NET = "surprise"
Scores = dict[str, np.ndarray]  #: of each detector, float64 (N,)
_KEY = "drawn by"  # a column for the time of drawing


class EventDetector(BaseEstimator):  # type: ignore[misc]
    """Learns from mostly normal events, without labels, and scores others, as ``companion.data`` reads them.

    Simple detectors, which count, and the surprise of a net stand on one scale. The earlier events teach; the
    latest fifth, with changes injected, chooses the detectors and sets the threshold. What the simple ones
    find most unusual among the earlier events is left out, so that a few per cent of faults do not become
    normal. With no ``columns`` the rows have neither entity nor time, as those of any table: then counts over
    time are left out, and a random fifth is held out.

    Args:
        num_steps: of its training, of 512 events each, at most: it stops when it no longer gets better.
        max_events: that are learned from; a random sample of more. Rates are counted over all.
        alerts: that the threshold gives a day, or in all of a shorter recording (one is what an entity does
            with less than 30 minutes between); without times, flagged rows of a thousand.
        trim: the share of the events to learn from that is left out as most unusual.
        columns: what names an entity, the first of these that an event has; none for the rows of a table.
        leave_out: fields and objects that must not be used; ``*`` stands for any letters.
        zone: of the hours of events without ``timezone_offset``, such as ``"Europe/Berlin"``.
        json_columns: fields whose text is JSON, for the reader; kept with the model.

    Attributes:
        choice_: how well each detector found injected changes, and which were chosen.
        threshold_, share_: events with a higher score are flagged, this share of those held out.
        counts_: events read, learned, left out as unusual, held out.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> table = pd.DataFrame({"size": rng.normal(9, 1, 500), "kind": rng.choice(["a", "b"], 500)})
        >>> detector = EventDetector(net=False, columns=()).fit(table)
        >>> detector.predict(pd.DataFrame({"size": [9.0, 900.0], "kind": ["a", "a"]})).tolist()
        [False, True]
    """

    def __init__(
        self, net: bool = True, num_steps: int = 5000, max_events: int = 200_000, alerts: float = 20.0,
        trim: float = 0.05, columns: Sequence[str] = ENTITY_COLUMNS,
        leave_out: Sequence[str] = SESSION_COLUMNS, zone: str = "UTC", json_columns: Sequence[str] = (),
        seed: int = 0,
    ) -> None:  # fmt: skip
        self.net, self.num_steps, self.max_events = net, num_steps, max_events
        self.alerts, self.trim, self.columns, self.leave_out = alerts, trim, columns, leave_out
        self.zone, self.json_columns, self.seed = zone, json_columns, seed

    def fit(
        self, X: pd.DataFrame | Iterable[pd.DataFrame], y: None = None, *,
        compute: Compute | None = None, progress: str | None = None,
    ) -> Self:  # fmt: skip
        """Learn from events that are mostly normal, by default on the best device.

        ``X`` is a frame, or frames one after the other in the order of time, which need not fit into memory;
        ``y`` is not used. ``progress`` is the label of a progress bar of the training.
        """
        if not (0 <= self.trim < 0.5 and self.alerts > 0):
            raise ValueError(f"trim is a share below 0.5 and alerts positive, not {self.trim}, {self.alerts}")
        self.compute_ = compute or pick_compute()
        sample = self._gather([X] if isinstance(X, pd.DataFrame) else X)
        if len(sample) * (1 - _HELD) < _LEAST:
            raise ValueError(f"too few events to learn from: {len(sample):,}")
        if self.columns:
            learn, held = (sample.iloc[rows] for rows in split_by_time(sample, (1 - _HELD, _HELD)))
        else:
            order = np.random.default_rng(self.seed).permutation(len(sample))
            border = round((1 - _HELD) * len(sample))
            learn, held = sample.iloc[order[:border]], sample.iloc[order[border:]]
        kept = self._usual(learn) if self.trim else learn
        self.simple_, self.net_ = self._simple().fit(kept), None
        if self.net:
            net = Surprise(tuple(self.columns), self.num_steps, self.seed, self.compute_)
            self.net_ = net.fit(self._seen(kept), progress)
        self._choose(held)
        self.counts_ |= {"learned": len(kept), "left out": len(learn) - len(kept), "held out": len(held)}
        return self

    def _gather(self, frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
        """A sample of all events with their rates, in the order of time; what rates later need is kept."""
        rng = np.random.default_rng(self.seed)
        self.past_, count, times = None, 0, []
        parts: list[pd.DataFrame] = []
        for frame in frames:
            frame, self.past_ = self._enrich(frame, self.past_)
            count += len(frame)
            times += [frame["time"].min(), frame["time"].max()] if self.columns and len(frame) else []
            parts.append(frame.assign(**{_KEY: rng.random(len(frame))}))
            if sum(map(len, parts)) > 2 * self.max_events:
                parts = [self._sample(parts)]
        whole = self._sample(parts).drop(columns=_KEY)
        self.counts_ = {"read": count}
        self._days = days(times) * len(whole) / max(1, count) * _HELD  # that those held out stand for
        return whole

    def _sample(self, parts: list[pd.DataFrame]) -> pd.DataFrame:
        """The rows with the smallest random keys, in their order."""
        whole = pd.concat(parts, ignore_index=True)
        return whole.iloc[np.sort(np.argsort(whole[_KEY].to_numpy(), kind="stable")[: self.max_events])]

    def _enrich(
        self, frame: pd.DataFrame, past: pd.DataFrame | None
    ) -> tuple[pd.DataFrame, pd.DataFrame | None]:
        """Events in the order of time with their rates, and what is to be remembered of them."""
        if not self.columns:
            return frame, None
        frame = frame.sort_values("time", kind="stable")
        known = frame[[name for name in RATES if name in frame.columns]]  # counted where more was seen
        counted = rates(frame, self.columns, past).assign(**known)
        plain = frame.drop(columns=known.columns)
        return pd.concat([plain, counted], axis=1), remember(frame, self.columns, past)

    def _simple(self) -> SimpleDetectors:
        columns = PlainColumns(self.columns, self.leave_out, self.zone)
        return SimpleDetectors(columns, bool(self.columns), self.seed)

    def _usual(self, learn: pd.DataFrame) -> pd.DataFrame:
        """The events to learn from without those that the simple detectors find most unusual.

        Done several times: the concentration steps of robust estimators (Rousseeuw and Van Driessen 1999).
        """
        kept = some = learn.iloc[drawn(len(learn), _TRIMMED, self.seed)]
        for step in range(1, _STEPS + 1):
            simple, frame = self._simple().fit(kept), some if step < _STEPS else learn
            kept = frame.iloc[self._lowest(np.stack(list(_by_parts(simple.scores, frame).values()), axis=1))]
        return kept

    def _lowest(self, scores: np.ndarray) -> np.ndarray:
        """The rows that are least unusual to all detectors together, rising: all but the share ``trim``."""
        levels = FisherTail(scores).level(scores)
        return np.sort(np.argsort(levels, kind="stable")[: round((1 - self.trim) * len(scores))])

    def _seen(self, frame: pd.DataFrame) -> pd.DataFrame:
        """What the net gets: the fields of the plain columns, so that copies of a field are left out."""
        names = {column.name for column in self.simple_.columns.columns_}
        return frame[[n for n in frame.columns if n in names or n in ("type_uid", "timezone_offset", *RATES)]]

    def _choose(self, held: pd.DataFrame) -> None:
        """Choose detectors, and set scale and threshold, on held-out events."""
        self.usual_ = Drift(self.simple_.columns)
        scores = self._scores(held, drift=self.usual_)
        changed, changes = inject(held, self.simple_.columns, seed=self.seed)
        kept = self._lowest(np.stack(list(scores.values()), axis=1))  # faults, too, may be among them
        usual = {name: own[kept] for name, own in scores.items()}
        self.chosen_, self.choice_ = choose_detectors(usual, self._scores(changed), changes)
        if _NET not in self.chosen_:
            self.net_ = None  # it adds nothing to the others
        self._held, self._kept = np.stack([scores[name] for name in self.chosen_], axis=1), kept
        self._tails = FisherTail(self._held, self._kept)
        self._when = self._marks(held)
        self.calibrate(alerts=self.alerts)

    def calibrate(self, X: Iterable[pd.DataFrame] | None = None, alerts: float = 20.0) -> Self:
        """Set ``threshold_`` and ``share_`` for another number of ``alerts``, without fitting again.

        ``X`` are frames in the order of time, of events that are mostly normal and that were not learned
        from. Without ``X`` those held out while fitting count once more.
        """
        if X is None:
            levels, marks, length = self._tails.level(self._held), self._when, self._days
        else:
            parts = [(table["score"].to_numpy(), self._marks(frame)) for frame, table in self.stream(X)]
            levels, marks = (np.concatenate(part, axis=-1) for part in zip(*parts, strict=True))
            length = days(marks[0])
        self.alerts = alerts
        if self.columns:
            self.threshold_ = alert_threshold(levels, *marks, alerts=alerts * length)
        else:
            self.threshold_ = fixed_fpr(levels, max(alerts / 1000, 1 / (len(levels) + 1)))
        self.share_ = float((levels > self.threshold_).mean())
        return self

    def _marks(self, frame: pd.DataFrame) -> np.ndarray:
        """By what alerts are counted, int64 (2, N): times, and numbers that stand for entities."""
        if not self.columns:
            return np.zeros((2, len(frame)), dtype=np.int64)
        who = entities(frame, self.columns).fillna("").to_numpy(dtype=object)
        return np.stack([frame["time"].to_numpy(dtype=np.int64), pd.util.hash_array(who).astype(np.int64)])

    def _scores(
        self, frame: pd.DataFrame, names: Sequence[str] | None = None, drift: Drift | None = None
    ) -> dict[str, np.ndarray]:
        """Of each detector, or of those named, float64 (N,)."""
        named = None if names is None else [name for name in names if name != _NET]

        def scores(part: pd.DataFrame) -> dict[str, np.ndarray]:
            net = {} if self.net_ is None else {_NET: self.net_.score(self._seen(part))}
            return self.simple_.scores(part, named, drift) | net

        return _by_parts(scores, frame)

    def stream(
        self, frames: Iterable[pd.DataFrame], drift: Drift | None = None
    ) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
        """Score frames in the order of time: each with its rates, and its :meth:`measure`.

        ``drift`` counts the rows; afterwards ``carried_`` is the ``past_`` of a stream that follows.
        """
        self.carried_ = self.past_
        for frame in frames:
            enriched, self.carried_ = self._enrich(frame, self.carried_)
            found = self._scores(enriched, self.chosen_, drift)
            scores = pd.DataFrame(found, index=enriched.index)[self.chosen_]
            levels = self._tails.level(scores.to_numpy())
            yield enriched, scores.assign(score=levels, flagged=levels > self.threshold_)

    def measure(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Scores of each detector, ``flagged``, and ``score``: 3 is reached by one normal row in a thousand.

        Rows may have any order; unknown fields are ignored, lacking ones missing. What they did before is
        taken from this frame and from what was fitted.
        """
        order = self._order(frame)
        _, table = next(self.stream([frame]))
        return table.iloc[np.argsort(order)]

    def _order(self, frame: pd.DataFrame) -> np.ndarray:
        if not hasattr(self, "threshold_"):
            raise ValueError("fit the detector first, or load one")
        time = frame["time"].to_numpy(dtype=np.int64) if self.columns else np.zeros(len(frame))
        return np.argsort(time, kind="stable")

    def decision_function(self, frame: pd.DataFrame) -> np.ndarray:
        """The score of :meth:`measure`, float64 (N,): the higher, the more unusual."""
        return self.measure(frame)["score"].to_numpy()

    def predict(self, frame: pd.DataFrame) -> np.ndarray:
        """Whether each row is flagged: bool (N,)."""
        return self.measure(frame)["flagged"].to_numpy()

    def explain(self, frame: pd.DataFrame, rows: Sequence[int], count: int = 4) -> pd.DataFrame:
        """Why rows, positions in ``frame``, are unusual: of each at most ``count`` fields.

        The columns are ``row`` and the parts of :class:`companion.estimators.reasons.Reason`.
        """
        order = self._order(frame)
        enriched, _ = self._enrich(frame, self.past_)
        found = reasons(enriched.iloc[np.argsort(order)[list(rows)]], self.simple_, self.net_, count)
        return pd.DataFrame(
            [{"row": row, **vars(reason)} for row, own in zip(rows, found, strict=True) for reason in own],
            columns=["row", "field", "value", "expected", "why", "weight"],
        )

    def save(self, path: Path) -> None:
        """Write everything to one file: not the forest, but the rows from which it grows again."""
        past, choice = self.past_, self.choice_.astype({"chosen": "float64"})
        state = {
            "parameters": {k: list(v) if isinstance(v, tuple) else v for k, v in self.get_params().items()},
            "simple": self.simple_.state(),
            "past": None if past is None else {str(n): packed(column) for n, column in past.items()},
            "net": self.net_ and self.net_.state(),
            "choice": {"names": list(choice.index), "columns": choice.to_dict("list")},
            "usual": [self.usual_.unseen, self.usual_.sums, self.usual_.rows],
            "numbers": {name: getattr(self, name) for name in _FACTS},
        }
        save_state(path, _KIND, **swapped(state))

    @classmethod
    def load(cls, path: Path, compute: Compute | None = None) -> Self:
        """Read what :meth:`save` wrote, or raise a StateError; on the same device all scores are the same."""
        state = swapped(load_state(path, _KIND))
        try:
            detector = cls(**state["parameters"])
            detector.compute_ = compute or pick_compute()
            detector.simple_ = detector._simple().restore(state["simple"])
            past, detector.net_ = state["past"], None
            detector.past_ = past and pd.DataFrame({name: unpacked(own) for name, own in past.items()})
            if state["net"]:
                net = Surprise(tuple(detector.columns), detector.num_steps, detector.seed, detector.compute_)
                detector.net_ = net.restore(state["net"])
            choice = state["choice"]
            detector.choice_ = pd.DataFrame(choice["columns"], choice["names"]).astype({"chosen": "Int64"})
            detector.usual_ = usual = Drift(detector.simple_.columns)
            usual.unseen, usual.sums, usual.rows = state["usual"]
            for name in _FACTS:
                setattr(detector, name, state["numbers"][name])
            detector._tails = FisherTail(detector._held, detector._kept)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise StateError(f"{path} is not a model that can be read: {error}") from error
        return detector


def _by_parts(scores: Callable[[pd.DataFrame], Scores], frame: pd.DataFrame) -> Scores:
    parts = [scores(frame.iloc[i : i + CHUNK]) for i in range(0, max(1, len(frame)), CHUNK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
