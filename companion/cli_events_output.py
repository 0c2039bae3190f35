"""What the commands for events print and write."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from companion.files import atomic_path

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from companion.data.ocsf import ReadReport
    from companion.detection.drift import FieldDrift
    from companion.estimators.event_report import Explanation

SCORE_ENDINGS = (".parquet", ".csv")
SHOWN = 10
"""How many of a long list are printed."""


def tell_reading(report: ReadReport) -> None:
    """Print what was read, and the first of the lines that could not be."""
    from companion.data.ocsf import MAX_LISTED

    print(f"read {report.summary()}")
    for line in report.bad_lines[:SHOWN]:
        print(f"  line {line.number}: {line.reason}")
    if report.bad > SHOWN:
        more = f" (the first {MAX_LISTED} are kept)" if report.bad > MAX_LISTED else ""
        print(f"  and {report.bad - SHOWN:,} more{more}")


def tell_times(late: int, untimed: int) -> None:
    """Print how many events were out of order or had no time, if any."""
    if late:
        print(
            f"{late:,} events come after later ones of the same entity; the time since its last event counts "
            "as missing for them. Sort the file by time if it can be done"
        )
    if untimed:
        print(f"{untimed:,} events have no time that can be read; each got that of the event before it")


class ScoreWriter:
    """Writes tables of scores one after another as one CSV or Parquet file, which appears at the end.

    Raises:
        ValueError: if the name ends in something else.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in SCORE_ENDINGS:
            raise ValueError(f"{path} should end in {' or '.join(SCORE_ENDINGS)}")
        self.path = path
        self._stack = ExitStack()

    def __enter__(self) -> ScoreWriter:
        from companion.data.ocsf_write import EventWriter

        self._parquet, self._lines = None, 0
        if self.path.suffix == ".parquet":
            self._parquet = self._stack.enter_context(EventWriter(self.path))
        else:
            self._part = self._stack.enter_context(atomic_path(self.path))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def write(self, table: pd.DataFrame) -> None:
        """Append the rows of a table."""
        if self._parquet is not None:
            self._parquet.write(table)
        else:
            table.to_csv(self._part, index=False, mode="a", header=self._lines == 0)
            self._lines += len(table)


def describe(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """What tells an event from others: row in the file, record id, time, entity."""
    import pandas as pd

    from companion.data.events import entities, record_ids

    return pd.DataFrame(
        {
            "row": frame.index.to_numpy(),
            "id": record_ids(frame).to_numpy(dtype=object),
            "time": frame["time"].to_numpy(),
            "entity": entities(frame, columns).to_numpy(dtype=object),
        }
    ).astype({"id": "str", "entity": "str"})


class Worst:
    """The events with the highest scores so far, with what is needed to explain them."""

    def __init__(self, count: int) -> None:
        import pandas as pd

        self.count = count
        self.table, self.frame = pd.DataFrame(), pd.DataFrame()

    def offer(self, table: pd.DataFrame, frame: pd.DataFrame, gaps: np.ndarray) -> None:
        """Keep the worst of those kept and these: scores, events and gaps (N)."""
        import pandas as pd

        table = pd.concat([self.table, table.assign(gap=gaps).set_index(frame.index)])
        frame = pd.concat([self.frame, frame])
        order = table["score"].to_numpy().argsort(kind="stable")[::-1][: self.count]
        self.table, self.frame = table.iloc[order], frame.iloc[order]


def tell_worst(worst: pd.DataFrame, explanations: Sequence[Explanation]) -> None:
    """Print the worst events, each with its reasons if there are any."""
    import pandas as pd

    print(f"\nthe {len(worst)} most unusual events")
    for number, event in enumerate(worst.to_dict("records"), start=1):
        moment = pd.Timestamp(event["time"], unit="ms", tz="UTC")
        who = "nobody named" if pd.isna(event["entity"]) else event["entity"]
        flag = "flagged" if event["flagged"] else "not flagged"
        print(f"\n{number}. event {event['id']}, row {event['row']}, {moment:%Y-%m-%d %H:%M:%S} UTC, {who}")
        print(f"   score {event['score']:.2f} ({flag}), ", end="")
        print(
            f"surprise {event['surprise']:.1f}, distance {event['distance']:.2f}, habit {event['habit']:.2f}"
        )
        for line in explanations[number - 1].lines() if explanations else ():
            print(f"   - {line}")


def tell_drift(report: Sequence[FieldDrift]) -> None:
    """Print which fields drifted, if any."""
    drifted = [field for field in report if field.drifted]
    if not drifted:
        print("no field has drifted since the model was fitted")
        return
    print(f"{len(drifted)} fields have drifted since the model was fitted; if that is to stay, fit anew:")
    for field in drifted[:SHOWN]:
        extra = "".join(
            f", {name} {100 * then:.1f} % then and {100 * now:.1f} % now"
            for name, (then, now) in (("missing", field.missing), ("rare or new", field.unseen))
            if abs(now - then) > 0.01
        )
        moved = f"{100 * field.shift:.0f} % of the events moved, {100 * field.usual:.0f} % is usual"
        print(f"  {field.field}: {moved}{extra}")
    if len(drifted) > SHOWN:
        print(f"  and {len(drifted) - SHOWN} more")


def write_drift(report: Sequence[FieldDrift], path: Path) -> None:
    """Write the report on drift as CSV, one field a line."""
    import pandas as pd

    rows = [
        {
            "field": field.field, "drifted": field.drifted, "shift": field.shift, "limit": field.limit,
            "chance": field.chance, "usual": field.usual,
            "missing_then": field.missing[0], "missing_now": field.missing[1],
            "unseen_then": field.unseen[0], "unseen_now": field.unseen[1],
        }
        for field in report
    ]  # fmt: skip
    with atomic_path(path) as part:
        pd.DataFrame(rows).to_csv(part, index=False)
