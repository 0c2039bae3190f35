"""Real, labelled security data: Zeek, CloudTrail, a demo service, NSL-KDD, and sessions of HDFS.

Logs become OCSF by one small table each, in ``ocsf_mappings.toml`` beside this file. What carries the label
never becomes a column. Where no source is in reach, a warning says so and generated data stand in.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from companion.data.download import REGISTRY, DataError, Dataset, Source, load, warn_of_stand_in
from companion.data.download import read_published as published
from companion.data.event_files import read_events
from companion.data.events import Events, Split, tidy, to_milliseconds
from companion.data.synthetic_events import EventConfig, generate_events

ZEEK = {name: REGISTRY[f"zeek-{name}"] for name in ("008", "010", "011", "012")}
CLOUDTRAIL, DEMO_SERVICE = REGISTRY["cloudtrail"], REGISTRY["ocsf-logs"]
NSL_KDD = tuple(REGISTRY[f"nsl-kdd-{part}"] for part in ("fields", "train", "test"))
HDFS = (REGISTRY["hdfs-normal"], REGISTRY["hdfs-abnormal"])

TABLES = tomllib.loads(Path(__file__).with_name("ocsf_mappings.toml").read_text("utf8"))
ZEEK_TO_OCSF: dict[str, str] = TABLES["zeek"]
"""Fields of Zeek's conn.log as those of OCSF's Network Activity (4001)."""
CLOUDTRAIL_TO_OCSF: dict[str, str] = TABLES["cloudtrail"]
"""Fields of an AWS CloudTrail record as those of OCSF's API Activity (6003)."""
DEMO_LEFT_OUT: dict[str, str] = TABLES["demo_left_out"]
"""Fields of the demo service's log that are no columns, and why."""
DEMO_JSON = (
    "metadata", "device", "actor", "src_endpoint", "dst_endpoint", "http_request", "http_response",
    "resources", "anomaly", "error",
)  # fmt: skip
"""Fields of the demo service's log that hold objects as JSON text."""


@dataclass(frozen=True)
class Sessions:
    """Sessions of tokens, whole ones labelled."""

    tokens: np.ndarray  #: int64 (N,), from 1
    sessions: np.ndarray  #: int64 (N,), the session of each token, from 0 and rising
    abnormal: np.ndarray  #: bool (S,)
    distinct: np.ndarray  #: int64 (S,), the same number for sessions that are equal token by token
    split: Split  #: row numbers of sessions, as those of :class:`companion.data.events.Events`
    source: str
    digest: str
    synthetic: bool


def load_zeek() -> Events:
    """Network flows of four hosts of a university network, each captured for a day, and attacks on them.

    Detectors learn from the hosts 008 and 010 (the last hours calibrate), are chosen on 012 and tested on
    011: other hosts and, for validation, another week of June 2022. Host 008 is unlike the others: a fifth of
    its flows go to port 8883. Rows (attacks): train 2,486, calibration 853, validation 3,810 (3,028), test
    8,722 (3,951): attacks are not rare here. The 1,353 flows without a label ("Background") are left out.

    An attack is each flow that came from outside to the host. So the label is the direction, and who began a
    flow is left out: ``local_orig``, ``local_resp`` and both addresses. The address of the other side is
    ``unmapped.peer_ip``, the entity; an incident is all that one address did to one host.
    """
    try:
        read = {name: published(dataset) for name, dataset in ZEEK.items()}
    except DataError as error:
        warn_of_stand_in("The Zeek log", "events", error, *ZEEK.values())
        return _stand_in(15_000)
    raw = pd.concat([_zeek(content).assign(capture=name) for name, (content, _) in read.items()])
    raw = raw[raw["label"] != "Background"].sort_values("ts", kind="stable", ignore_index=True)
    host = raw.groupby("capture")["id.orig_h"].transform(lambda column: column.mode()[0])
    peer = raw["id.orig_h"].where(raw["id.orig_h"] != host, raw["id.resp_h"])
    attack = raw["label"] == "Malicious"
    hour = pd.to_datetime(raw["ts"], unit="s").dt.strftime("%dT%H")
    flows = raw["capture"] + "/" + peer.where(attack, hour)
    learned = raw["capture"].isin(["008", "010"]) & ~attack
    late = hour >= raw["capture"].map(hour[learned].groupby(raw["capture"]).agg(_nearly_last))
    return Events(
        frame=_ocsf(
            raw.rename(columns=ZEEK_TO_OCSF)[[*ZEEK_TO_OCSF.values()]].assign(
                time=(raw["ts"] * 1000).round(), duration=raw["duration"] * 1000, **{"unmapped.peer_ip": peer}
            ),
            class_uid=4001,
            activity_id=6,
        ),
        labels=_labels(raw["detailedlabel"].where(attack), flows),
        split=_split(
            train=learned & ~late,
            calibration=learned & late,
            validation=raw["capture"] == "012",
            test=raw["capture"] == "011",
        ),
        entity=("unmapped.peer_ip",),
        **_origin(ZEEK.values(), [place for _, place in read.values()]),
    )


def _zeek(content: bytes) -> pd.DataFrame:
    """A conn.log with its names, types by content; ``-`` and ``(empty)`` are missing."""
    lines = content.decode().splitlines()
    names = next(line for line in lines if line.startswith("#fields")).split("\t")[1:]
    body = io.StringIO("\n".join(line for line in lines if not line.startswith("#")))
    return pd.read_csv(body, sep="\t", names=names, na_values=["-", "(empty)"], keep_default_na=False)


def load_cloudtrail() -> Events:
    """API calls of one AWS account in an hour of July 2023 in which techniques of attack were tried out.

    The tool (Stratus Red Team) prepares each technique with Terraform, carries it out, and cleans up, nearly
    all as one user from one address. An attack is a call that carries a technique out (214 of 2,900, by the
    tool's name as ``userAgent``); what Terraform calls is what administrators do all day, and normal. So are
    calls that AWS makes for the user, also as a consequence of an attack.

    Normal calls before 12:06 UTC are for learning (the last minutes calibrate), later ones and all runs of
    the tool up to 12:14 for validation, all after that for the test: no run is on two sides. The time of day
    tells something on validation calls, therefore, that it does not tell later. Rows (attacks): train 694,
    calibration 192, validation 1,287 (173), test 727 (41).
    """
    try:
        content, source = read_cloudtrail()
    except DataError as error:
        warn_of_stand_in("The CloudTrail log", "events", error, CLOUDTRAIL)
        return _stand_in(3_000)
    records = [json.loads(line) for line in content.splitlines()]
    raw = pd.DataFrame({n: [_value(r, n) for r in records] for n in (*CLOUDTRAIL_TO_OCSF, "userAgent")})
    raw = raw.sort_values(["eventTime", "eventID"], ignore_index=True)
    run = raw["userAgent"].str.extract(r"^\[?stratus-red-team_([0-9a-f-]{36})\]?$")[0]
    attack, clock = run.notna(), raw["eventTime"].str[11:16]
    learned = ~attack & (clock < "12:06")
    late = clock >= _nearly_last(clock[learned])
    verb = raw["eventName"].str.extract(r"^([A-Z][a-z]+)")[0]
    return Events(
        frame=_ocsf(
            raw.rename(columns=CLOUDTRAIL_TO_OCSF)[[*CLOUDTRAIL_TO_OCSF.values()]].assign(
                time=to_milliseconds(raw["eventTime"])
            ),
            class_uid=6003,
            activity_id=verb.map(TABLES["activities"]).fillna(99).astype(int),
        ),
        labels=_labels(pd.Series("technique", raw.index).where(attack), run.fillna(clock)),
        split=_split(
            train=learned & ~late,
            calibration=learned & late,
            validation=(clock < "12:14") & ~learned,
            test=clock >= "12:14",
        ),
        entity=("actor.user.uid", "src_endpoint.ip"),
        **_origin([CLOUDTRAIL], [source]),
    )


def _value(record: Any, path: str) -> Any:
    """What stands at a path of dots in nested objects and lists; ``#`` is the length of a list."""
    for part in path.split("."):
        if isinstance(record, list):
            record = len(record) if part == "#" else dict(enumerate(record)).get(int(part))
        else:
            record = (record or {}).get(part)
    return record


def read_cloudtrail() -> tuple[bytes, str]:
    """The records of the CloudTrail files as JSON Lines, and where they came from."""

    def checked(content: bytes) -> bytes:
        if hashlib.sha256(content).hexdigest() != CLOUDTRAIL.sha256:
            raise DataError("does not hold the CloudTrail records as expected")
        return content

    def unpack(path: Path, _: Source) -> bytes:
        with tarfile.open(path) as archive:
            members = [m for m in archive if m.isfile() and re.search(r"(^|/)CloudTrail/.*\.json$", m.name)]
            members.sort(key=lambda member: member.name.rpartition("/")[2])
            texts = [file.read() for m in members[:1000] if (file := archive.extractfile(m)) is not None]
        records = [record for text in texts for record in json.loads(text)["Records"]]
        return checked("".join(json.dumps(record) + "\n" for record in records).encode())

    return load(
        CLOUDTRAIL, lambda path: checked(path.read_bytes()), unpack, lambda c, part: part.write_bytes(c)
    )


def load_demo_service() -> Events:
    """API events of a demo service under a load generator with injected sleeps, two hours of them.

    Of a request with a fault the service logged a second event, which says that all went well, with the same
    ``trace_id`` and nearly the same duration (204 of 277 faults have one): these twins are left out. So are
    the fields of ``DEMO_LEFT_OUT``. The events are almost OCSF 1.0.0: ``api`` is missing, and those that the
    database wrote have no actor and no source.

    Split by time, 50, 10, 20 and 20 %; the 159 faults of the first two parts are not used. Rows (faults):
    train 13,309, calibration 2,660, validation 5,376 (57), test 5,376 (61).
    """
    try:
        content, source = published(DEMO_SERVICE)
    except DataError as error:
        warn_of_stand_in("The log of the demo service", "events", error, DEMO_SERVICE)
        return _stand_in(27_000)
    with TemporaryDirectory() as folder:
        path = Path(folder) / DEMO_SERVICE.cached
        path.write_bytes(content)
        frame = read_events(path, json_columns=DEMO_JSON)[0]
    faulty = frame["anomaly.type"].notna()
    twins = frame["trace_id"].isin(frame["trace_id"][faulty].dropna()) & ~faulty
    frame = frame[~twins].reset_index(drop=True)
    attack, trace = frame["anomaly.type"], frame["trace_id"].fillna(_rows(frame))
    copies = tuple(f"{name.removesuffix('s')}_" for name in DEMO_JSON)  # flat copies of what these hold
    left_out = (*(f"{name}." for name in DEMO_LEFT_OUT), *copies)
    kept = [name for name in frame.columns if not f"{name}.".startswith(left_out)]
    part = np.searchsorted([0.5, 0.6, 0.8], np.arange(len(frame)) / len(frame), side="right")
    return Events(
        frame=frame[kept],
        labels=_labels(attack, trace),
        split=_split(
            train=(part == 0) & attack.isna(),
            calibration=(part == 1) & attack.isna(),
            validation=part == 2,
            test=part == 3,
        ),
        entity=("http_request.url.path", "device.hostname"),
        **_origin([DEMO_SERVICE], [source]),
    )


def load_nsl_kdd() -> Events:
    """NSL-KDD: connections of a simulated network of 1998, each a row of 41 numbers and names, no times.

    Old, and known to every paper of the field. Normal rows of the published training file are learned (60 %),
    calibrate (15 %) and validate (25 %, with the file's attacks); the published test file is the test: 18 of
    its 37 kinds of attack are not in the training file. Rows (attacks): train 8,069, calibration 2,017,
    validation 15,106 (11,743), test 22,544 (12,833). Columns keep their names; an incident is one row.
    """
    try:
        read = [published(dataset) for dataset in NSL_KDD]
    except DataError as error:
        warn_of_stand_in("NSL-KDD", "rows", error, *NSL_KDD)
        return _stand_in(20_000)
    fields = [line.partition(",")[0] for line in read[0][0].decode().split()]
    parts = [pd.read_csv(io.BytesIO(text), names=[*fields, "attack", "level"]) for text, _ in read[1:]]
    raw = pd.concat(parts, ignore_index=True)
    attack = raw["attack"].where(raw["attack"] != "normal")
    old = np.arange(len(raw)) < len(parts[0])
    draw = pd.Series(np.random.default_rng(0).random(len(raw))).where(old & attack.isna()).rank(pct=True)
    return Events(
        frame=tidy(raw[fields]),
        labels=_labels(attack, _rows(raw)),
        split=_split(
            train=draw <= 0.6,
            calibration=(draw > 0.6) & (draw <= 0.75),
            validation=old & ~(draw <= 0.75),
            test=~old,
        ),
        entity=(),
        **_origin(NSL_KDD, [place for _, place in read]),
    )


def load_hdfs() -> Sessions:
    """Sessions of HDFS: for each block of a file system the keys of the 2 to 284 lines that were logged.

    Of 4,855 normal sessions 839 are distinct, of 16,838 anomalous ones 4,123, and none is both; by the counts
    of their keys alone 62 and 391 are. Equal sessions are on one side: 2,400 normal ones (226 distinct) are
    for learning, 600 for calibration, 600 and a tenth of the anomalous ones for validation, the rest (1,255
    and 15,155) for the test. The published file of further normal sessions is not used.
    """
    try:
        read = [published(dataset) for dataset in HDFS]
        lines: list[Any] = [[line.split() for line in text.decode().splitlines()] for text, _ in read]
        origin = _origin(HDFS, [place for _, place in read])
    except DataError as error:
        warn_of_stand_in("HDFS", "sessions", error, *HDFS)
        lines, origin = _synthetic_sessions((4_855, 1_000))
    every = [np.array(keys, dtype=np.int64) for part in lines for keys in part]
    abnormal = np.arange(len(every)) >= len(lines[0])
    distinct = pd.factorize(np.array([keys.tobytes() for keys in every], dtype=object))[0].astype(np.int64)
    room = {"train": [2400, 0], "calibration": [600, 0], "validation": [600, abnormal.sum() // 10]}
    part_of = np.empty(distinct.max() + 1, dtype=object)
    sizes, kinds = np.bincount(distinct), np.bincount(distinct, abnormal) > 0
    for group in np.random.default_rng(0).permutation(len(sizes)):
        size, kind = sizes[group], int(kinds[group])
        part_of[group] = next((part for part in room if room[part][kind] >= size), "test")
        if part_of[group] != "test":
            room[part_of[group]][kind] -= size
    return Sessions(
        tokens=np.concatenate(every),
        sessions=np.repeat(np.arange(len(every)), [len(keys) for keys in every]),
        abnormal=abnormal,
        distinct=distinct,
        split={part: np.flatnonzero(part_of[distinct] == part) for part in (*room, "test")},
        **origin,
    )


# ---------------------------------------------------------------- what they share


def _ocsf(frame: pd.DataFrame, *, class_uid: int, activity_id: int | pd.Series) -> pd.DataFrame:
    frame = frame.assign(class_uid=class_uid, activity_id=activity_id)
    return tidy(frame.assign(type_uid=100 * class_uid + frame["activity_id"]))


def _nearly_last(column: pd.Series) -> str:
    """The value that four fifths of a column, in the order of its values, are below."""
    return str(column.dropna().sort_values().iloc[int(0.8 * column.count())])


def _labels(attack: pd.Series, incident: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"attack": attack.astype("str"), "incident": incident.astype("str")})


def _rows(frame: pd.DataFrame) -> pd.Series:
    return pd.Series([f"row {row}" for row in range(len(frame))], frame.index)


def _split(**masks: Any) -> Split:
    return {name: np.flatnonzero(np.asarray(mask, dtype=bool)) for name, mask in masks.items()}


def _origin(datasets: Iterable[Dataset], places: Sequence[str]) -> dict[str, Any]:
    digest = hashlib.sha256("\n".join(dataset.sha256 or "" for dataset in datasets).encode()).hexdigest()
    return {"source": " and ".join(places), "digest": digest, "synthetic": False}


def _stand_in(num_events: int) -> Events:
    return generate_events(EventConfig(num_events=num_events))


def _synthetic_sessions(counts: Sequence[int]) -> tuple[list[Any], dict[str, Any]]:
    """Generated sessions, normal and anomalous: steps of a chain, of which anomalous ones repeat some."""
    rng = np.random.default_rng(0)
    lines: list[list[list[int]]] = []
    for abnormal, count in enumerate(counts):
        lines.append([])
        for size in rng.integers(8, 25, count):
            keys = np.sort(rng.integers(1, 21, size))
            lines[-1].append(np.repeat(keys, 1 + abnormal * (rng.random(size) < 0.2)).tolist())
    digest = hashlib.sha256(repr(lines).encode()).hexdigest()
    return lines, {"source": f"generated by {__name__}", "digest": digest, "synthetic": True}
