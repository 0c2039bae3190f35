"""The fields of the synthetic events that belong to one class: names, pages and flows; OCSF 1.8.0."""

from __future__ import annotations

import numpy as np

from companion.data.ocsf_actions import ATTACK_INDEX, DNS, HTTP, NETWORK
from companion.data.ocsf_fields import Block, texts
from companion.data.ocsf_world import COUNTRIES, zipf

_CODES = texts([code for code, _, _ in COUNTRIES])
_PORTS = ((443, "https"), (445, "smb"), (389, "ldap"), (5432, "postgresql"), (22, "ssh"), (8443, "https-alt"),
          (3389, "rdp"), (25, "smtp"), (123, "ntp"), (9092, "kafka"))  # fmt: skip
_PATHS = texts(["/", "/login", "/search", "/api/v1/items", "/static/app.js", "/docs", "/feed",
                "/api/v2/users", "/img", "/cart", "/mail", "/calendar", "/download", "/graphql",
                "/health"])  # fmt: skip


def put_network(block: Block) -> None:
    """Set the fields of DNS, HTTP and network activity."""
    domain = _domain(block)
    _dns(block, domain)
    _http(block, domain)
    _network(block, domain)


def _domain(block: Block) -> np.ndarray:
    """The domain of each event: mostly one of the user's, the same for the same topic."""
    own = block.world.domains[block.user, zipf(block.topic, 60, 1.0)]
    other = zipf((block.topic * 7919.7) % 1.0, len(block.world.domain_names), 0.6)
    chosen = np.where((block.topic * 104_729.3) % 1.0 < 0.06, other, own)
    new = np.isin(block.attack, [ATTACK_INDEX["large_upload"], ATTACK_INDEX["dns_tunnel"]])
    return np.asarray(np.where(new, other, chosen))


def _public_ip(block: Block, domain: np.ndarray) -> np.ndarray:
    country = block.world.domain_country[domain]
    return np.asarray(block.world.addresses[country, domain % 120])


def _hostname(block: Block, rows: np.ndarray, domain: np.ndarray) -> np.ndarray:
    front = texts(["www.", "", "api.", "cdn.", "mail.", "static."])
    return np.asarray(
        front[zipf((block.topic[rows] * 613.7) % 1.0, 6, 0.9)] + block.world.domain_names[domain]
    )


def _put_connection(block: Block, rows: np.ndarray, internal: np.ndarray, udp: np.ndarray) -> None:
    block.put_all(
        rows,
        connection_info__direction_id=np.where(internal, 3, 2),
        connection_info__boundary_id=np.where(internal, 2, 3),
        connection_info__protocol_num=np.where(udp, 17, 6),
        connection_info__protocol_name=np.where(udp, "udp", "tcp").astype(object),
        connection_info__uid=block.identifiers(rows, 6),
    )


def _put_traffic(block: Block, rows: np.ndarray, sent: np.ndarray, received: np.ndarray) -> None:
    sent, received = np.maximum(sent, 40).astype(np.int64), np.maximum(received, 0).astype(np.int64)
    block.put_all(
        rows,
        traffic__bytes_out=sent,
        traffic__bytes_in=received,
        traffic__bytes=sent + received,
        traffic__packets=2 + (sent + received) // 1100,
    )


def _dns(block: Block, domains: np.ndarray) -> None:
    """DNS Activity (4003): the answers to questions."""
    world, rows = block.world, block.rows(DNS)
    domain, draw = domains[rows], block.rng.random((4, len(rows)))
    tunnel = block.is_attack("dns_tunnel", rows)
    kind = np.where(draw[0] < 0.82, 0, 1 + zipf(draw[1], 4, 0.8))
    kind = np.where(tunnel & (draw[1] < 0.7), 2, kind)
    types = texts(["A", "AAAA", "TXT", "MX", "CNAME"])[kind]
    name = _hostname(block, rows, domain)
    hashed = np.flatnonzero(tunnel | (draw[2] < 0.05))  # caches have such names too, but shorter
    length = np.where(tunnel[hashed], 28, 12) * (1 + draw[3][hashed])
    labels = block.identifiers(rows[hashed], 28)
    short = texts([label[: int(n)] for label, n in zip(labels, length, strict=True)])
    name[hashed] = short + "." + world.domain_names[domain[hashed]]
    failed = block.failed[rows]
    block.put_all(
        rows,
        query__hostname=name,
        query__type=types,
        query__class="IN",
        query__opcode_id=0,
        rcode_id=np.where(failed, 3, 0),
        rcode=np.where(failed, "NXDomain", "NoError").astype(object),
        response_time=block.time[rows],
        query_time=block.time[rows] - (12 * block.rng.lognormal(0, 1, len(rows))).astype(np.int64),
        dst_endpoint__ip="10.0.0.53",
        dst_endpoint__port=53,
    )
    answered = ~failed
    count = 1 + (block.draw(rows) < 0.3)
    block.put("answers.#", rows, np.where(answered, count, 0))
    for i in range(2):
        there = np.flatnonzero(answered & (count > i))
        data = np.where(kind[there] == 0, _public_ip(block, (domain[there] + i) % 1500), name[there])
        ttl = 60 * (1 + zipf(block.draw(there), 60, 1.2))
        block.put_all(
            rows[there],
            **{f"answers.{i}.rdata": data, f"answers.{i}.type": types[there], f"answers.{i}.ttl": ttl},
        )
    _put_connection(block, rows, np.ones(len(rows), dtype=bool), np.ones(len(rows), dtype=bool))


def _http(block: Block, domains: np.ndarray) -> None:
    """HTTP Activity (4002), seen by the proxy."""
    world, rows = block.world, block.rows(HTTP)
    domain, failed, user = domains[rows], block.failed[rows], block.user[rows]
    push = block.does(rows, "put")
    host = np.where(push, "git.corp.example", _hostname(block, rows, domain))
    sends = block.does(rows, "post", "put")
    denied = failed & (block.draw(rows) < 0.3)
    wrong = np.array([404, 500, 502, 400])[zipf(block.draw(rows), 4)]
    code = np.where(denied, 403, np.where(failed, wrong, 200))
    code = np.where(~failed & (block.draw(rows) < 0.12), 304, code)
    sent = 700 * block.rng.lognormal(0, 0.6, len(rows)) * np.where(sends, 20, 1)
    received = np.where(code == 304, 0, 15_000 * block.rng.lognormal(0, 1.7, len(rows)))
    plain = block.draw(rows) < 0.04
    block.put_all(
        rows,
        http_request__http_method=np.where(push, "PUT", np.where(sends, "POST", "GET")).astype(object),
        http_request__url__hostname=host,
        http_request__url__path=_PATHS[zipf((block.topic[rows] * 389.1) % 1.0, len(_PATHS), 0.9)],
        http_request__url__scheme=np.where(plain, "http", "https").astype(object),
        http_request__url__port=np.where(plain, 80, 443),
        http_request__user_agent=world.agents[np.where(world.is_service[user], 7, world.browser[user])],
        http_request__version=np.where(plain, "1.1", "2").astype(object),
        http_request__length=sent.astype(np.int64),
        http_response__code=code,
        http_response__length=received.astype(np.int64),
        http_response__latency=(60 * block.rng.lognormal(0, 1, len(rows))).astype(np.int64),
        http_response__content_type=texts(["text/html", "application/json", "image/png", "text/css"])[
            zipf(block.draw(rows), 4, 0.8)
        ],
        status_code=texts([str(c) for c in range(600)])[code],
        action_id=np.where(denied, 2, 1),
        disposition_id=np.where(denied, 2, 1),
        dst_endpoint__hostname=host,
        dst_endpoint__ip=np.where(push, "10.0.0.80", _public_ip(block, domain)),
        dst_endpoint__port=np.where(plain, 80, 443),
    )
    version = np.where(block.draw(rows[~plain]) < 0.85, "1.3", "1.2").astype(object)
    block.put("tls.version", rows[~plain], version)
    out = ~push
    block.put("dst_endpoint.location.country", rows[out], _CODES[world.domain_country[domain[out]]])
    _put_traffic(block, rows, sent, received)
    _put_connection(block, rows, push, np.zeros(len(rows), dtype=bool))


def _network(block: Block, domains: np.ndarray) -> None:
    """Network Activity (4001): flows to the user's servers and to the world."""
    world, rows = block.world, block.rows(NETWORK)
    user, domain = block.user[rows], domains[rows]
    upload, scan = block.is_attack("large_upload", rows), block.is_attack("port_scan", rows)
    internal = ((block.topic[rows] * 59.3) % 1.0 < 0.65) & ~upload | scan
    server = world.servers[user, zipf((block.topic[rows] * 17.9) % 1.0, 6, 1.0)]
    num_servers = len(world.hostname) - world.num_users
    any_server = world.num_users + (block.draw(rows) * num_servers).astype(np.int64)
    server = np.where(scan | (block.draw(rows) < 0.03), any_server, server)
    port = np.where(internal, (server + zipf(block.draw(rows), len(_PORTS), 1.5)) % len(_PORTS), 0)
    number = np.array([number for number, _ in _PORTS])[port]
    refused = block.failed[rows]
    other = scan | (refused & (block.draw(rows) < 0.4))  # a port that nobody serves
    number = np.where(other, 1 + (block.draw(rows) ** 2 * 49_000).astype(np.int64), number)
    busy = world.is_service[user]
    sent = 4_000 * block.rng.lognormal(0, 1.9, len(rows)) * np.where(busy, 12, 1)
    received = 18_000 * block.rng.lognormal(0, 2.0, len(rows)) * np.where(busy, 4, 1)
    sent = np.where(upload, 10 ** block.rng.uniform(7.7, 9.5, len(rows)), np.where(refused, 60, sent))
    received = np.where(refused, 0, received)
    block.put_all(
        rows,
        dst_endpoint__ip=np.where(internal, world.host_ip[server], _public_ip(block, domain)),
        dst_endpoint__port=number,
        dst_endpoint__hostname=np.where(internal, world.hostname[server], world.domain_names[domain]),
        duration=(900 * block.rng.lognormal(0, 1.6, len(rows)) * np.where(refused, 0.01, 1)).astype(np.int64),
        action_id=np.where(refused, 2, 1),
        disposition_id=np.where(refused, 2, 1),
    )
    service = texts([name for _, name in _PORTS])[port[~other]]
    block.put_all(rows[~other], app_name=service, dst_endpoint__svc_name=service)
    places = _CODES[world.domain_country[domain]]
    block.put("dst_endpoint.location.country", rows[~internal], places[~internal])
    _put_traffic(block, rows, sent, received)
    _put_connection(block, rows, internal, number == 123)
