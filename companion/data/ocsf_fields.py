"""The columns of the synthetic events, and what all classes of them have in common."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from companion.data.events import text_array
from companion.data.ocsf_actions import (
    ACCOUNT,
    ACTIONS,
    API,
    ATTACK_INDEX,
    AUTH,
    CATEGORIES,
    CLASSES,
    DNS,
    FILE,
    HTTP,
    INDEX,
    NAMES,
    NETWORK,
    PROCESS,
    TABLES,
)
from companion.data.ocsf_plan import Plan
from companion.data.ocsf_world import COUNTRIES, ROLES, World

VERSION = "1.8.0"
Kind = Literal["integer", "number", "flag", "text"]

_KINDS: dict[str, Kind] = {name: kind for kind, names in TABLES["fields"].items() for name in names}
FIELDS = {name: _KINDS[name] for name in sorted(_KINDS)}
"""What each column of the synthetic events holds."""

_OLD_SENSORS_LACK = ("device.os.version", "process.integrity_id", "process.integrity", "file.modified_time",
                     "actor.process.pid", "process.file.size", "device.is_managed")  # fmt: skip
_PRODUCTS = {int(uid): row for uid, row in TABLES["products"].items()}
_PROFILES = {API: ("cloud", "host")} | dict.fromkeys((HTTP, NETWORK), ("host", "security_control"))
_FAILURES = {int(uid): share for uid, share in TABLES["failures"].items()}
_SEVERITIES = np.array(["Unknown", "Informational", "Low", "Medium"], dtype=object)
_SYSTEMS = (("Windows", 100), ("Linux", 200), ("macOS", 300))
_RELEASES = (("11 24H2", "11 23H2", "10 22H2", "11 25H2"), ("6.8.0", "5.15.0", "6.12.1", "6.1.0"),
             ("15.6", "26.1", "14.7", "15.7"))  # fmt: skip


def texts(values: Any) -> np.ndarray:
    """Texts as an object array."""
    return np.array(values, dtype=object)


class Block:
    """The events ``rows`` (n) of a plan on their way to a frame; all attributes are arrays (n)."""

    def __init__(self, plan: Plan, world: World, rows: np.ndarray, rng: np.random.Generator) -> None:
        self.plan, self.world, self.rng, self.size = plan, world, rng, len(rows)
        self.session, self.action = plan.session[rows], plan.action[rows]
        self.time, self.topic, self.attack = plan.time[rows], plan.topic[rows], plan.attack[rows]
        sessions = plan.sessions
        self.user, self.host = sessions.user[self.session], sessions.host[self.session]
        self.country, self.remote = sessions.country[self.session], sessions.remote[self.session]
        self.address = sessions.address[self.session]
        self.class_uid = _CLASS_OF[self.action]
        self.failed = _FAILS[self.action] | (rng.random(self.size) < _by_class(_FAILURES)[self.class_uid])
        self._columns: dict[str, np.ndarray] = {}

    def rows(self, *classes: int) -> np.ndarray:
        """The events of these classes."""
        return np.flatnonzero(np.isin(self.class_uid, classes))

    def does(self, rows: np.ndarray, *actions: str) -> np.ndarray:
        """Which of these events are one of these actions; bool."""
        return np.isin(self.action[rows], [INDEX[action] for action in actions])

    def is_attack(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Which of these events were put in by that attack; bool."""
        return np.asarray(self.attack[rows] == ATTACK_INDEX[name])

    def draw(self, rows: np.ndarray) -> np.ndarray:
        """A number in [0, 1) for each of these events."""
        return self.rng.random(len(rows))

    def put(self, name: str, rows: np.ndarray, values: Any) -> None:
        """Set a field of these events; texts, or numbers of any kind."""
        column = self._columns.get(name)
        if column is None:
            column = np.full(self.size, None if FIELDS[name] == "text" else np.nan)
            self._columns[name] = column
        column[rows] = values

    def put_all(self, rows: np.ndarray, **values: Any) -> None:
        """Set several fields; ``__`` in a name stands for a dot."""
        for name, value in values.items():
            self.put(name.replace("__", "."), rows, value)

    def identifiers(self, rows: np.ndarray, num_bytes: int = 8) -> np.ndarray:
        """A random hexadecimal text for each of these events."""
        digits, width = self.rng.bytes(num_bytes * len(rows)).hex(), 2 * num_bytes
        return texts([digits[i : i + width] for i in range(0, len(digits), width)])

    def frame(self, first: int) -> pd.DataFrame:
        """All fields, those that nothing has set missing; the index begins with ``first``."""
        self._forget()
        arrays: dict[str, Any] = {}
        for name, kind in FIELDS.items():
            column = self._columns.get(name)
            if kind == "text":
                arrays[name] = text_array(texts([None]).repeat(self.size) if column is None else column)
                continue
            column = np.full(self.size, np.nan) if column is None else column
            missing = np.isnan(column)
            content = np.where(missing, 0, column).astype(np.int64 if kind == "integer" else bool)
            array = pd.arrays.IntegerArray if kind == "integer" else pd.arrays.BooleanArray
            arrays[name] = array(content, missing)
        return pd.DataFrame(arrays, index=pd.RangeIndex(first, first + self.size))

    def _forget(self) -> None:
        for name, rate in TABLES["forgotten"].items():
            if name in self._columns:
                rows = np.flatnonzero(self.rng.random(self.size) < rate)
                self.put(name, rows, None if FIELDS[name] == "text" else np.nan)
        old = np.flatnonzero((self.host >= 0) & self.world.old_sensor[self.host])
        for name in _OLD_SENSORS_LACK:
            if name in self._columns:
                self.put(name, old, None if FIELDS[name] == "text" else np.nan)


_CLASS_OF = np.array([ACTIONS[name].class_uid for name in NAMES])
_ACTIVITY_OF = np.array([ACTIONS[name].activity_id for name in NAMES])
_ACTIVITY_NAME = texts([ACTIONS[name].activity for name in NAMES])
_FAILS = np.array([ACTIONS[name].fails for name in NAMES])


def _by_class(values: dict[int, Any]) -> np.ndarray:
    """A table to look values up by ``class_uid``."""
    table = np.full(max(CLASSES) + 1, None if isinstance(next(iter(values.values())), str) else 0.0)
    for class_uid, value in values.items():
        table[class_uid] = value
    return table


def put_base(block: Block) -> None:
    """The attributes of every class: what, when, how grave, by whom recorded (OCSF base event)."""
    rows, classes = np.arange(block.size), block.class_uid
    activity = _ACTIVITY_OF[block.action]
    product = [_by_class({c: row[i] for c, row in _PRODUCTS.items()})[classes] for i in range(3)]
    block.put_all(
        rows,
        activity_id=activity,
        activity_name=_ACTIVITY_NAME[block.action],
        category_uid=classes // 1000,
        category_name=_by_class({c: CATEGORIES[c // 1000] for c in CLASSES})[classes],
        class_uid=classes,
        class_name=_by_class(CLASSES)[classes],
        type_uid=classes * 100 + activity,
        time=block.time,
        status_id=np.where(block.failed, 2, 1),
        status=np.where(block.failed, "Failure", "Success").astype(object),
        timezone_offset=np.array([minutes for _, _, minutes in COUNTRIES])[block.world.country[block.user]],
        metadata__version=VERSION,
        metadata__uid=block.identifiers(rows),
        metadata__logged_time=block.time + (1000 * block.rng.lognormal(0.5, 0.8, block.size)).astype(int),
        metadata__product__name=product[0],
        metadata__product__vendor_name=product[1],
        metadata__log_name=product[2],
        metadata__product__version=texts(["5.2.0", "5.3.1", "4.9.8"])[
            np.where(block.world.old_sensor[block.host] & (block.host >= 0), 2, (classes % 2))
        ],
    )
    profiles = {c: _PROFILES.get(c, ("host",)) for c in CLASSES}
    counts = _by_class({c: float(len(p)) for c, p in profiles.items()})
    block.put("metadata.profiles.#", rows, counts[classes])
    block.put("metadata.profiles.0", rows, _by_class({c: p[0] for c, p in profiles.items()})[classes])
    two = block.rows(API, HTTP, NETWORK)
    block.put("metadata.profiles.1", two, _by_class({c: p[-1] for c, p in profiles.items()})[classes[two]])
    grave = np.where(block.failed & (block.rng.random(block.size) < 0.7), 2, 1)
    grave = np.where((classes == ACCOUNT) & (block.rng.random(block.size) < 0.2), 2, grave)
    grave = np.where(block.rng.random(block.size) < 0.01, 3, grave)
    block.put_all(rows, severity_id=grave, severity=_SEVERITIES[grave])


def session_names(block: Block, rows: np.ndarray) -> np.ndarray:
    """The name of each event's session."""
    sessions, place = np.unique(block.session[rows], return_inverse=True)
    return texts([f"s-{uid:016x}" for uid in block.plan.sessions.uid[sessions].tolist()])[place]


def user_types(world: World) -> np.ndarray:
    """``user.type_id`` of each user: 1 User, 2 Admin, 4 Service."""
    return np.asarray(np.array([{"admin": 2, "service": 4}.get(role, 1) for role in ROLES])[world.role])


def put_actor(block: Block) -> None:
    """Who does it; flows, names and pages are not always traced to a user."""
    world = block.world
    rows = block.rows(FILE, PROCESS, ACCOUNT, API, NETWORK, HTTP, DNS)
    traced = np.isin(block.class_uid[rows], (FILE, PROCESS, ACCOUNT, API)) | (block.draw(rows) < 0.8)
    rows = rows[traced]
    user = block.user[rows]
    block.put_all(
        rows,
        actor__user__name=world.user_name[user],
        actor__user__uid=world.user_uid[user],
        actor__user__type_id=user_types(world)[user],
        actor__session__uid=session_names(block, rows),
        actor__session__is_remote=block.remote[rows],
    )


def put_device(block: Block) -> None:
    """The machine, where one is known; network sensors know it not always."""
    world = block.world
    network = np.isin(block.class_uid, (NETWORK, HTTP, DNS))
    rows = np.flatnonzero((block.host >= 0) & (~network | (block.rng.random(block.size) < 0.7)))
    host = block.host[rows]
    system = world.host_os[host]
    block.put_all(
        rows,
        device__hostname=world.hostname[host],
        device__ip=world.host_ip[host],
        device__uid=texts([f"d-{i * 7919 % 1_000_003:06d}" for i in range(len(world.hostname))])[host],
        device__type_id=world.host_kind[host],
        device__type=np.where(world.host_kind[host] == 1, "Server", "Laptop").astype(object),
        device__is_managed=(host % 11) > 0,
        device__os__name=texts([name for name, _ in _SYSTEMS])[system],
        device__os__type_id=np.array([uid for _, uid in _SYSTEMS])[system],
        device__os__version=texts(_RELEASES)[system, world.host_release[host]],
    )


def put_source(block: Block) -> None:
    """Where a request comes from: inside by the machine's address, outside by the country's."""
    world = block.world
    rows = block.rows(AUTH, ACCOUNT, API, NETWORK, HTTP, DNS)
    user, host, country = block.user[rows], block.host[rows], block.country[rows]
    # also those who are away use the company's net
    inner = np.isin(block.class_uid[rows], (NETWORK, HTTP, DNS))
    outside = (block.remote[rows] | (host < 0)) & ~(inner & (host >= 0))
    gate = np.where(block.remote[rows], block.address[rows], 0)  # the office's own address is its first
    public = world.addresses[country, gate]
    block.put_all(
        rows,
        src_endpoint__ip=np.where(outside, public, world.host_ip[np.maximum(host, 0)]),
        src_endpoint__port=1024 + np.floor(block.draw(rows) * 64_000),
        src_endpoint__network_scope_id=np.where(outside, 2, 1),
    )
    named = rows[~outside]
    block.put("src_endpoint.hostname", named, world.hostname[block.host[named]])
    located = np.flatnonzero(~inner & (block.draw(rows) > 0.06))  # the look-up of places fails at times
    place = np.where(outside, country, world.country[user])[located]
    block.put_all(
        rows[located],
        src_endpoint__location__country=texts([code for code, _, _ in COUNTRIES])[place],
        src_endpoint__location__city=texts([city for _, city, _ in COUNTRIES])[place],
    )
