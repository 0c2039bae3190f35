"""The command line for events: ``companion fit events``, ``score events`` and ``generate events``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from companion.cli_common import check_writable, errors_as_messages
from companion.cli_events_output import (
    SHOWN,
    ScoreWriter,
    Worst,
    describe,
    tell_drift,
    tell_reading,
    tell_times,
    tell_worst,
    write_drift,
)

if TYPE_CHECKING:
    import pandas as pd

    from companion.data.ocsf import ReadReport
    from companion.data.ocsf_flat import Kind

MANY = "; names with commas between, or the option again."
File = Annotated[Path, typer.Argument(help="OCSF events: JSON Lines (plain or gzip) or Parquet.")]
JsonColumns = Annotated[
    list[str] | None,
    typer.Option("--json-column", help=f"Fields whose text is JSON, to be taken apart{MANY}"),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; chosen if not given.")]
ChunkRows = Annotated[int, typer.Option(min=1, help="Events in memory at a time.")]
CHUNK_ROWS = 20_000


def split_names(options: list[str] | None) -> list[str]:
    """The names in options that may be repeated and may hold several, with commas between.

    Example:
        >>> split_names(["a,b", "c"]), split_names(None)
        (['a', 'b', 'c'], [])
    """
    return [name.strip() for option in options or () for name in option.split(",") if name.strip()]


def count_events(path: Path) -> int | None:
    """How many events a file holds, where that can be known without reading it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int(pq.ParquetFile(path).metadata.num_rows)
    except (pa.ArrowException, OSError):
        return None


def read_with_bar(
    path: Path,
    label: str,
    *,
    kinds: dict[str, Kind] | None = None,
    json_columns: Sequence[str] = (),
    report: ReadReport | None = None,
    chunk_rows: int = CHUNK_ROWS,
    total: int | None = None,
) -> Iterator[pd.DataFrame]:
    """The events in pieces, with a progress bar on standard error where that is a terminal.

    Raises:
        DataError: see :func:`companion.data.ocsf.read_events`.
    """
    from tqdm.auto import tqdm

    from companion.data.ocsf import read_events

    frames = read_events(path, kinds=kinds, json_columns=json_columns, report=report, chunk_rows=chunk_rows)
    with tqdm(
        total=total or count_events(path), desc=label, unit="event", unit_scale=True, disable=None
    ) as bar:
        for frame in frames:
            yield frame
            bar.update(len(frame))


def scan_with_bar(path: Path, json_columns: Sequence[str], chunk_rows: int) -> tuple[dict[str, Kind], int]:
    """The columns of a file with what each holds, and how many events there are."""
    from companion.data.ocsf_flat import kind_of_column, merge_kinds

    kinds: dict[str, Kind] = {}
    count = 0
    for frame in read_with_bar(path, "looking", json_columns=json_columns, chunk_rows=chunk_rows):
        count += len(frame)
        for name in frame.columns:
            kind = kind_of_column(frame[name])
            kinds[str(name)] = merge_kinds(kinds.get(str(name), kind), kind)
    return kinds, count


# ---------------------------------------------------------------- fit


def fit_events(
    file: File,
    out: Annotated[Path, typer.Option(help="Where to write the model.")],
    entity: Annotated[
        list[str] | None,
        typer.Option(help=f"Fields that name who an event is about, the first that it has{MANY}"),
    ] = None,
    leave_out: Annotated[
        list[str] | None,
        typer.Option(help=f"Fields or objects not to use, beside session ids, such as 'label*'{MANY}"),
    ] = None,
    json_column: JsonColumns = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the training, of 512 events each.")] = 1000,
    max_events: Annotated[
        int, typer.Option(min=1, help="Events in the sample that is learned from.")
    ] = 200_000,
    fpr: Annotated[float, typer.Option(help="The share of normal events that may be flagged.")] = 0.001,
    held_out: Annotated[float, typer.Option(help="The latest share of the events, for the threshold.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Decides everything random.")] = 0,
    device: Device = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue a training that was stopped.")] = False,
    chunk_rows: ChunkRows = CHUNK_ROWS,
) -> None:
    """Learn what events usually look like, from events that are mostly normal.

    The file may be larger than memory: it is read twice, and a fair sample of it is learned. Numbers,
    categories and identifiers are told apart by themselves, and no labels are needed.
    """
    with errors_as_messages():
        from companion.compute import pick_compute
        from companion.data.events import ENTITY_COLUMNS
        from companion.data.ocsf import ReadReport
        from companion.data.sessions import SESSION_COLUMNS
        from companion.estimators.events import EventDetector

        check_writable(out)
        checkpoint = out.with_name(f".{out.name}.checkpoint")
        if not resume:
            checkpoint.unlink(missing_ok=True)
        detector = EventDetector(
            num_steps=steps, max_events=max_events, fpr=fpr, held_out=held_out, seed=seed,
            columns=tuple(split_names(entity) or ENTITY_COLUMNS),
            leave_out=(*SESSION_COLUMNS, *split_names(leave_out)),
        )  # fmt: skip
        named = split_names(json_column)
        kinds, count = scan_with_bar(file, named, chunk_rows)
        report = ReadReport()
        frames = read_with_bar(
            file,
            "sampling",
            kinds=kinds,
            json_columns=named,
            report=report,
            chunk_rows=chunk_rows,
            total=count,
        )
        compute = pick_compute(device)
        detector.fit(frames, compute=compute, checkpoint=checkpoint, progress="training")
        detector.json_columns_ = tuple(named)
        detector.save(out)
        checkpoint.unlink(missing_ok=True)
        counts = detector.counts_
        tell_reading(report)
        tell_times(counts["late"], counts["without time"])
        print(
            f"learned from {counts['learned']:,} events with {len(detector.drift_.fields)} fields, "
            f"held out {counts['held out']:,} later ones"
        )
        print(f"threshold {detector.threshold_:.2f} for a false-positive rate of {fpr:g}")
        print(f"written to {out}")


# ---------------------------------------------------------------- score


def score_events(
    file: File,
    model: Annotated[Path, typer.Option(help="What `companion fit events` wrote.")],
    out: Annotated[Path, typer.Option(help="For the scores: .parquet or .csv.")],
    top: Annotated[int, typer.Option(min=0, help="Print so many of the most unusual events.")] = 0,
    explain: Annotated[bool, typer.Option("--explain", help="Say why they are unusual.")] = False,
    report: Annotated[Path | None, typer.Option(help="A CSV file for the drift of each field.")] = None,
    json_column: Annotated[
        list[str] | None, typer.Option(help="As for `companion fit events`, which remembers it.")
    ] = None,
    device: Device = None,
    chunk_rows: ChunkRows = CHUNK_ROWS,
) -> None:
    """Score events, one line each, in the order of the file.

    The columns are row (in the file, from 0), id (metadata.uid, or else the row), time, entity, surprise,
    distance, habit, score and flagged. A score of 3 is reached by one normal event in a thousand.
    """
    with errors_as_messages():
        from companion.compute import pick_compute
        from companion.data.ocsf import ReadReport
        from companion.estimators.events import EventDetector

        if explain and not top:
            top = SHOWN
        check_writable(out)
        if report is not None:
            check_writable(report)
        detector = EventDetector.load(model, pick_compute(device))
        clock, drift, reading = detector.clock(), detector.tracker(), ReadReport()
        worst, scored, flagged = Worst(top), 0, 0
        named = split_names(json_column) or detector.json_columns_
        frames = read_with_bar(
            file, "scoring", kinds=detector.kinds_, json_columns=named, report=reading, chunk_rows=chunk_rows
        )
        with ScoreWriter(out) as writer:
            for raw in frames:
                frame, gaps = clock(raw)
                scores = detector.score(frame, gaps, drift=drift)
                table = describe(frame, detector.columns).join(scores.reset_index(drop=True))
                writer.write(table)
                worst.offer(table, frame, gaps)
                scored, flagged = scored + len(table), flagged + int(table["flagged"].sum())
        tell_reading(reading)
        tell_times(clock.late, clock.untimed)
        if top:
            told = detector.explain(worst.frame, worst.table["gap"].to_numpy()) if explain else []
            tell_worst(worst.table, told)
            print()
        found = drift.report()
        tell_drift(found)
        if report is not None:
            write_drift(found, report)
            print(f"the drift of every field is in {report}")
        print(f"{scored:,} events scored, {flagged:,} flagged; written to {out}")


# ---------------------------------------------------------------- generate


def generate_events(
    out: Annotated[Path, typer.Argument(help="For the events: .parquet, .jsonl or .jsonl.gz.")],
    labels: Annotated[Path, typer.Option(help="For their labels, row by row, likewise.")],
    events: Annotated[int, typer.Option(min=1, help="How many.")] = 100_000,
    attack_share: Annotated[float, typer.Option(help="The share that belongs to attacks, up to 0.5.")] = 0.01,
    days: Annotated[float, typer.Option(help="How long the time is.")] = 14.0,
    start: Annotated[str, typer.Option(help="The first day.")] = "2026-01-05",
    seed: Annotated[int, typer.Option(help="Other seeds, other days of the same company.")] = 0,
) -> None:
    """Generate events with known attacks, to try the other commands on."""
    with errors_as_messages():
        from companion.data.ocsf_synthetic import EventConfig, write_synthetic

        config = EventConfig(num_events=events, seed=seed, days=days, attack_share=attack_share, start=start)
        write_synthetic(out, labels, config)
        print(f"{events:,} events written to {out}, their labels to {labels}")


def register(fit_app: typer.Typer, score_app: typer.Typer, generate_app: typer.Typer) -> None:
    """Add ``events`` to ``companion fit``, ``companion score`` and ``companion generate``."""
    fit_app.command("events")(fit_events)
    score_app.command("events")(score_events)
    generate_app.command("events")(generate_events)
