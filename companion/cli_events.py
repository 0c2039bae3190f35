"""The command line for events and for rows of tables: ``companion fit events``, ``score rows`` and so on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Annotated

import numpy as np
import pandas as pd
import typer
from tqdm import tqdm

from companion import cli_common as common
from companion.cli_common import Engine, Model, Out, Report, Workers, check_writable, safe_cell
from companion.detection.alarms import days, incidents
from companion.files import atomic_path
from companion.workers import over_parts

if TYPE_CHECKING:
    from companion.detection.simple import Drift
    from companion.estimators.events import EventDetector

Data = Annotated[list[str], typer.Argument(help="OCSF events: files, folders, globs; JSON or Parquet.")]
Table = Annotated[list[Path], typer.Argument(help="CSV or Parquet, one row an example.")]
Net = Annotated[bool, typer.Option("--net/--no-net", help="Train the net, too; else simple detectors only.")]
Steps = Annotated[int, typer.Option(min=1, help="At most so many training steps, of 512 rows each.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or mps; by default the best.")]
Entity = Annotated[list[str] | None, typer.Option(help="Fields that name who an event is about, in order.")]
Json = Annotated[list[str] | None, typer.Option(help="Fields whose text is JSON, to be taken apart.")]
Alerts = Annotated[float, typer.Option(min=1e-3, help="Alerts a day, or in all of a shorter recording.")]
Zone = Annotated[str, typer.Option(help="Time zone of events without an offset, as Europe/Berlin.")]
Flagged = Annotated[float, typer.Option(min=1e-3, help="How many rows in a thousand may be flagged.")]
LeaveOut = Annotated[list[str] | None, typer.Option(help="Fields or objects not to use; may be given again.")]
Scores = Annotated[Path, typer.Option(help="For the scores: a CSV file, or a folder of Parquet files.")]
Top = Annotated[int, typer.Option(min=0, help="How many to print, the most unusual first.")]
Explain = Annotated[bool, typer.Option("--explain/--no-explain", help="Say why they are unusual.")]
Parts = Annotated[int, typer.Option(min=1, help="Parts of a folder of scores; no entity is split.")]
Label = Annotated[str, typer.Option(help="The field that tells normal events from faults.")]
Normal = Annotated[list[str] | None, typer.Option(help="Normal events; else those held out by `fit`.")]
NORMAL = ("", "0", "0.0", "false", "no", "none", "-", "normal", "benign", "good")  # labels
Past = Annotated[Path | None, typer.Option(help="A file that carries facts from run to run.")]


def fit_events(
    data: Data, out: Out, entity: Entity = None, leave_out: LeaveOut = None, json_column: Json = None,
    alerts: Alerts = 20.0, zone: Zone = "UTC", net: Net = True, steps: Steps = 5000, device: Device = None,
) -> None:  # fmt: skip
    """Learn what events usually look like, from events that are mostly normal; no labels are needed."""
    from companion.data.events import ENTITY_COLUMNS
    from companion.data.sessions import SESSION_COLUMNS
    from companion.estimators.events import EventDetector

    check_writable(out)
    detector = EventDetector(
        net, steps, alerts=alerts, zone=zone, columns=tuple(entity or ENTITY_COLUMNS),
        leave_out=(*SESSION_COLUMNS, *(leave_out or ())), json_columns=tuple(json_column or ()),
    )  # fmt: skip
    _learn(detector, _events(data, detector, "counting"), out, device)


def fit_rows(
    data: Table, out: Out, leave_out: LeaveOut = None, alerts: Flagged = 10.0,
    net: Net = True, steps: Steps = 5000, device: Device = None,
) -> None:  # fmt: skip
    """Learn what rows of a table usually look like, from rows that are mostly normal."""
    from companion.estimators.events import EventDetector

    check_writable(out)
    detector = EventDetector(net, steps, alerts=alerts, columns=(), leave_out=tuple(leave_out or ()))
    _learn(detector, [_read_tables(data)], out, device)


def _learn(detector: EventDetector, frames: Iterable[pd.DataFrame], out: Path, device: str | None) -> None:
    """Fit and save; say what was learned, which detectors were chosen by what, what the threshold costs."""
    from companion.compute import pick_compute

    detector.fit(frames, compute=pick_compute(device), progress="training")
    counts = detector.counts_
    print(
        f"learned from {counts['learned']:,} of {counts['read']:,}; the {counts['left out']:,} most unusual "
        f"were left out, {counts['held out']:,} held out"
    )
    if left_out := detector.simple_.columns.left_out_:
        print("columns that are not used:", ", ".join(f"{n} ({why})" for n, why in left_out.items()))
    print("average precision, for changes injected into held-out rows; combined: of those chosen so far:")
    print(detector.choice_.round(2).to_string(na_rep="-"))
    _save(detector, out)


def _save(detector: EventDetector, out: Path) -> None:
    """Write the model, and tell what its threshold costs."""
    detector.save(out)
    wanted = "alerts a day" if detector.columns else "rows of a thousand"
    print(
        f"threshold {detector.threshold_:.2f}, for {detector.alerts:g} {wanted}: it flags "
        f"{100 * detector.share_:.2g} % of those held out; written to {out}"
    )


def score_events(
    data: Data, model: Model, out: Scores, top: Top = 5, explain: Explain = True, device: Device = None,
    past: Past = None, parts: Parts = 16, engine: Engine = "local", workers: Workers = 1,
) -> None:  # fmt: skip
    """Score events, one line each, in the order of their times, and group those flagged into alerts.

    The columns are row (in the files, from 0), id (metadata.uid, or else the row), time, entity, the score of
    each detector, score and flagged. A score of 3 is reached by one normal event in a thousand. Flagged
    events of one entity with less than 30 minutes between them are one alert. A reason has its weight in
    brackets: standard deviations, or nats where a value is rare for the entity.

    Into a folder, events that outgrow memory are scored in parts; a run that was stopped goes on.
    """
    from companion.estimators.lakes import Lake, identified

    detector, drift = _loaded(model, device)
    if past and past.exists():
        detector.past_ = pd.read_parquet(past)
    folder = out.is_dir() or not out.suffix
    if engine == "ray" and not folder:
        raise ValueError(f"with --engine ray the scores are a folder, not one file such as {out}")
    if not folder:
        check_writable(out)
        frames = detector.stream(_events(data, detector, "scoring"), drift)
        joined = ((frame, identified(frame, detector).join(scores)) for frame, scores in frames)
        found = _write(joined, out, detector, drift)
    else:
        lake = Lake(out, model, parts)
        if report := lake.divide(detector, data):
            print(*report.lines(), sep="\n")
        scored = partial(lake.score, detector)
        tables = over_parts(lake.there, scored, lake.work / "found", [model], engine, workers, "part")
        flagged, found = lake.finish(detector, drift, tables)
        _tell_scored(flagged, out, detector, drift)
    if past and detector.carried_ is not None:
        with atomic_path(past) as file:
            detector.carried_.to_parquet(file)
    if folder:
        rmtree(lake.work)
    if len(found):
        _alerts(detector, found, top, explain)


def score_rows(
    data: Table, model: Model, out: Scores, top: Top = 5, explain: Explain = True, device: Device = None
) -> None:
    """Score rows of a table, one line each: the score of each detector, score and flagged."""
    detector, drift = _loaded(model, device)
    check_writable(out)
    frame = _read_tables(data)
    lacking = [c.name for c in detector.simple_.columns.columns_ if c.name not in frame.columns]
    if lacking:
        print(f"columns of the model that are not here count as missing: {', '.join(lacking)}")
    drift.add(detector.simple_.columns.transform(frame))
    found = _write([(frame, detector.measure(frame))], out, detector, drift)
    heads = [f"row {row}: score {own['score']:.2f}" for row, own in found.head(top).iterrows()]
    _tell(detector, found.head(top), heads, explain)


def evaluate_events(data: Data, model: Model, label: Label, out: Report = None) -> None:
    """Measure how well a model tells normal events from labelled faults: areas, rates, alerts a day.

    A label is normal where it is missing or empty, or one of 0, false, no, none, -, normal, benign and good,
    in capitals or not. All others are faults. Events of one alert are resampled together for the intervals.
    """
    from companion.estimators.lakes import identified

    detector, _ = _loaded(model, None)
    if label in {column.name for column in detector.simple_.columns.columns_}:
        raise ValueError(f"the model has learned from {label}; fit it again, with --leave-out {label}")
    tables = []
    for frame, table in detector.stream(_events(data, detector, "scoring")):
        if label not in frame.columns:
            raise ValueError(f"the events have no field {label}")
        tables.append(identified(frame, detector).join(table).assign(label=frame[label].astype("str")))
    found = pd.concat(tables)
    faulty = ~found["label"].fillna("").str.strip().str.lower().isin(NORMAL).to_numpy()
    flagged, limit = found["flagged"].to_numpy(), (detector.threshold_, detector.share_)
    common.report(
        faulty, found["score"].to_numpy(), limit, out, _numbers(found),
        alerts_a_day=len(set(_numbers(found[flagged]))) / days(found["time"].to_numpy("int64")),
        share_of_normal_events_flagged=flagged[~faulty].mean(),
    )  # fmt: skip
    for kind, own in found[faulty].groupby("label")["flagged"]:
        print(f"  {common.shown_name(str(kind))}: {own.sum():,} of {len(own):,} flagged")


def calibrate_events(model: Model, normal: Normal = None, alerts: Alerts = 20.0) -> None:
    """Set another threshold of a model, without fitting it again."""
    detector, _ = _loaded(model, None)
    detector.calibrate(_events(normal, detector, "scoring") if normal else None, alerts)
    _save(detector, model)


def _loaded(model: Path, device: str | None) -> tuple[EventDetector, Drift]:
    from companion.compute import pick_compute
    from companion.detection.simple import Drift
    from companion.estimators.events import EventDetector

    detector = EventDetector.load(model, pick_compute(device))
    return detector, Drift(detector.simple_.columns)


def _write(
    tables: Iterable[tuple[pd.DataFrame, pd.DataFrame]], out: Path, detector: EventDetector, drift: Drift
) -> pd.DataFrame:
    """Write scores part by part; the flagged rows come back, with all their columns, the highest 5,000."""
    from companion.estimators.lakes import highest

    flagged, found = 0, pd.DataFrame()
    with atomic_path(out) as part, part.open("w", encoding="utf8", newline="") as file:
        for frame, table in tables:
            cells = {n: table[n].map(safe_cell, na_action="ignore") for n in ("id", "entity") if n in table}
            written = table.assign(flagged=table["flagged"].astype(int), **cells)
            written.rename_axis("row").to_csv(file, header=file.tell() == 0)
            flagged += int(table["flagged"].sum())
            found = highest(found, frame, table)
    _tell_scored(flagged, out, detector, drift)
    return found


def _tell_scored(flagged: int, out: Path, detector: EventDetector, drift: Drift) -> None:
    print(f"{drift.rows:,} scored, {flagged:,} flagged; written to {out}")
    for line in drift.lines(detector.usual_):
        print(f"drift since fitting: {line}")


def _alerts(detector: EventDetector, found: pd.DataFrame, top: int, explain: bool) -> None:
    """Print alerts, each the flagged events of one entity that follow one another."""
    first = found.assign(number=_numbers(found)).sort_values("score", ascending=False, kind="stable")
    groups = first.groupby("number", sort=False)
    print(f"{groups.ngroups:,} alerts")
    heads = []
    for place, (_, own) in enumerate(islice(groups, top), start=1):
        times = pd.to_datetime(own["time"].agg(["min", "max"]).astype("int64"), unit="ms")
        start, end = times.dt.strftime("%Y-%m-%d %H:%M:%S")
        when = f"{start} to {end.removeprefix(start[:11])} UTC, score {own['score'].iloc[0]:.2f}"
        heads.append(f"{place}. {own['entity'].iloc[0] or 'no entity'}: {len(own):,} events, {when}")
    _tell(detector, groups.head(1)[:top].drop(columns=["number", "entity", "score"]), heads, explain)


def _numbers(found: pd.DataFrame) -> np.ndarray:
    """Of the alert that each event belongs to, (N,)."""
    return incidents(found["time"].to_numpy("int64"), found["entity"].to_numpy(object))


def _tell(detector: EventDetector, worst: pd.DataFrame, heads: list[str], explain: bool) -> None:
    """Print each head, and below it why that row is unusual."""
    from companion.estimators.reasons import reasons

    found = reasons(worst, detector.simple_, detector.net_, 4) if explain and heads else [[] for _ in heads]
    for head, told in zip(heads, found, strict=True):
        print(f"\n{head}", *(f"   - {reason}" for reason in told), sep="\n")


def _events(data: list[str], detector: EventDetector, label: str) -> Iterator[pd.DataFrame]:
    """Events part by part, under a progress bar, after what was met while reading."""
    from companion.data.event_files import read_batches

    batches, report = read_batches(data, json_columns=detector.json_columns)
    print(*report.lines(), sep="\n")
    with tqdm(total=report.events, desc=label, unit=" events", disable=None) as bar:
        for frame in batches:
            yield frame
            bar.update(len(frame))


def _read_tables(paths: list[Path]) -> pd.DataFrame:
    frames = [
        pd.read_parquet(p) if p.suffix == ".parquet" else pd.read_csv(p, low_memory=False) for p in paths
    ]
    whole = pd.concat(frames, ignore_index=True)
    print(f"read {len(whole):,} rows with {len(whole.columns)} columns")
    return whole
