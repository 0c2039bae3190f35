"""Scoring folders of events that outgrow memory or one process: by parts, each with whole entities.

DuckDB divides the events, out of core, by a hash of their entities. What an entity did is then in one part,
so parts are scored one after another, with the scores of a single stream.
"""

import json
import shutil
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from companion.data.event_files import ReadReport, read_batches, sorted_events
from companion.data.events import entities
from companion.detection.rates import FIRSTS, HABIT_COLUMNS
from companion.detection.simple import Drift
from companion.estimators.events import EventDetector
from companion.files import atomic_path

KEPT = 5_000  #: flagged events, the highest, that are grouped into alerts


def identified(frame: pd.DataFrame, detector: EventDetector) -> pd.DataFrame:
    """The ``id`` of each event (``metadata.uid``, or else its row in the files), ``time`` and ``entity``."""
    row = frame["row"] if "row" in frame.columns else frame.index
    ids = entities(frame.assign(row=row.astype("str")), ("metadata.uid", "row"))
    who = entities(frame, detector.columns).fillna("")
    return pd.DataFrame({"id": ids, "time": frame["time"], "entity": who})


def highest(found: pd.DataFrame, frame: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """The flagged rows so far with these, with all their columns, those with the highest scores."""
    own = frame.join(table[[n for n in ("score", "entity") if n in table]])[table["flagged"]]
    return pd.concat([found, own]).nlargest(KEPT, "score") if len(own) else found


class Lake:
    """A folder of scores, ``part-0.parquet`` and so on."""

    def __init__(self, out: Path, model: Path, parts: int) -> None:
        self.out, self.model, self.parts, self.work = out, model, parts, out / "work"

    def divide(self, detector: EventDetector, paths: list[str]) -> ReadReport | None:
        """Write the events and the past, part by part; ``None`` if that was done by a run that was stopped.

        A folder whose scores were begun with something else, or are all there, is refused.
        """
        told: dict[str, Any] = {"events": paths, "parts": self.parts}
        told["model"], about = sha256(self.model.read_bytes()).hexdigest(), self.out / "about.json"
        if about.exists() and (json.loads(about.read_text("utf8")) != told or not self.work.exists()):
            raise ValueError(f"{self.out} has all its scores, or those of other events; name another folder")
        if about.exists():
            return None
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir(parents=True)
        past = pd.DataFrame(detector.past_)
        with sorted_events(paths, detector.json_columns) as (base, columns, report):
            base.register("past", past)
            place = {name: f"c{i}" for i, name in enumerate(columns)}
            if not (there := [f"{place[name]}::VARCHAR" for name in detector.columns if name in place]):
                raise ValueError(f"the events have none of the columns {', '.join(detector.columns)}")
            joins, new, time = "", ["0.0"], place["time"]
            for name in (name for name in HABIT_COLUMNS if name in place):  # first times among all entities
                value, known, first = f"{place[name]}::VARCHAR", f"habit.{name}", f"first_{place[name]}"
                seen = f'WHERE v NOT IN (SELECT "{known}" FROM past WHERE "{known}" IS NOT NULL)'
                base.execute(
                    f"CREATE TABLE {first} AS SELECT * FROM (SELECT {value} AS v, min({time}) AS moment "
                    f"FROM sorted GROUP BY v) {seen if known in past else ''}"
                )
                joins += f" LEFT JOIN {first} ON {first}.v = {value}"
                new.append(f"coalesce(({first}.moment = {time})::DOUBLE, 0)")
            cells = ['{} AS "{}"'.format(own, name.replace('"', '""')) for name, own in place.items()]
            cells += [f'{" + ".join(new)} AS "{FIRSTS[-1]}"', 'row AS "row"']
            for name, what, who in (
                ("events", f"{', '.join(cells)} FROM sorted{joins}", f"coalesce({', '.join(there)}, '')"),
                ("past", "* FROM past", "entity"),
            ):
                query = f"SELECT (hash({who}) % {self.parts})::INTEGER AS part, {what}"
                base.sql(query).write_parquet(str(self.work / name), partition_by=["part"])
        with atomic_path(about) as file:
            file.write_text(json.dumps(told), "utf8")
        return report

    @property
    def there(self) -> list[int]:
        """Parts that have events."""
        return sorted(int(path.name.partition("=")[2]) for path in (self.work / "events").glob("part=*"))

    def score(self, detector: EventDetector, part: int) -> pd.DataFrame:
        """Write the scores of a part; the flagged events come back, with counts in their ``attrs``."""
        drift, found, flagged = Drift(detector.simple_.columns), pd.DataFrame(), 0
        past = self.work / "past" / f"part={part}"
        detector.past_ = pd.read_parquet(past) if past.exists() else None
        frames, _ = read_batches(self.work / "events" / f"part={part}")
        with atomic_path(self.out / f"part-{part}.parquet") as file:
            writer: Any = None
            for frame, scores in detector.stream(frames, drift):
                table = identified(frame, detector).join(scores)
                arrow = pa.Table.from_pandas(table, preserve_index=False)
                writer = writer or pq.ParquetWriter(file, arrow.schema)
                writer.write_table(arrow)
                flagged += int(table["flagged"].sum())
                found = highest(found, frame, table)
            writer.close()
            assert detector.carried_ is not None
            detector.carried_.to_parquet(self.work / f"past-{part}.parquet")
            found.attrs.update(flagged=flagged, rows=drift.rows)
            found.attrs.update(unseen=drift.unseen.tolist(), sums=drift.sums.tolist())
        return found

    def finish(self, detector: EventDetector, drift: Drift, parts: list[Any]) -> tuple[int, pd.DataFrame]:
        """How many events were flagged, and the highest 5,000 of these, from what :meth:`score` gave.

        ``detector`` gets the past that a later run has to know, ``drift`` what all parts count.
        """
        for counts in (part.attrs for part in parts):
            drift.unseen, drift.sums = drift.unseen + counts["unseen"], drift.sums + counts["sums"]
            drift.rows += counts["rows"]
        before = {int(path.name.partition("=")[2]): path for path in (self.work / "past").glob("part=*")}
        after = {int(path.stem.partition("-")[2]): path for path in self.work.glob("past-*.parquet")}
        pasts = [pd.read_parquet(path) for path in (before | after).values()]
        detector.carried_ = pd.concat(pasts).sort_values("time", kind="stable", ignore_index=True)
        found, flagged = pd.concat(parts), sum(part.attrs["flagged"] for part in parts)
        return flagged, found.nlargest(KEPT, "score") if flagged else found
