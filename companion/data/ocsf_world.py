"""The people, machines, places and names of the synthetic events, and their habits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from companion.data.ocsf_actions import TABLES

ROLES = ("developer", "analyst", "sales", "helpdesk", "admin", "service")
ROLE_SHARES = (0.28, 0.22, 0.26, 0.09, 0.07, 0.08)
SERVICE = ROLES.index("service")

_WORLD = TABLES["world"]
COUNTRIES: list[tuple[str, str, int]] = [tuple(row) for row in _WORLD["countries"]]
OFFICES = 5
PROGRAMS: list[str] = _WORLD["programs"]
PROGRAM = {name: i for i, name in enumerate(PROGRAMS)}
SHELLS = tuple(PROGRAM[name] for name in ("powershell", "cmd", "wscript", "rundll32"))
OFFICE_PROGRAMS = tuple(PROGRAM[name] for name in ("winword", "excel", "outlook", "acrobat"))
PARENTS: dict[str, str] = _WORLD["parents"]
EXTENSIONS: list[str] = _WORLD["extensions"]


@lru_cache
def _zipf_edges(size: int, exponent: float) -> np.ndarray:
    weights = np.arange(1, size + 1, dtype=float) ** -exponent
    return np.cumsum(weights / weights.sum())


def zipf(uniform: np.ndarray, size: int, exponent: float = 1.1) -> np.ndarray:
    """Heavy-tailed ranks 0 to ``size`` - 1: rank r has a share proportional to (r + 1) ** -``exponent``.

    ``uniform`` are numbers in [0, 1), of any shape; the ranks have the same, in int64.
    """
    found = np.searchsorted(_zipf_edges(size, exponent), uniform, side="right")
    return np.minimum(found, size - 1)


def _texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)


@dataclass(frozen=True)
class World:
    """Entities as parallel arrays; users come first, one row each (U), hosts are laptops then servers (H)."""

    role: np.ndarray  #: (U,) index of ``ROLES``
    user_name: np.ndarray  #: (U,) text
    user_uid: np.ndarray  #: (U,) text
    country: np.ndarray  #: (U,) home, index of ``COUNTRIES``
    second_country: np.ndarray  #: (U,) where the user travels to at times
    start_minute: np.ndarray  #: (U,) of the working day, local time
    work_minutes: np.ndarray  #: (U,) length of the working day
    weekend: np.ndarray  #: (U,) activity at weekends, relative to a weekday
    activity: np.ndarray  #: (U,) relative number of sessions; heavy-tailed
    has_mfa: np.ndarray  #: (U,) bool
    browser: np.ndarray  #: (U,) index of ``agents``
    home_address: np.ndarray  #: (U,) index among the addresses of the home country
    programs: np.ndarray  #: (U, P) indices of ``PROGRAMS``, the most used first
    servers: np.ndarray  #: (U, 6) hosts that the user's traffic goes to, the most used first
    domains: np.ndarray  #: (U, 60) indices of ``domain_names``, the most used first
    folders: np.ndarray  #: (U, 8) indices of ``folder_names``
    hostname: np.ndarray  #: (H,) text
    host_ip: np.ndarray  #: (H,) text
    host_kind: np.ndarray  #: (H,) 1 server, 3 laptop (``device.type_id``)
    host_os: np.ndarray  #: (H,) 0 Windows, 1 Linux, 2 macOS
    host_release: np.ndarray  #: (H,) index of the version of its operating system
    old_sensor: np.ndarray  #: (H,) bool; an old sensor leaves fields out
    domain_names: np.ndarray  #: (1500,) text, the most popular first
    domain_country: np.ndarray  #: (1500,) where it is served from
    folder_names: np.ndarray  #: (300,) text
    file_stems: np.ndarray  #: (3000,) text
    addresses: np.ndarray  #: (countries, 120) public addresses
    agents: np.ndarray  #: browsers and libraries

    @property
    def num_users(self) -> int:
        """U, service accounts included."""
        return len(self.role)

    @property
    def is_service(self) -> np.ndarray:
        """Which users are service accounts, (U,) bool."""
        return np.asarray(self.role == SERVICE)


def make_world(num_users: int, rng: np.random.Generator) -> World:
    """Draw a world of people and service accounts, at least three of every role."""
    few = np.repeat(np.arange(len(ROLES)), 3)
    role = np.concatenate([few, rng.choice(len(ROLES), num_users - len(few), p=ROLE_SHARES)])
    role = rng.permutation(role)
    service = role == SERVICE
    first, last = _WORLD["first_names"], _WORLD["last_names"]
    pairs = rng.choice(len(first) * len(last), num_users, replace=num_users > len(first) * len(last))
    names = [f"{first[p // len(last)]}.{last[p % len(last)]}" for p in pairs]
    serial = np.cumsum(service)
    names = [f"svc-{serial[i]:03d}" if service[i] else name for i, name in enumerate(names)]
    if len(set(names)) < num_users:
        names = [name if service[i] else f"{name}{i}" for i, name in enumerate(names)]
    programs = np.stack([_usual_programs(ROLES[r], rng) for r in role])
    num_servers = max(12, num_users // 6)
    servers = num_users + zipf(rng.random((num_users, 6)), num_servers, 0.8)
    num_hosts = num_users + num_servers
    laptop = np.arange(num_hosts) < num_users
    host_os = np.where(
        laptop, rng.choice([0, 2], num_hosts, p=[0.8, 0.2]), rng.choice([0, 1], num_hosts, p=[0.3, 0.7])
    )
    uses = ("web", "db", "app", "file", "build")
    hostname = [f"lt-{i:04d}" for i in range(num_users)]
    hostname += [f"srv-{uses[i % 5]}-{i - num_users:02d}" for i in range(num_users, num_hosts)]
    host_ip = [f"10.{1 + i // 65000}.{(i // 250) % 250}.{1 + i % 250}" for i in range(num_hosts)]
    return World(
        role=role,
        user_name=_texts(names),
        user_uid=_texts([f"u-{uid:06d}" for uid in rng.choice(10**6, num_users, replace=False)]),
        country=np.where(service, 0, zipf(rng.random(num_users), OFFICES, 0.9)),
        second_country=zipf(rng.random(num_users), len(COUNTRIES), 0.6),
        start_minute=rng.normal(8.5 * 60, 50, num_users),
        work_minutes=rng.normal(9 * 60, 40, num_users),
        weekend=np.where(service, 1.0, rng.beta(1, 9, num_users)),
        activity=rng.lognormal(0, 0.7, num_users) * np.where(service, 2.5, 1.0),
        has_mfa=~service & (rng.random(num_users) < 0.85),
        browser=zipf(rng.random(num_users), 6, 1.0),
        home_address=rng.integers(0, 120, num_users),
        programs=programs,
        servers=servers,
        domains=zipf(rng.random((num_users, 60)), 1500, 0.9),
        folders=rng.integers(0, 300, (num_users, 8)),
        hostname=_texts(hostname),
        host_ip=_texts(host_ip),
        host_kind=np.where(laptop, 3, 1),
        host_os=host_os,
        host_release=zipf(rng.random(num_hosts), 4, 1.0),
        old_sensor=rng.random(num_hosts) < 0.2,
        domain_names=_texts(_domain_names(1500, rng)),
        domain_country=zipf(rng.random(1500), len(COUNTRIES), 0.9),
        folder_names=_texts(
            [f"/{a}/{b}" for a in ("home", "share", "srv", "projects", "var") for b in _words(60, rng)]
        ),
        file_stems=_texts([f"{word}-{i}" for i, word in enumerate(_words(3000, rng))]),
        addresses=_addresses(rng),
        agents=_texts(_WORLD["agents"]),
    )


def _usual_programs(role: str, rng: np.random.Generator) -> np.ndarray:
    """The role's programs, the user's favourites first, then all others."""
    usual = [PROGRAM[name] for name in _WORLD["role_programs"][role]]
    others = rng.permutation([i for i in range(len(PROGRAMS)) if i not in usual])
    order = np.argsort(np.arange(len(usual)) + rng.normal(0, 2, len(usual)))
    return np.concatenate([np.array(usual)[order], others])


def _words(count: int, rng: np.random.Generator) -> list[str]:
    syllables = _WORLD["syllables"]
    picked = rng.integers(0, len(syllables), (count, 3))
    return ["".join(syllables[i] for i in row) for row in picked]


def _domain_names(count: int, rng: np.random.Generator) -> list[str]:
    endings = np.array(["com", "net", "io", "org", "de", "cloud"])[zipf(rng.random(count), 6)]
    return [
        f"{word}{i if i > 200 else ''}.{ending}"
        for i, (word, ending) in enumerate(zip(_words(count, rng), endings, strict=True))
    ]


def _addresses(rng: np.random.Generator) -> np.ndarray:
    """Public addresses by country, each country with its own blocks."""
    rows = []
    for country in range(len(COUNTRIES)):
        ends = rng.choice(250 * 250, 120, replace=False)
        rows.append([f"{31 + 2 * country}.{64 + end % 3}.{end // 250}.{1 + end % 250}" for end in ends])
    return np.array(rows, dtype=object)
