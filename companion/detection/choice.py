"""Which detectors are combined: chosen on held-out normals with changes injected into them, without labels.

The same for events, images and waveforms: what is injected differs, the choice does not.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from companion.data.events import entities
from companion.detection.metrics import pr_auc
from companion.detection.plain_columns import PlainColumns
from companion.detection.rates import CLASS_FIELDS, RATES, kinds, with_rates
from companion.detection.thresholds import EmpiricalTail

_COST = 0.05  # of the mean average precision; a detector that costs more is left out
_BURST, _GAP = 60, 250  # events of a burst, and milliseconds between them


def choose_detectors(
    held: Mapping[str, np.ndarray], injected: Mapping[str, np.ndarray], changes: np.ndarray
) -> tuple[list[str], pd.DataFrame]:
    """Choose the detectors whose combined levels find injected changes best.

    One after the other is taken, first the best alone, then whichever serves the mean average precision best,
    as long as it does not cost more than 0.05 of the best so far: injected changes are no attacks, so only a
    detector that drowns the others is left out. Levels (``EmpiricalTail``) are fitted on every other held-out
    normal and judged on the rest.

    ``held`` has for each detector the scores (n,) of held-out normals, in the order of time, ``injected`` the
    scores (m,) of examples with a change, and ``changes`` text (m,), the kind of each. Gives the names in the
    order in which they were chosen, and a table: of each detector the average precision for each kind of
    change and their ``mean``, its place among the ``chosen``, and what all up to it had ``combined``.
    """
    levels = {}
    for name, scores in held.items():
        tail = EmpiricalTail(scores[::2])
        levels[name] = np.concatenate([tail.supported(scores[1::2]), tail.supported(injected[name])])
    count = len(next(iter(levels.values()))) - len(changes)
    names = list(dict.fromkeys(changes.tolist()))
    rows = {name: np.r_[np.ones(count, dtype=bool), changes == name] for name in names}

    def judge(level: np.ndarray) -> list[float]:
        anomalous = np.r_[np.zeros(count, dtype=bool), np.ones(len(changes), dtype=bool)]
        return [pr_auc(anomalous[rows[name]], level[rows[name]]) for name in names]

    table = pd.DataFrame({name: judge(level) for name, level in levels.items()}, index=names).T
    table["mean"] = table.mean(axis=1)
    table = table.assign(chosen=pd.array([None] * len(table), dtype="Int64"), combined=np.nan)
    chosen: list[str] = []
    best, total = -np.inf, np.zeros(count + len(changes))
    while len(chosen) < len(levels):
        gains = {n: float(np.mean(judge(total + levels[n]))) for n in levels if n not in chosen}
        name = max(gains, key=lambda each: gains[each])
        if gains[name] < best - _COST:
            break
        chosen.append(name)
        best, total = max(best, gains[name]), total + levels[name]
        table.loc[name, ["chosen", "combined"]] = [len(chosen), gains[name]]
    return chosen, table.sort_values(["chosen", "mean"], ascending=[True, False])


def inject(frame: pd.DataFrame, columns: PlainColumns, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    """Normal rows with one change each, as anomalies to choose detectors by.

    - ``other's values``: two objects (the fields of one parent) of another row of the same type, and of
      another entity where it is known;
    - ``rare values``: up to half of the fields with any value that occurs, rare as likely as common;
    - ``new values``: up to three fields with names or codes that were never seen;
    - ``number``: a number ten to a hundred times as large;
    - ``burst``: the last of 60 such events in 15 seconds, if there are times.

    ``frame`` are held-out normals, events with the columns ``RATES`` in the order of their times; the fields
    that may be changed are those of ``columns``, fitted. Gives changed rows (m), with rates of their own, and
    text (m,), the kind of change.
    """
    rng = np.random.default_rng(seed)
    count = max(1, min(300, len(frame) // 10))
    timed = RATES[0] in frame.columns
    fixed = {"time", *CLASS_FIELDS, *RATES, *columns.entity}
    varied = [c for c in columns.columns_ if c.name not in fixed and frame[c.name].nunique() > 1]
    fields = [column.name for column in varied]
    numbers = [column.name for column in varied if column.kind == "number"]
    named = [n for n in fields if n not in numbers and not pd.api.types.is_bool_dtype(frame[n])]
    who = np.arange(len(frame))
    if timed:
        who = entities(frame, columns.entity).fillna("").to_numpy(dtype=object)
    parts = []
    possible = {"new values": bool(named), "number": bool(numbers), "burst": timed}
    for change in ("other's values", "rare values", *(name for name, can in possible.items() if can)):
        rows = rng.integers(0, len(frame), count)
        changed = frame.iloc[rows].reset_index(drop=True)
        if change == "other's values":
            other = frame.iloc[_donors(rows, kinds(frame), who, rng)].reset_index(drop=True)
            parents = np.array([name.rpartition(".")[0] or name for name in fields])
            unique = np.unique(parents)
            taken = unique[rng.random((count, len(unique))).argsort(axis=1)[:, :2]]  # two of each row
            for name, parent in zip(fields, parents, strict=True):
                changed[name] = other[name].where((taken == parent).any(axis=1), changed[name])
        elif change == "rare values":
            share = rng.uniform(0, 0.5, count)
            for name in fields:
                _replace(changed, name, rng.random(count) < share, frame[name].dropna().unique(), rng)
        elif change == "new values":
            share = np.minimum(1, rng.uniform(1, 3, count) / len(named))
            for name in named:
                _replace(changed, name, rng.random(count) < share, _new_values(frame[name], rng), rng)
        elif change == "number":
            which = rng.choice(numbers, count)
            for each in numbers:
                factor = np.where(which == each, 10 ** rng.uniform(1, 2, count), 1.0)
                changed[each] = changed[each].astype("float64") * factor
        parts.append(changed.assign(_change=change))
    found = pd.concat(parts, ignore_index=True)
    if timed:
        found = _with_new_rates(frame, found, columns.entity)
    return found.drop(columns="_change"), found["_change"].to_numpy(dtype=object)


def _donors(rows: np.ndarray, types: np.ndarray, who: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row another one of the same type and another entity, where a few draws find one."""
    donors = rng.integers(0, len(types), len(rows))
    for _ in range(30):
        bad = (types[donors] != types[rows]) | (who[donors] == who[rows])
        donors[bad] = rng.integers(0, len(types), int(bad.sum()))
    return donors


def _replace(
    changed: pd.DataFrame, name: str, rows: np.ndarray, values: Any, rng: np.random.Generator
) -> None:
    changed.loc[rows, name] = np.asarray(values)[rng.integers(0, len(values), int(rows.sum()))]


def _new_values(values: pd.Series, rng: np.random.Generator) -> np.ndarray:
    """Like the known values, but not among them."""
    if pd.api.types.is_numeric_dtype(values):
        return np.setdiff1d(rng.integers(0, 65_536, 100), values.dropna().to_numpy(dtype=np.int64))
    known = values.dropna().astype("str").unique()
    return np.array([f"{known[i]}{rng.integers(10, 10**6):x}" for i in rng.integers(0, len(known), 100)])


def _with_new_rates(frame: pd.DataFrame, found: pd.DataFrame, entity: Sequence[str]) -> pd.DataFrame:
    """The changed events with the rates that they would have had among the others."""
    burst = found["_change"] == "burst"
    earlier = [found[burst].assign(time=found["time"][burst] - _GAP * i) for i in range(1, _BURST)]
    repeats = pd.concat(earlier).assign(_change="")
    plain = frame.drop(columns=RATES)
    results = []
    for own in (found[~burst], pd.concat([repeats, found[burst]])):
        stream = with_rates(pd.concat([plain, own.drop(columns=RATES)], ignore_index=True), entity)
        results.append(stream[stream["_change"].notna() & (stream["_change"] != "")])
    return pd.concat(results, ignore_index=True)[found.columns]
