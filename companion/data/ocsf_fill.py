"""The fields of the synthetic events that belong to one class: identity, cloud and machine; OCSF 1.8.0."""

from __future__ import annotations

import numpy as np

from companion.data.ocsf_actions import ACCOUNT, ACTIONS, API, AUTH, FILE, NAMES, PROCESS
from companion.data.ocsf_fields import (
    Block,
    put_actor,
    put_base,
    put_device,
    put_source,
    session_names,
    texts,
    user_types,
)
from companion.data.ocsf_fill_network import put_network
from companion.data.ocsf_world import EXTENSIONS, OFFICE_PROGRAMS, PARENTS, PROGRAM, PROGRAMS, SHELLS, zipf

_DETAIL = [ACTIONS[name].detail for name in NAMES]
_SERVICE = texts([detail.partition(":")[0] for detail in _DETAIL])
_OPERATION = texts([detail.partition(":")[2] for detail in _DETAIL])
_PROTOCOLS = ((2, "Kerberos"), (5, "SAML"), (6, "OAUTH 2.0"), (1, "NTLM"))
_LOGONS = ((2, "Interactive"), (3, "Network"), (10, "Remote Interactive"), (7, "Unlock"))
_POLICIES = texts(["read-only", "developer", "billing-view", "support", "storage-write", "power-user",
                   "administrator"])  # fmt: skip
_ARGUMENTS = texts(["", " --quiet", " -c run", " /k", " --config default", " -m server", " -File task.ps1",
                    " --update", " /all"])  # fmt: skip
_RESOURCES = texts(["Bucket", "Table", "Instance", "Role", "Key", "Release"])


def fill(block: Block) -> None:
    """Set every field of the block's events."""
    put_base(block)
    put_actor(block)
    put_device(block)
    put_source(block)
    _authentication(block)
    _account_change(block)
    _api(block)
    _process(block)
    _file(block)
    put_network(block)


def _put_user(block: Block, rows: np.ndarray, user: np.ndarray) -> None:
    world = block.world
    block.put_all(
        rows,
        user__name=world.user_name[user],
        user__uid=world.user_uid[user],
        user__type_id=user_types(world)[user],
        user__has_mfa=world.has_mfa[user],
        user__domain="corp.example",
        user__email_addr=world.user_name[user] + "@corp.example",
    )


def _authentication(block: Block) -> None:
    """Authentication (3002)."""
    world, rows = block.world, block.rows(AUTH)
    user, remote, failed = block.user[rows], block.remote[rows], block.failed[rows]
    _put_user(block, rows, user)
    protocol = np.where(remote, 1 + (block.draw(rows) < 0.4), np.where(block.draw(rows) < 0.07, 3, 0))
    protocol = np.where(block.does(rows, "ticket"), 0, protocol)
    kind = np.where(remote, 2, zipf(block.draw(rows), 2, 1.0))
    kind = np.where((kind == 0) & (block.draw(rows) < 0.25), 3, np.where(world.is_service[user], 1, kind))
    mfa = world.has_mfa[user] & ~block.does(rows, "ticket") & (block.draw(rows) < np.where(remote, 0.97, 0.5))
    names = session_names(block, rows)
    block.put_all(
        rows,
        auth_protocol_id=np.array([uid for uid, _ in _PROTOCOLS])[protocol],
        auth_protocol=texts([name for _, name in _PROTOCOLS])[protocol],
        logon_type_id=np.array([uid for uid, _ in _LOGONS])[kind],
        logon_type=texts([name for _, name in _LOGONS])[kind],
        is_mfa=mfa,
        is_remote=remote,
        session__uid=names,
        session__is_remote=remote,
        session__is_mfa=mfa,
        session__issuer="https://id.corp.example",
        dst_endpoint__hostname=np.where(remote, "id.corp.example", "dc-01.corp.example").astype(object),
        service__name=np.where(remote, "single-sign-on", "directory").astype(object),
        status_code=np.where(failed, "50126", "0").astype(object),
    )
    wrong = rows[failed]
    reasons = texts(["Invalid password", "Expired password", "Account locked", "Key not active"])
    block.put("status_detail", wrong, reasons[zipf(block.draw(wrong), 4, 1.8)])
    agent = rows[remote]
    block.put("http_request.user_agent", agent, world.agents[world.browser[block.user[agent]]])
    switch = rows[block.does(rows, "switch")]
    block.put_all(switch, account_switch_type_id=1, account_switch_type="Substitute User")


def _account_change(block: Block) -> None:
    """Account Change (3001); whose account it is hangs on the topic, people change their own password."""
    world, rows = block.world, block.rows(ACCOUNT)
    target = (block.topic[rows] * world.num_users).astype(np.int64)
    _put_user(block, rows, np.where(block.does(rows, "password_change"), block.user[rows], target))
    block.put("status_code", rows, np.where(block.failed[rows], "403", "200").astype(object))
    policy = rows[block.does(rows, "policy_attach", "policy_detach")]
    block.put("policies.#", policy, 1)
    block.put("policies.0.name", policy, _POLICIES[zipf(block.topic[policy], len(_POLICIES), 1.2)])


def _api(block: Block) -> None:
    """API Activity (6003)."""
    world, rows = block.world, block.rows(API)
    user, failed, action = block.user[rows], block.failed[rows], block.action[rows]
    scripted = world.is_service[user] | (
        block.draw(rows) < np.array([0.6, 0.3, 0, 0.1, 0.5, 1])[world.role[user]]
    )
    tool = 6 + (world.browser[user] + zipf(block.draw(rows), 4, 1.6)) % 4
    error = np.where(block.draw(rows) < 0.8, "AccessDenied", "ResourceNotFound").astype(object)
    region = (world.country[user] + zipf(block.draw(rows), 6, 2.2)) % 6
    regions = texts(["eu-central-1", "us-east-1", "eu-west-2", "ap-south-1", "eu-north-1", "us-west-2"])
    block.put_all(
        rows,
        api__operation=_OPERATION[action],
        api__service__name=_SERVICE[action],
        api__version="2026-03-01",
        api__request__uid=block.identifiers(rows),
        api__response__code=np.where(failed, np.where(error == "AccessDenied", 403, 404), 200),
        cloud__provider="Cumulus",
        cloud__region=regions[region],
        cloud__account__uid=texts(["100200300", "100200301", "100200302"])[zipf(block.draw(rows), 3, 1.3)],
        dst_endpoint__svc_name=_SERVICE[action] + ".cumulus.example",
        http_request__user_agent=world.agents[np.where(scripted, tool, world.browser[user])],
        http_request__length=(300 * block.rng.lognormal(0, 0.6, len(rows))).astype(np.int64),
        duration=(40 * block.rng.lognormal(0, 0.9, len(rows))).astype(np.int64),
        status_code=np.where(failed, np.where(error == "AccessDenied", "403", "404"), "200").astype(object),
    )
    block.put("api.response.error", rows[failed], error[failed])
    about = rows[block.draw(rows) < 0.85]
    stem = _stem(block, about)
    block.put_all(
        about,
        **{"resources.#": 1},
        resources__0__name=world.file_stems[stem // 4],
        resources__0__type=_RESOURCES[stem % len(_RESOURCES)],
    )


def _stem(block: Block, rows: np.ndarray) -> np.ndarray:
    """What an event is about: every user has other favourites, and the same topic is the same thing."""
    rank = zipf(block.topic[rows], 3000, 1.05)
    return np.asarray((rank * 7919 + block.user[rows] * 131) % 3000)


def _process(block: Block) -> None:
    """Process Activity (1007): usual programs of the user, started by their usual parents."""
    world, rows = block.world, block.rows(PROCESS)
    user, host = block.user[rows], block.host[rows]
    program = world.programs[user, zipf(block.topic[rows], len(PROGRAMS), 1.4)]
    program = np.where(block.does(rows, "archive"), PROGRAM["7z"], program)
    program = np.where(block.does(rows, "restart"), PROGRAM["systemctl"], program)
    usual = np.array([PROGRAM[PARENTS.get(name, "explorer")] for name in PROGRAMS])
    parent = np.where(world.is_service[user], PROGRAM["svchost"], usual[program])
    # links in documents open programs, but no shells
    opened = (block.draw(rows) < 0.1) & ~np.isin(program, SHELLS) & ~world.is_service[user]
    office = np.array(OFFICE_PROGRAMS)[zipf(block.draw(rows), len(OFFICE_PROGRAMS), 0.8)]
    parent = np.where(opened, office, parent)
    strange = block.draw(rows) < 0.006  # what people do at times
    parent = np.where(strange, zipf(block.draw(rows), len(PROGRAMS), 0.7), parent)
    odd = block.is_attack("odd_parent", rows)
    program = np.where(odd, np.array(SHELLS)[zipf(block.draw(rows), len(SHELLS), 0.8)], program)
    parent = np.where(odd, office, parent)
    windows = world.host_os[host] == 0
    name, parent_name = _program_name(program, windows), _program_name(parent, windows)
    integrity = np.where(np.isin(program, SHELLS) & (block.draw(rows) < 0.2), 4, 3)
    block.put_all(
        rows,
        process__name=name,
        process__pid=1000 + (block.topic[rows] * 60_000).astype(np.int64),
        process__cmd_line=name + _ARGUMENTS[zipf(block.draw(rows), len(_ARGUMENTS), 1.0)],
        process__user__name=world.user_name[user],
        process__file__name=name,
        process__file__path=np.where(windows, "C:\\Programs\\", "/usr/bin/").astype(object) + name,
        process__file__type_id=np.where(windows, 8, 1),
        process__file__size=40_000 + program * 37_123,
        process__parent_process__name=parent_name,
        process__parent_process__pid=500 + ((block.topic[rows] * 7e6) % 9000).astype(np.int64),
        actor__process__name=parent_name,
        actor__process__pid=500 + ((block.topic[rows] * 7e6) % 9000).astype(np.int64),
    )
    levels = rows[windows]
    block.put("process.integrity_id", levels, integrity[windows])
    block.put("process.integrity", levels, np.where(integrity[windows] == 4, "High", "Medium").astype(object))
    ends = block.does(rows, "end")
    block.put("launch_type_id", rows[~ends], np.where(windows[~ends], 1, 3))
    block.put("exit_code", rows[ends], np.where(block.draw(rows[ends]) < 0.06, 1, 0))


def _program_name(program: np.ndarray, windows: np.ndarray) -> np.ndarray:
    names = texts([[name, name + ".exe"] for name in PROGRAMS])
    return np.asarray(names[program, windows.astype(int)])


def _file(block: Block) -> None:
    """File System Activity (1001)."""
    world, rows = block.world, block.rows(FILE)
    user, stem = block.user[rows], _stem(block, rows)
    ending = texts(EXTENSIONS)[zipf((stem * 0.6180339887) % 1.0, len(EXTENSIONS) - 2, 0.9)]
    taken = block.is_attack("mass_encryption", rows)
    ending = np.where(block.does(rows, "file_encrypt") | (taken & (block.draw(rows) < 0.5)), "gpg", ending)
    folder = world.folder_names[world.folders[user, zipf((stem * 0.414213) % 1.0, 8, 1.2)]]
    name = world.file_stems[stem] + "." + ending
    program = world.programs[user, zipf(block.draw(rows), 10, 1.0)]
    program = np.where(block.does(rows, "file_encrypt"), PROGRAM["gpg"], program)
    block.put_all(
        rows,
        file__name=name,
        file__ext=ending,
        file__parent_folder=folder,
        file__path=folder + "/" + name,
        file__type_id=1,
        file__size=(20_000 * block.rng.lognormal(0, 2.0, len(rows))).astype(np.int64),
        file__owner__name=world.user_name[user],
        file__modified_time=block.time[rows]
        - (3.6e6 * block.rng.lognormal(2, 2, len(rows))).astype(np.int64),
        actor__process__name=_program_name(program, world.host_os[block.host[rows]] == 0),
        actor__process__pid=1000 + (block.topic[rows] * 60_000).astype(np.int64),
    )
    renamed = block.does(rows, "file_rename")
    suffix = np.where(taken[renamed], 1, zipf(block.draw(rows[renamed]), 3, 2.0))
    new = name[renamed] + texts([".bak", ".gpg", ".old"])[suffix]
    block.put_all(
        rows[renamed],
        file_result__name=new,
        file_result__path=folder[renamed] + "/" + new,
        file_result__type_id=1,
    )
