"""The command line for events: ``companion fit events`` and ``companion score events``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from companion.cli_common import check_writable, errors_as_messages, safe_cell

File = Annotated[Path, typer.Argument(help="OCSF events: JSON Lines (plain or gzip) or Parquet.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; chosen if not given.")]
_DEFAULT = "; may be given again."


def fit_events(
    file: File,
    out: Annotated[Path, typer.Option(help="Where to write the model.")],
    entity: Annotated[
        list[str] | None, typer.Option(help=f"Fields that name who an event is about, in order{_DEFAULT}")
    ] = None,
    leave_out: Annotated[
        list[str] | None, typer.Option(help=f"Fields or objects not to use, such as 'label*'{_DEFAULT}")
    ] = None,
    json_column: Annotated[
        list[str] | None, typer.Option(help=f"Fields whose text is JSON, to be taken apart{_DEFAULT}")
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training, of 512 events each.")] = 1000,
    fpr: Annotated[float, typer.Option(help="The share of normal events that may be flagged.")] = 0.001,
    device: Device = None,
) -> None:
    """Learn what events usually look like, from events that are mostly normal; no labels are needed."""
    with errors_as_messages():
        from companion.compute import pick_compute
        from companion.data.events import ENTITY_COLUMNS
        from companion.data.ocsf import read_events
        from companion.data.sessions import SESSION_COLUMNS
        from companion.estimators.events import EventDetector

        check_writable(out)
        detector = EventDetector(
            num_steps=steps,
            fpr=fpr,
            columns=tuple(entity or ENTITY_COLUMNS),
            leave_out=(*SESSION_COLUMNS, *(leave_out or ())),
            json_columns=tuple(json_column or ()),
        )
        frame, report = read_events(file, json_columns=detector.json_columns)
        print(*report.lines(), sep="\n")
        detector.fit(frame, compute=pick_compute(device), progress="training")
        detector.save(out)
        counts = detector.counts_
        fields = len(set(detector.features_.fields))
        print(
            f"learned from {counts['learned']:,} events with {fields} fields, "
            f"held out {counts['held out']:,} later ones"
        )
        print(f"threshold {detector.threshold_:.2f} for a false-positive rate of {fpr:g}; written to {out}")


def score_events(
    file: File,
    model: Annotated[Path, typer.Option(help="What `companion fit events` wrote.")],
    out: Annotated[Path, typer.Option(help="A CSV file for the scores.")],
    top: Annotated[int, typer.Option(min=0, help="Explain so many of the most unusual events.")] = 5,
    device: Device = None,
) -> None:
    """Score events, one line each, in the order of their times.

    The columns are row (in the file, from 0), id (metadata.uid, or else the row), time, entity, surprise,
    distance, habit, score and flagged. A score of 3 is reached by one normal event in a thousand.
    """
    with errors_as_messages():
        import pandas as pd

        from companion.compute import pick_compute
        from companion.data.events import entities, record_ids
        from companion.data.ocsf import read_events
        from companion.estimators.events import EventDetector
        from companion.files import atomic_path

        check_writable(out)
        detector = EventDetector.load(model, pick_compute(device))
        frame, report = read_events(file, json_columns=detector.json_columns)
        print(*report.lines(), sep="\n")
        scores = detector.measure(frame)
        about = {"id": record_ids(frame), "time": frame["time"], "entity": entities(frame, detector.columns)}
        table = pd.DataFrame(about).join(scores).rename_axis("row").reset_index()
        with atomic_path(out) as part:
            cells = {name: table[name].map(safe_cell, na_action="ignore") for name in ("id", "entity")}
            table.assign(**cells).to_csv(part, index=False)
        worst = table["score"].to_numpy().argsort(kind="stable")[::-1][:top].tolist()
        reasons = detector.explain(frame, worst)
        for number, place in enumerate(worst, start=1):
            event = table.iloc[place]
            moment, who = pd.Timestamp(event["time"], unit="ms", tz="UTC"), event["entity"]
            print(
                f"\n{number}. event {event['id']}, row {event['row']}, {moment:%Y-%m-%d %H:%M:%S} UTC, {who}"
            )
            print(
                f"   score {event['score']:.2f}{' (flagged)' if event['flagged'] else ''}, surprise "
                f"{event['surprise']:.1f}, distance {event['distance']:.2f}, habit {event['habit']:.2f}"
            )
            for why in reasons[reasons["row"] == place].itertuples():
                rare = f"; {why.times_rarer:.0f} times rarer for it" if why.times_rarer > 2 else ""
                print(f"   - {why.field} = {why.value}  (expected {why.expected}; {why.nats:.1f} nats{rare})")
        print(f"\n{len(table):,} events scored, {int(table['flagged'].sum()):,} flagged; written to {out}")


def register(fit_app: typer.Typer, score_app: typer.Typer) -> None:
    """Add ``events`` to ``companion fit`` and ``companion score``."""
    fit_app.command("events")(fit_events)
    score_app.command("events")(score_events)
