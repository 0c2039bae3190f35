"""Who does what when: the synthetic events before they have fields.

Sessions are drawn first, then their actions, then an order for them, then times. An order attack is a
session drawn like any other, whose work is put into another order at that point and nowhere else: its
actions, its times and everything that is filled in later are distributed as in normal sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np

from companion.data.ocsf_actions import (
    ATTACK_INDEX,
    ATTACKS,
    BACKGROUND,
    INDEX,
    KIND_INDEX,
    KIND_NAMES,
    KINDS,
    MIX,
    UNITS,
    Attack,
)
from companion.data.ocsf_world import COUNTRIES, ROLES, World

DAY_MS = 86_400_000
_START, _END = -2.0, 100.0
_RANKS = 6.0
"""Background units fall anywhere among this many ranks of work."""


@dataclass(frozen=True)
class Sessions:
    """Sessions as parallel arrays of length S."""

    user: np.ndarray  #: index of the user
    kind: np.ndarray  #: index of ``KIND_NAMES``
    host: np.ndarray  #: where the user works; -1 where no device is known
    country: np.ndarray  #: where the user is
    remote: np.ndarray  #: whether the user comes in from outside
    address: np.ndarray  #: index among the public addresses of that country
    start: np.ndarray  #: milliseconds since 1970
    topic: np.ndarray  #: in [0, 1); what the session's work is about
    uid: np.ndarray  #: a random number that names it
    attack: np.ndarray  #: code of the attack that the session is, or holds; 0 for none


@dataclass(frozen=True)
class Plan:
    """Events as parallel arrays of length N, in the order of their times."""

    sessions: Sessions  #: the sessions that they belong to
    session: np.ndarray  #: index of each event's session
    action: np.ndarray  #: index of ``NAMES``
    time: np.ndarray  #: milliseconds since 1970
    #: in [0, 1); events of one unit share it, so a page follows the name that was looked up
    topic: np.ndarray
    attack: np.ndarray  #: code of the attack that the event belongs to; 0 for none


@dataclass
class _Steps:
    """Actions before they have times: parallel arrays."""

    session: np.ndarray
    action: np.ndarray
    key: np.ndarray
    topic: np.ndarray
    attack: np.ndarray
    burst: np.ndarray

    def take(self, rows: np.ndarray) -> _Steps:
        return _Steps(*(getattr(self, f.name)[rows] for f in fields(_Steps)))


def make_plan(
    world: World,
    rng: np.random.Generator,
    *,
    num_events: int,
    start: int,
    days: float,
    attack_share: float,
    attacks: Sequence[str],
) -> Plan:
    """Draw the events of some days from ``start`` on (milliseconds since 1970); see ``EventConfig``."""
    incidents = _num_incidents(num_events, attack_share, attacks)
    drawer = _Drawer(world, rng, start, days)
    parts = [drawer.attacked(name, incidents) for name in attacks] if incidents else []
    steps = [_lay_out(sessions, first, world, rng) for sessions, first in drawer.drawn]
    count = sum(len(part.session) for part in steps)
    while count < num_events:
        drawer.normal(int((num_events - count) / 15) + 50)
        steps.append(_lay_out(*drawer.drawn[-1], world, rng))
        count += len(steps[-1].session)
    sessions = _join([part for part, _ in drawer.drawn])
    laid = _join([*steps, *(part for part in parts if part is not None)])
    laid = laid.take(np.lexsort((laid.key, laid.session)))
    time = _times(laid, sessions, rng)
    order = np.argsort(time[:num_events], kind="stable")  # attacks come first, so that none is cut off
    laid = laid.take(order)
    return Plan(sessions, laid.session, laid.action, time[order], laid.topic, laid.attack)


def _num_incidents(num_events: int, share: float, attacks: Sequence[str]) -> int:
    if not attacks or share <= 0:
        return 0
    return max(1, round(num_events * share / sum(_mean_records(ATTACKS[name]) for name in attacks)))


def _mean_records(attack: Attack) -> float:
    kind = KINDS[attack.kind]
    if attack.actions:
        return (attack.least + attack.most) / 2
    if attack.shape == "order":
        return sum(step.chance * (step.least + step.most) / 2 for step in kind.steps)
    return 2 + 1.35 * (1 + kind.units)


_Arrays = TypeVar("_Arrays", Sessions, _Steps)


def _join(parts: Sequence[_Arrays]) -> _Arrays:
    kind = type(parts[0])
    return kind(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(kind)))


class _Drawer:
    """Draws sessions; ``drawn`` holds them with the number of the first of each part."""

    def __init__(self, world: World, rng: np.random.Generator, start: int, days: float) -> None:
        self.world, self.rng, self.start, self.days = world, rng, start, days
        self.drawn: list[tuple[Sessions, int]] = []
        self._count = 0
        shares = np.array([[MIX[role].get(kind, 0.0) for kind in KIND_NAMES] for role in ROLES])
        self._joint = world.activity[:, None] * shares[world.role]  # (U, kinds)
        self._away = rng.random((world.num_users, int(np.ceil(days / 7)))) < 0.1  # by user and week

    def normal(self, count: int) -> int:
        """Draw sessions as the habits have it; return the number of the first one."""
        chosen = self.rng.choice(self._joint.size, count, p=(self._joint / self._joint.sum()).ravel())
        user, kind = np.divmod(chosen, self._joint.shape[1])
        return self._keep(self._dress(user, kind))

    def attacked(self, name: str, count: int) -> _Steps | None:
        """Draw the sessions of an attack; return the actions that it puts into them, if any."""
        attack, code, world, rng = ATTACKS[name], ATTACK_INDEX[name], self.world, self.rng
        kind = KIND_INDEX[attack.kind]
        weight = self._joint[:, kind].copy()
        if attack.roles is not None:
            weight *= np.isin(world.role, [ROLES.index(role) for role in attack.roles])
        user = rng.choice(world.num_users, count, p=weight / weight.sum())
        sessions = self._dress(user, np.full(count, kind))
        sessions.attack[:] = code
        if name in ("impossible_travel", "odd_hour_new_country"):
            self._from_abroad(sessions, name)
        first = self._keep(sessions)
        if not attack.actions:
            return None
        times = rng.integers(attack.least, attack.most + 1, count)
        session = np.repeat(np.arange(count), times)
        nth = np.arange(len(session)) - np.repeat(np.cumsum(times) - times, times)
        choices = np.array([INDEX[action] for action in attack.actions])
        return _Steps(
            session=first + session,
            action=rng.choice(choices, len(session)),
            key=(rng.random(count) * _RANKS)[session] + 1e-6 * nth,
            topic=rng.random(len(session)),
            attack=np.full(len(session), code),
            burst=(nth > 0) & (attack.most > 5),
        )

    def _from_abroad(self, sessions: Sessions, name: str) -> None:
        world, rng, user = self.world, self.rng, sessions.user
        count = len(user)
        sessions.country[:] = self._strange_country(user)
        sessions.remote[:] = True
        sessions.address[:] = rng.integers(0, 120, count)
        if name == "impossible_travel":
            home = self._dress(user, np.full(count, KIND_INDEX["office"]))
            home.country[:], home.remote[:] = world.country[user], False
            self._keep(home)
            sessions.start[:] = home.start + rng.integers(5, 55, count) * 60_000
        else:
            day = rng.integers(0, max(1, int(self.days)), count)
            local = world.start_minute[user] - rng.uniform(200, 480, count)
            sessions.start[:] = self._moment(day, local, user)

    def _strange_country(self, user: np.ndarray) -> np.ndarray:
        """For each user a country that colleagues live in or travel to, but never this user."""
        world, rng = self.world, self.rng
        weight = (world.activity * ~world.is_service)[:, None] * np.stack(
            [np.full(world.num_users, 0.3), self._away.sum(axis=1)], axis=1
        )
        places = np.stack([world.country, world.second_country], axis=1).ravel()
        drawn = rng.choice(places, (len(user), 64), p=weight.ravel() / weight.sum())
        strange = (drawn != world.country[user][:, None]) & (drawn != world.second_country[user][:, None])
        return np.asarray(drawn[np.arange(len(user)), strange.argmax(axis=1)])

    def _keep(self, sessions: Sessions) -> int:
        first = self._count
        self.drawn.append((sessions, first))
        self._count += len(sessions.user)
        return first

    def _dress(self, user: np.ndarray, kind: np.ndarray) -> Sessions:
        """Sessions of these users and kinds with everything that their habits decide."""
        world, rng, count = self.world, self.rng, len(user)
        service = world.is_service[user]
        day, start = self._when(user)
        away = self._away[user, np.minimum(day // 7, self._away.shape[1] - 1)] & ~service
        country = np.where(away, world.second_country[user], world.country[user])
        remote = (away | (rng.random(count) < 0.35)) & ~service
        address = np.where(away, (world.home_address[user] + 7 * (day // 7)) % 120, world.home_address[user])
        address = np.where(rng.random(count) < 0.15, rng.integers(0, 120, count), address)  # a café, a train
        usual = world.servers[user, rng.integers(0, 2, count)]
        host = np.where(service | (rng.random(count) < 0.08), usual, user)
        console = np.array([KINDS[name].console for name in KIND_NAMES])[kind]
        return Sessions(
            user=user,
            kind=kind,
            host=np.where(console, -1, host),
            country=country,
            remote=remote,
            address=address,
            start=start,
            topic=rng.random(count),
            uid=rng.integers(0, 2**62, count),
            attack=np.zeros(count, dtype=np.int64),
        )

    def _when(self, user: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Days and starts: working hours with a lunch dip, weekends by habit, now and then at any hour."""
        world, rng, count = self.world, self.rng, len(user)
        days = max(1, int(np.ceil(self.days)))
        weekday = (np.arange(days) + self.start // DAY_MS + 3) % 7  # 1 January 1970 was a Thursday
        weekend = weekday >= 5
        total = (~weekend).sum() + weekend.sum() * world.weekend[user]
        point = rng.random(count) * total
        on_weekday = point < (~weekend).sum()
        later = (point - (~weekend).sum()) / np.maximum(world.weekend[user], 1e-9)
        nth = np.where(on_weekday, point, later).astype(np.int64)
        order = np.concatenate([np.flatnonzero(~weekend), np.flatnonzero(weekend)])
        day = order[np.minimum(np.where(on_weekday, nth, nth + (~weekend).sum()), days - 1)]
        morning = rng.random(count) < 0.55
        share = np.where(morning, 0.45 * rng.beta(1.3, 1.8, count), 0.55 + 0.45 * rng.beta(1.5, 1.6, count))
        local = world.start_minute[user] + share * world.work_minutes[user]
        local = np.where(rng.random(count) < 0.04, rng.uniform(0, 1440, count), local)
        hourly = rng.integers(0, 24, count) * 60 + rng.exponential(3.0, count)  # a timer starts these
        local = np.where(world.is_service[user], hourly, local)
        return day, self._moment(day, local, user)

    def _moment(self, day: np.ndarray, local_minute: np.ndarray, user: np.ndarray) -> np.ndarray:
        offset = np.array([minutes for _, _, minutes in COUNTRIES])[self.world.country[user]]
        minute = day * 1440 + local_minute - offset
        minute = np.mod(minute, self.days * 1440)  # what falls outside comes in again at the other end
        return np.asarray(self.start + minute * 60_000, dtype=np.int64)


# ---------------------------------------------------------------- what happens in a session


def _lay_out(sessions: Sessions, first: int, world: World, rng: np.random.Generator) -> _Steps:
    """Logons, work and background of the sessions, with the keys that put them in order."""
    parts = [_logons(sessions, world, rng), _background(sessions, world, rng)]
    for kind, name in enumerate(KIND_NAMES):
        chosen = np.flatnonzero(sessions.kind == kind)
        if len(chosen) and KINDS[name].steps:
            parts.append(_work(sessions, chosen, name, rng))
    steps = _join(parts)
    whole = np.array([not attack.actions and attack.shape != "order" for attack in ATTACKS.values()])
    foreign = np.concatenate([[False], whole])[sessions.attack[steps.session]]
    steps.attack = np.where(foreign, sessions.attack[steps.session], steps.attack)
    steps.session = steps.session + first
    return steps


def _work(sessions: Sessions, chosen: np.ndarray, name: str, rng: np.random.Generator) -> _Steps:
    """The steps of sessions of one kind, in the normal order or in that of the attack."""
    parts = []
    ordered = np.array([attack.shape == "order" for attack in ATTACKS.values()])
    attack = np.where(np.concatenate([[False], ordered])[sessions.attack[chosen]], sessions.attack[chosen], 0)
    for step in KINDS[name].steps:
        times = rng.integers(step.least, step.most + 1, len(chosen)) * (rng.random(len(chosen)) < step.chance)
        rows = np.repeat(np.arange(len(chosen)), times)
        rank = np.where(attack[rows] > 0, step.attack_rank, step.rank)
        parts.append(
            _Steps(
                session=chosen[rows],
                action=np.full(len(rows), INDEX[step.action]),
                key=rank + 0.9 * rng.random(len(rows)),
                topic=sessions.topic[chosen[rows]],
                attack=attack[rows],
                burst=np.zeros(len(rows), dtype=bool),
            )
        )
    return _join(parts)


def _logons(sessions: Sessions, world: World, rng: np.random.Generator) -> _Steps:
    """Mistyped passwords, the logon, and mostly a logoff; service accounts ask for a ticket instead."""
    count = len(sessions.user)
    service = world.is_service[sessions.user]
    typos = np.where(~service & (rng.random(count) < 0.12), rng.integers(1, 4, count), 0)
    off = np.flatnonzero(~service & (rng.random(count) < 0.8))
    session = np.concatenate([np.repeat(np.arange(count), typos), np.arange(count), off])
    action = np.concatenate(
        [
            np.full(typos.sum(), INDEX["logon_fail"]),
            np.where(service, INDEX["ticket"], INDEX["logon"]),
            np.full(len(off), INDEX["logoff"]),
        ]
    )
    key = np.concatenate([np.full(typos.sum(), _START - 1), np.full(count, _START), np.full(len(off), _END)])
    nothing = np.zeros(len(session), dtype=np.int64)
    return _Steps(session, action, key, rng.random(len(session)), nothing, nothing.astype(bool))


def _background(sessions: Sessions, world: World, rng: np.random.Generator) -> _Steps:
    means = np.array([KINDS[name].units for name in KIND_NAMES])[sessions.kind]
    count = 1 + rng.negative_binomial(2, 2 / (2 + means))
    session = np.repeat(np.arange(len(count)), count)
    names = tuple(UNITS)
    unit = np.zeros(len(session), dtype=np.int64)
    console = np.array([KINDS[name].console for name in KIND_NAMES])[sessions.kind]
    group = np.where(console, len(ROLES), world.role[sessions.user])[session]
    for index, weights in enumerate(BACKGROUND[role] for role in (*ROLES, "cloud")):
        rows = np.flatnonzero(group == index)
        shares = np.array([weights.get(name, 0.0) for name in names])
        unit[rows] = rng.choice(len(names), len(rows), p=shares / shares.sum())
    key, topic = _RANKS * rng.random(len(session)), rng.random(len(session))
    first = np.array([INDEX[UNITS[name][0]] for name in names])
    second = np.array([INDEX[UNITS[name][1]] if len(UNITS[name]) > 1 else -1 for name in names])
    pair = np.flatnonzero(second[unit] >= 0)
    action = np.concatenate([first[unit], second[unit[pair]]])
    key = np.concatenate([key, key[pair] + 0.15 * rng.random(len(pair))])
    session, topic = (np.concatenate([column, column[pair]]) for column in (session, topic))
    nothing = np.zeros(len(session), dtype=np.int64)
    return _Steps(session, action, key, topic, nothing, nothing.astype(bool))


def _times(steps: _Steps, sessions: Sessions, rng: np.random.Generator) -> np.ndarray:
    """Starts plus gaps, which do not depend on what happens; only bursts are faster. Ordered by session."""
    median = np.array([KINDS[name].gap_seconds for name in KIND_NAMES])[sessions.kind][steps.session]
    gaps = 1000 * median * rng.lognormal(0.0, 1.1, len(median))
    gaps = np.where(steps.burst, rng.uniform(15, 400, len(gaps)), gaps)
    passed = np.cumsum(gaps)
    begins = np.flatnonzero(np.diff(steps.session, prepend=-1))
    base = np.repeat(passed[begins], np.diff(begins, append=len(gaps)))
    return np.asarray(sessions.start[steps.session] + passed - base, dtype=np.int64)
