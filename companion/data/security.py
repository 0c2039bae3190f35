"""Real, labelled security data, or generated ones with a warning: what carries the label is no column.

Logs become OCSF by one small table each, in ``ocsf_mappings.toml`` beside this file.
"""

import io
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from companion.data.download import REGISTRY, Dataset, read_members, read_or_warn, read_published
from companion.data.event_files import read_events
from companion.data.events import PARTS, Events, tidy
from companion.data.synthetic_events import EventConfig, generate_events

ZEEK = {name: REGISTRY[f"zeek-{name}"] for name in ("008", "010", "011", "012")}
CLOUDTRAIL, DEMO_SERVICE = REGISTRY["cloudtrail"], REGISTRY["ocsf-logs"]
NSL_KDD = tuple(REGISTRY[f"nsl-kdd-{part}"] for part in ("fields", "train", "test"))

TABLES = tomllib.loads(Path(__file__).with_name("ocsf_mappings.toml").read_text("utf8"))
ZEEK_TO_OCSF: dict[str, str] = TABLES["zeek"]  #: conn.log's fields as Network Activity's (4001)
CLOUDTRAIL_TO_OCSF: dict[str, str] = TABLES["cloudtrail"]  #: a record's fields as API Activity's (6003)
DEMO_LEFT_OUT: dict[str, str] = TABLES["demo_left_out"]  #: fields that are no columns, and why
DEMO_JSON: list[str] = TABLES["demo_json"]["fields"]  #: those that hold objects as JSON text


def load_zeek() -> Events:
    """Network flows of four hosts of a university network, each captured for a day, and attacks on them.

    Detectors learn from the hosts 008 and 010 (the last hours calibrate), are chosen on 012 and tested on
    011: other hosts and, for validation, another week of June 2022. Host 008 is unlike the others: a fifth of
    its flows go to port 8883. Attacks are not rare here. Flows without a label ("Background") are left out.

    An attack is each flow that came from outside to the host. So the label is the direction, and who began a
    flow is left out: ``local_orig``, ``local_resp`` and both addresses. The address of the other side is
    ``unmapped.peer_ip``, the entity; an incident is all that one address did to one host.
    """
    contents, about = read_or_warn("The Zeek log", "events", read_published, *ZEEK.values())
    if contents is None:
        return generate_events(EventConfig(15_000))
    logs = zip(ZEEK, contents, strict=True)
    raw = pd.concat([_zeek(content).assign(capture=name) for name, content in logs])
    raw = raw[raw["label"] != "Background"].sort_values("ts", kind="stable", ignore_index=True)
    host = raw.groupby("capture")["id.orig_h"].transform(lambda column: column.mode()[0])
    peer = raw["id.orig_h"].where(raw["id.orig_h"] != host, raw["id.resp_h"])
    attack = raw["label"] == "Malicious"
    hour = pd.to_datetime(raw["ts"], unit="s").dt.strftime("%dT%H")
    flows = raw["capture"] + "/" + peer.where(attack, hour)
    learned = raw["capture"].isin(["008", "010"]) & ~attack
    late = hour >= raw["capture"].map(hour[learned].groupby(raw["capture"]).agg(_nearly_last))
    changed = {"time": (raw["ts"] * 1000).round(), "duration": raw["duration"] * 1000}
    frame = _ocsf(raw, ZEEK_TO_OCSF, 4001, 6, **changed, **{"unmapped.peer_ip": peer})
    parts = learned & ~late, learned & late, raw["capture"] == "012", raw["capture"] == "011"
    attack = raw["detailedlabel"].where(attack)
    return _events(frame, attack, flows, parts, ("unmapped.peer_ip",), about)


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
    the tool up to 12:14 for validation, all after that for the test: no run is on two sides. So the time of
    day tells something on validation calls alone.
    """
    contents, about = read_or_warn("The CloudTrail log", "events", read_real, CLOUDTRAIL)
    if contents is None:
        return generate_events(EventConfig(3_000))
    fields = {name.partition(".")[0] for name in CLOUDTRAIL_TO_OCSF} | {"userAgent"}
    records = [json.loads(line) for line in contents[0].splitlines()]
    kept = [{n: r.get(n) for n in fields} | {"time": r["eventTime"]} for r in records]
    raw = _flat("\n".join(map(json.dumps, kept)).encode())
    raw = raw.sort_values(["eventTime", "eventID"], ignore_index=True)
    run = raw["userAgent"].str.extract(r"^\[?stratus-red-team_([0-9a-f-]{36})\]?$")[0]
    attack, clock = run.notna(), raw["eventTime"].str[11:16]
    learned = ~attack & (clock < "12:06")
    late = clock >= _nearly_last(clock[learned])
    verb = raw["eventName"].str.extract(r"^([A-Z][a-z]+)")[0]
    activity = verb.map(TABLES["activities"]).fillna(99).astype(int)
    frame = _ocsf(raw, CLOUDTRAIL_TO_OCSF, 6003, activity, time=raw["time"])
    parts = learned & ~late, learned & late, (clock < "12:14") & ~learned, clock >= "12:14"
    technique = pd.Series("technique", raw.index).where(attack)
    return _events(frame, technique, run.fillna(clock), parts, ("actor.user.uid", "src_endpoint.ip"), about)


def read_real(dataset: Dataset) -> tuple[bytes, str]:
    """The records of the CloudTrail files as JSON Lines, and where they came from."""

    def extract(path: Path) -> bytes:
        files = read_members(path, r"/CloudTrail/.*?([^/]+\.json)$")
        records = [record for name in sorted(files) for record in json.loads(files[name])["Records"]]
        return "".join(json.dumps(record) + "\n" for record in records).encode()

    return read_published(dataset, extract)


def load_demo_service() -> Events:
    """API events of a demo service under a load generator with injected sleeps, two hours of them.

    Of a request with a fault the service logged a second event, which says that all went well, with the same
    ``trace_id`` and nearly the same duration (204 of 277 faults have one): these twins are left out. So are
    the fields of ``DEMO_LEFT_OUT``. The events are almost OCSF 1.0.0: ``api`` is missing, and those that the
    database wrote have no actor and no source.

    Split by time, 50, 10, 20 and 20 %; the 159 faults of the first two parts are not used.
    """
    contents, about = read_or_warn("The log of the demo service", "events", read_published, DEMO_SERVICE)
    if contents is None:
        return generate_events(EventConfig(27_000))
    frame = _flat(contents[0], DEMO_JSON)
    faulty = frame["anomaly.type"].notna()
    twins = frame["trace_id"].isin(frame["trace_id"][faulty].dropna()) & ~faulty
    frame = frame[~twins].reset_index(drop=True)
    attack, trace = frame["anomaly.type"], frame["trace_id"].fillna(_rows(frame))
    copies = tuple(f"{name.removesuffix('s')}_" for name in DEMO_JSON)  # flat copies of what these hold
    left_out = (*(f"{name}." for name in DEMO_LEFT_OUT), *copies)
    kept = [name for name in frame.columns if not f"{name}.".startswith(left_out)]
    part = np.searchsorted([0.5, 0.6, 0.8], np.arange(len(frame)) / len(frame), side="right")
    parts = (part == 0) & attack.isna(), (part == 1) & attack.isna(), part == 2, part == 3
    return _events(frame[kept], attack, trace, parts, ("http_request.url.path", "device.hostname"), about)


def load_nsl_kdd() -> Events:
    """NSL-KDD: connections of a simulated network of 1998, each a row of 41 numbers and names, no times.

    Old, and known to every paper of the field. Normal rows of the published training file are learned (60 %),
    calibrate (15 %) and validate (25 %, with the file's attacks); the published test file is the test: 18 of
    its 37 kinds of attack are not in the training file. Columns keep their names; an incident is one row.
    """
    contents, about = read_or_warn("NSL-KDD", "rows", read_published, *NSL_KDD)
    if contents is None:
        return generate_events(EventConfig(20_000))
    names, *texts = contents
    fields = [line.partition(",")[0] for line in names.decode().split()]
    files = [pd.read_csv(io.BytesIO(text), names=[*fields, "attack", "level"]) for text in texts]
    raw = pd.concat(files, ignore_index=True)
    attack = raw["attack"].where(raw["attack"] != "normal")
    old = np.arange(len(raw)) < len(files[0])
    draw = pd.Series(np.random.default_rng(0).random(len(raw))).where(old & attack.isna()).rank(pct=True)
    parts = draw <= 0.6, (draw > 0.6) & (draw <= 0.75), old & ~(draw <= 0.75), ~old
    return _events(tidy(raw[fields]), attack, _rows(raw), parts, (), about)


def _flat(content: bytes, json_columns: Sequence[str] = ()) -> pd.DataFrame:
    """The columns of a file of events, as :func:`companion.data.event_files.read_events` reads it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "events"
        path.write_bytes(content)
        return read_events(path, json_columns=json_columns)[0]


def _ocsf(
    raw: pd.DataFrame, names: dict[str, str], class_uid: int, activity_id: int | pd.Series, **columns: Any
) -> pd.DataFrame:
    """The columns of ``raw`` under their names in OCSF, and further ones."""
    kinds = {"class_uid": class_uid, "activity_id": activity_id, "type_uid": 100 * class_uid + activity_id}
    return tidy(raw[[*names]].rename(columns=names).assign(**columns, **kinds))


def _events(
    frame: pd.DataFrame, attack: pd.Series, incident: pd.Series, parts: Sequence[Any],
    entity: tuple[str, ...], origin: dict[str, Any],
) -> Events:  # fmt: skip
    """Labelled events; ``parts``, bool (N,), say which rows are for training, calibration and so on."""
    labels = pd.DataFrame({"attack": attack.astype("str"), "incident": incident.astype("str")})
    rows = [np.flatnonzero(np.asarray(part, dtype=bool)) for part in parts]
    return Events(frame, labels, dict(zip(PARTS, rows, strict=True)), entity, **origin)


def _nearly_last(column: pd.Series) -> str:
    """The value that four fifths of a column, in the order of its values, are below."""
    return str(column.dropna().sort_values().iloc[int(0.8 * column.count())])


def _rows(frame: pd.DataFrame) -> pd.Series:
    return pd.Series([f"row {row}" for row in range(len(frame))], frame.index)
