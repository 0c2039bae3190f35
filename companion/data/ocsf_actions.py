"""What happens in the generated events: actions, the sessions made of them, and the attacks.

The tables stand in ``synthetic_events.toml``. :mod:`companion.data.ocsf_plan` draws sessions from them.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

TABLES: dict[str, Any] = tomllib.loads(Path(__file__).with_name("synthetic_events.toml").read_text("utf8"))

FILE, PROCESS, ACCOUNT, AUTH, NETWORK, HTTP, DNS, API = 1001, 1007, 3001, 3002, 4001, 4002, 4003, 6003
CLASSES = {int(uid): name for uid, name in TABLES["classes"].items()}
CATEGORIES = {int(uid): name for uid, name in TABLES["categories"].items()}


@dataclass(frozen=True)
class Action:
    """One kind of event."""

    class_uid: int
    activity_id: int
    activity: str
    detail: str = ""  #: the operation, service or program, where the class has one
    fails: bool = False  #: whether its ``status_id`` is Failure rather than Success


@dataclass(frozen=True)
class Step:
    """Work that a session does between ``least`` and ``most`` times, or not at all."""

    action: str
    rank: int  #: its place in the order of the work; steps of one rank come in any order
    attack_rank: int  #: its place when the session is an order attack
    least: int = 1
    most: int = 1
    chance: float = 1.0  #: that it happens at all


@dataclass(frozen=True)
class SessionKind:
    """A kind of session."""

    steps: tuple[Step, ...] = ()  #: its work, in the normal order
    units: float = 12.0  #: mean number of background units around the work
    gap_seconds: float = 8.0  #: median time between two events
    console: bool = False  #: whether it happens on the cloud console, which knows no device


@dataclass(frozen=True)
class Attack:
    """A kind of attack."""

    #: ``"point"`` if single records are strange to anyone, ``"context"`` if they are strange for this entity
    #: or at this time only, ``"order"`` if no record is strange and only their order is
    shape: Literal["point", "context", "order"]
    kind: str  #: of session, in which it happens
    says: str
    #: what is put into the session, any of them; none if the whole session is the attack, or its order
    actions: tuple[str, ...] = ()
    least: int = 1  #: fewest records put in
    most: int = 1
    roles: tuple[str, ...] | None = None  #: who commits it; ``None`` for whoever has such sessions


ACTIONS = {name: Action(*row) for name, row in TABLES["actions"].items()}
NAMES = tuple(ACTIONS)
INDEX = {name: i for i, name in enumerate(NAMES)}
UNITS: dict[str, list[str]] = TABLES["units"]
BACKGROUND: dict[str, dict[str, float]] = TABLES["background"]
KINDS = {
    name: SessionKind(tuple(Step(*step) for step in row.pop("steps", ())), **row)
    for name, row in TABLES["kinds"].items()
}
KIND_NAMES = tuple(KINDS)
KIND_INDEX = {name: i for i, name in enumerate(KIND_NAMES)}
MIX: dict[str, dict[str, float]] = TABLES["mix"]
ATTACKS = {name: Attack(**row) for name, row in TABLES["attacks"].items()}
ATTACK_NAMES = tuple(ATTACKS)
ATTACK_INDEX = {name: i + 1 for i, name in enumerate(ATTACK_NAMES)}
"""Codes of the attacks; 0 is none."""
