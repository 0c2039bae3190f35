"""What happens in the synthetic events: actions, the sessions made of them, and the attacks.

These are tables. :mod:`companion.data.ocsf_plan` draws sessions from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FILE, PROCESS, ACCOUNT, AUTH, NETWORK, HTTP, DNS, API = 1001, 1007, 3001, 3002, 4001, 4002, 4003, 6003
CLASSES = {
    FILE: "File System Activity", PROCESS: "Process Activity", ACCOUNT: "Account Change",
    AUTH: "Authentication", NETWORK: "Network Activity", HTTP: "HTTP Activity", DNS: "DNS Activity",
    API: "API Activity",
}  # fmt: skip
"""Names of the eight classes by ``class_uid``, OCSF 1.8.0."""
CATEGORIES = {
    1: "System Activity", 3: "Identity & Access Management", 4: "Network Activity", 6: "Application Activity",
}  # fmt: skip
"""Names of their categories by ``category_uid``, which is ``class_uid // 1000``."""


@dataclass(frozen=True)
class Action:
    """One kind of event.

    Attributes:
        class_uid: its OCSF class.
        activity_id: its activity in that class.
        activity: the activity's name in the schema.
        detail: the operation, service or program, where the class has one.
        fails: whether its ``status_id`` is Failure rather than Success.
    """

    class_uid: int
    activity_id: int
    activity: str
    detail: str = ""
    fails: bool = False


ACTIONS = {
    "logon": Action(AUTH, 1, "Logon"),
    "logon_fail": Action(AUTH, 1, "Logon", fails=True),
    "logoff": Action(AUTH, 2, "Logoff"),
    "ticket": Action(AUTH, 4, "Service Ticket Request"),
    "switch": Action(AUTH, 7, "Account Switch"),
    "user_create": Action(ACCOUNT, 1, "Create"),
    "user_enable": Action(ACCOUNT, 2, "Enable"),
    "password_change": Action(ACCOUNT, 3, "Password Change"),
    "password_reset": Action(ACCOUNT, 4, "Password Reset"),
    "user_disable": Action(ACCOUNT, 5, "Disable"),
    "policy_attach": Action(ACCOUNT, 7, "Attach Policy"),
    "policy_detach": Action(ACCOUNT, 8, "Detach Policy"),
    "mfa_enable": Action(ACCOUNT, 10, "MFA Factor Enable"),
    "mfa_disable": Action(ACCOUNT, 11, "MFA Factor Disable"),
    "user_unlock": Action(ACCOUNT, 12, "Unlock"),
    "key_create": Action(API, 1, "Create", "iam:CreateAccessKey"),
    "key_delete": Action(API, 4, "Delete", "iam:DeleteAccessKey"),
    "policy_put": Action(API, 3, "Update", "iam:PutRolePolicy"),
    "assume": Action(API, 1, "Create", "sts:AssumeRole"),
    "data_list": Action(API, 2, "Read", "storage:ListObjects"),
    "data_read": Action(API, 2, "Read", "storage:GetObject"),
    "data_write": Action(API, 1, "Create", "storage:PutObject"),
    "data_delete": Action(API, 4, "Delete", "storage:DeleteObject"),
    "query": Action(API, 2, "Read", "warehouse:RunQuery"),
    "describe": Action(API, 2, "Read", "compute:DescribeInstances"),
    "config_read": Action(API, 2, "Read", "config:GetConfiguration"),
    "config_update": Action(API, 3, "Update", "config:UpdateConfiguration"),
    "alarms_pause": Action(API, 3, "Update", "monitor:DisableAlarms"),
    "alarms_resume": Action(API, 3, "Update", "monitor:EnableAlarms"),
    "build": Action(API, 1, "Create", "release:StartBuild"),
    "test": Action(API, 1, "Create", "release:StartTests"),
    "approve": Action(API, 3, "Update", "release:Approve"),
    "deploy": Action(API, 1, "Create", "release:Deploy"),
    "release_read": Action(API, 2, "Read", "release:GetStatus"),
    "launch": Action(PROCESS, 1, "Launch"),
    "end": Action(PROCESS, 2, "Terminate"),
    "archive": Action(PROCESS, 1, "Launch", "7z"),
    "restart": Action(PROCESS, 1, "Launch", "systemctl"),
    "file_create": Action(FILE, 1, "Create"),
    "file_read": Action(FILE, 2, "Read"),
    "file_update": Action(FILE, 3, "Update"),
    "file_delete": Action(FILE, 4, "Delete"),
    "file_rename": Action(FILE, 5, "Rename"),
    "file_encrypt": Action(FILE, 10, "Encrypt"),
    "get": Action(HTTP, 3, "Get"),
    "post": Action(HTTP, 6, "Post"),
    "put": Action(HTTP, 7, "Put"),
    "dns": Action(DNS, 2, "Response"),
    "flow": Action(NETWORK, 6, "Traffic"),
    "close": Action(NETWORK, 2, "Close"),
    "refuse": Action(NETWORK, 5, "Refuse", fails=True),
    "drop": Action(NETWORK, 4, "Fail", fails=True),
}
"""All actions by name."""
NAMES = tuple(ACTIONS)
INDEX = {name: i for i, name in enumerate(NAMES)}

# ---------------------------------------------------------------- sessions

UNITS = {
    "browse": ("dns", "get"), "page": ("get",), "form": ("post",), "connect": ("dns", "flow"),
    "flow": ("flow",),
    "closed": ("close",), "refused": ("refuse",), "dropped": ("drop",), "run": ("launch", "end"),
    "start": ("launch",), "open": ("file_read",), "edit": ("file_read", "file_update"),
    "new": ("file_create",),
    "tidy": ("file_delete",), "rename": ("file_rename",), "seal": ("file_encrypt",), "ticket": ("ticket",),
    "sudo": ("switch",), "list": ("data_list",), "fetch": ("data_list", "data_read"),
    "store": ("data_write",),
    "clear": ("data_delete",), "ask": ("query",), "look": ("describe",), "config": ("config_read",),
    "status": ("release_read",), "password": ("password_change",), "unlock": ("user_unlock",),
    "reset": ("password_reset",), "phone": ("mfa_disable", "mfa_enable"), "nomfa": ("mfa_disable",),
    "assume": ("assume",), "policy": ("policy_put",), "key": ("key_create",),
}  # fmt: skip
"""What happens beside the work: one to two actions that belong together."""

_PERSON = {
    "browse": 16, "page": 14, "form": 4, "connect": 8, "flow": 8, "closed": 2, "refused": 0.25,
    "dropped": 0.3,
    "run": 7, "start": 5, "open": 7, "edit": 5, "new": 2, "tidy": 1, "rename": 0.8, "seal": 0.1, "ticket": 4,
    "password": 0.08, "nomfa": 0.01,
}  # fmt: skip
BACKGROUND = {
    "developer": _PERSON | {"run": 14, "status": 3, "look": 2, "list": 1, "config": 1, "assume": 0.5},
    "analyst": _PERSON | {"ask": 6, "list": 2, "fetch": 3, "store": 0.5, "open": 10},
    "sales": _PERSON | {"form": 8, "list": 0.5, "fetch": 0.5},
    "helpdesk": _PERSON | {"unlock": 3, "reset": 3, "phone": 0.8, "sudo": 1, "look": 0.5, "config": 0.5},
    "admin": _PERSON | {"sudo": 4, "config": 4, "look": 4, "policy": 0.4, "assume": 2, "refused": 0.6,
    "key": 0.1},
    "service": {
        "flow": 10, "connect": 2, "open": 5, "new": 3, "tidy": 1.5, "list": 4, "fetch": 6, "store": 4,
        "clear": 1,
        "ask": 2, "run": 2, "refused": 0.1, "dropped": 0.3, "seal": 0.3, "policy": 0.01, "key": 0.01,
        "ticket": 2, "config": 1, "assume": 0.02,
    },
}  # fmt: skip
"""How often each unit happens in the sessions of a role, relatively."""
CLOUD = {
    "list": 5, "fetch": 6, "store": 1.5, "look": 3, "config": 3, "status": 2, "ask": 2, "page": 6, "form": 1,
    "clear": 0.3, "assume": 0.5,
}  # fmt: skip
"""The same in sessions on the cloud console, whoever has them."""


@dataclass(frozen=True)
class Step:
    """Work that a session does between ``least`` and ``most`` times, or not at all.

    Attributes:
        action: its name.
        rank: its place in the order of the work; steps of one rank come in any order.
        attack_rank: its place when the session is an order attack.
        least: fewest repetitions.
        most: most repetitions.
        chance: that it happens at all.
    """

    action: str
    rank: int
    attack_rank: int
    least: int = 1
    most: int = 1
    chance: float = 1.0


@dataclass(frozen=True)
class SessionKind:
    """A kind of session.

    Attributes:
        steps: its work, in the normal order.
        units: mean number of background units around the work.
        gap_seconds: median time between two events.
        console: whether it happens on the cloud console, which knows no device.
    """

    steps: tuple[Step, ...] = ()
    units: float = 12.0
    gap_seconds: float = 8.0
    console: bool = False


KINDS = {
    "office": SessionKind(),
    "cloud": SessionKind(units=8, console=True),
    "deploy": SessionKind(
        (
            Step("put", 0, 0),
            Step("build", 1, 1, most=2),
            Step("test", 2, 4, most=3),
            Step("approve", 3, 3),
            Step("deploy", 4, 2),
            Step("release_read", 5, 5, most=2, chance=0.8),
        ),
        units=7,
    ),
    "report": SessionKind(
        (
            Step("query", 0, 0, most=4),
            Step("file_create", 1, 1),
            Step("archive", 2, 2, chance=0.7),
            Step("file_encrypt", 3, 4),
            Step("data_write", 4, 3),
            Step("file_delete", 5, 5),
        ),
        units=7,
    ),
    "maintenance": SessionKind(
        (
            Step("alarms_pause", 0, 0),
            Step("config_update", 1, 3, most=3),
            Step("restart", 2, 4, chance=0.8),
            Step("config_read", 3, 1, most=2),
            Step("alarms_resume", 4, 2),
        ),
        units=7,
    ),
    "access_loan": SessionKind(
        (
            Step("user_enable", 0, 0),
            Step("policy_attach", 1, 4),
            Step("describe", 2, 2, most=3),
            Step("policy_detach", 3, 1),
            Step("user_disable", 4, 3),
        ),
        units=7,
    ),
    "joiner": SessionKind(
        (
            Step("user_create", 0, 0),
            Step("policy_attach", 1, 1, most=2),
            Step("password_reset", 2, 2),
            Step("mfa_enable", 3, 3),
        ),
        units=7,
    ),
    "key_rotation": SessionKind(
        (
            Step("key_create", 0, 2),
            Step("logon_fail", 1, 0, most=2),
            Step("logon", 2, 1),
            Step("data_read", 3, 3, least=2, most=4),
            Step("key_delete", 4, 4),
        ),
        units=7,
    ),
    "batch": SessionKind((Step("data_list", 0, 0), Step("data_read", 1, 1, 2, 6)), units=9, gap_seconds=0.8),
    "backup": SessionKind(
        (Step("file_read", 0, 0, 4, 12), Step("file_encrypt", 1, 1), Step("data_write", 2, 2, 1, 3)),
        units=5,
        gap_seconds=0.8,
    ),
}
"""All kinds of sessions by name."""
KIND_NAMES = tuple(KINDS)
KIND_INDEX = {name: i for i, name in enumerate(KIND_NAMES)}

MIX = {
    "developer": {"office": 0.5, "cloud": 0.15, "deploy": 0.24, "key_rotation": 0.11},
    "analyst": {"office": 0.52, "cloud": 0.15, "report": 0.33},
    "sales": {"office": 0.88, "cloud": 0.12},
    "helpdesk": {"office": 0.42, "cloud": 0.03, "access_loan": 0.3, "joiner": 0.25},
    "admin": {"office": 0.28, "cloud": 0.12, "maintenance": 0.34, "key_rotation": 0.16, "access_loan": 0.1},
    "service": {"batch": 0.65, "backup": 0.35},
}
"""What kinds of sessions each role has, as shares."""

# ---------------------------------------------------------------- attacks

Shape = Literal["point", "context", "order"]


@dataclass(frozen=True)
class Attack:
    """A kind of attack.

    Attributes:
        shape: ``"point"`` if single records are strange to anyone, ``"context"`` if they are strange for
            this entity or at this time only, ``"order"`` if no record is strange and only their order is.
        kind: the kind of session in which it happens.
        says: what it is.
        actions: what is put into the session, any of them; none if the whole session is the attack, or its
            order.
        least: fewest records put in.
        most: most records put in.
        roles: who commits it; ``None`` for whoever has such sessions.
    """

    shape: Shape
    kind: str
    says: str
    actions: tuple[str, ...] = ()
    least: int = 1
    most: int = 1
    roles: tuple[str, ...] | None = None


_STAFF = ("developer", "analyst", "sales", "admin")
ATTACKS = {
    "impossible_travel": Attack(
        "context", "cloud", "a console session from far away, within an hour of one at home"
    ),
    "odd_hour_new_country": Attack(
        "context", "cloud", "a console session in the user's night, from a country that is new for the user"
    ),
    "odd_parent": Attack("point", "office", "an office program starts a shell", ("launch",), 1, 3, _STAFF),
    "large_upload": Attack("point", "office", "far more bytes leave than come in", ("flow",), 1, 3, _STAFF),
    "service_privilege": Attack(
        "context", "batch", "a service account changes privileges", ("policy_put", "key_create", "assume"),
        1, 3
    ),
    "port_scan": Attack("point", "office", "one host tries many ports", ("refuse", "refuse", "drop"), 10,
    25, _STAFF),
    "dns_tunnel": Attack("point", "office", "data leave in the names that are asked for", ("dns",), 8, 20,
    _STAFF),
    "mass_encryption": Attack(
        "point", "office", "many files are encrypted and renamed", ("file_encrypt", "file_rename"), 10, 25,
        _STAFF
    ),
    "mfa_disabled": Attack(
        "context", "office", "someone who is not the help desk takes away a second factor",
        ("mfa_disable",), 1, 1,
        _STAFF,
    ),
    "early_deploy": Attack("order", "deploy", "released before it was tested and approved"),
    "unsealed_upload": Attack("order", "report", "a report leaves before it is encrypted"),
    "late_change": Attack("order", "maintenance",
    "the change comes after the alarms are back on and the check"),
    "lasting_privilege": Attack("order", "access_loan", "the privilege is attached last, and stays"),
    "stolen_credential": Attack("order", "key_rotation", "failed logons, a logon, a new key, then the data"),
}  # fmt: skip
"""All attacks by name."""
ATTACK_NAMES = tuple(ATTACKS)
ATTACK_INDEX = {name: i + 1 for i, name in enumerate(ATTACK_NAMES)}
"""Codes of the attacks; 0 is none."""
