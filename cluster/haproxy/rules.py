"""What the wrapper adds to each section of the configuration that Ray wrote. Pure functions of text.

Stick counters: 0 counts the open requests of a conversation, 1 the connections of a source, 2 the losses of a request,
3 the open requests of a client.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from heliostat.cluster.haproxy.deadlines import Deadlines
from heliostat.cluster.haproxy.settings import (
    CHECK_SECONDS,
    LONGEST_SECONDS,
    MARGIN_SECONDS,
    REPLAYED_BYTES,
    START_SECONDS,
    Limits,
)

REPLICA_UP_HEADER = "x-heliostat-replica-up"
"""Tells Ray's own proxy whether a replica was up when the request came, which may then have been sent to it already."""
FULL_HEADER = "x-heliostat-full"
"""In the 429 of a replica that has no place for one more request of this client; HAProxy takes it out."""
FULL_MILLISECONDS = 5000
"""How long a refusal by a replica counts: longer than a busy one takes for the next, or all would be let through."""
PROBE_MILLISECONDS = 50
"""How often such a client may have one more open request than when it was refused: places get free without a sign."""
FULL_TABLE = "heliostat_full"
LOST_STATUS = 502
"""A replica ended, or closed the connection, before it answered: HAProxy's own status for it."""
REFUSED_SECONDS = 60
"""How long a request is refused that has been lost as often as it may be."""
LOST_TABLE = "heliostat_lost"
LOSSES = 2
"""Losses after which a request is refused."""
_HEADERS_BYTES = 4 * 1024
_KNOWN_BYTES = REPLAYED_BYTES - 4 * _HEADERS_BYTES
"""Of a body, with its length, by which a request is known: HAProxy has that much of a long one, and not always more."""
_CLOCK = 10**9
"""Milliseconds after which the clock for FULL_TABLE begins again: it keeps numbers of 32 bits."""
_TO_THE_FALLBACK = 4
_AT_ONCE = 2
"""Open requests with the same beginning that still stick to one replica. One conversation has no more; a beginning that
many share is soon in the cache of every replica."""


def _body(message: str, code: str, kind: str = "server_error") -> str:
    body = json.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})
    return f"content-type application/json string '{body}'"


def _refusal(status: int, message: str, code: str, kind: str = "invalid_request_error") -> str:
    return f"http-request return status {status} {_body(message, code, kind)}"


GLOBAL = """\
global
    tune.stick-counters 4
"""
"""At the beginning: Ray's configuration has three."""


ERRORS = f"""\
    http-error status 400 {_body("no valid HTTP request", "bad_request", "invalid_request_error")}
    http-error status 408 {_body("the request was not complete in time", "timeout", "invalid_request_error")}
    http-error status {LOST_STATUS} {_body("the replica that was asked is gone; ask again", "replica_lost")}
    http-error status 503 {_body("no replica can be reached; ask again", "unavailable")} hdr Retry-After 1
    http-error status 504 {_body("no answer in time (serve.timeout_seconds)", "timeout")}
"""
"""For the defaults: what HAProxy itself says, in the shape of the OpenAI API."""
NOT_FOUND = f"    {_refusal(404, 'no endpoint has this path', 'not_found')}\n"

_CONTENT = """\
    http-request set-var(txn.{name}) req.body,json_query('$.messages[{number}].content'),xxh64 if {when}
    http-request set-var(txn.{name}) req.body,json_query('$.messages[{number}].content[0].text'),xxh64 if {when}
"""
_WEBSOCKET = "WebSockets are not taken here; with stream: true, answers are sent as server-sent events"


METHODS = ("GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE")
"""Those that are passed on. Ray counts the requests of each method that HAProxy logs in a series of its own, for ever,
and a client may call a method as it likes."""
_REQUEST_ID = """\
    acl is_identified req.fhdr_cnt(x-request-id) eq 1
    acl is_id req.fhdr(x-request-id) -m reg ^[!-~]{1,128}$
    http-request set-header x-request-id %[uuid] unless is_identified is_id
    http-request set-var(txn.request_id) req.fhdr(x-request-id)
    http-after-response set-header x-request-id %[var(txn.request_id)] if { var(txn.request_id) -m found }
"""
"""An id as `serve/http/request_id.py` takes or makes it, also for what HAProxy answers itself."""


def frontend(limits: Limits) -> str:
    """For the frontend: deadlines and limits of clients, and what is closed to them."""
    return f"""\
    timeout http-request {round(limits.header_seconds * 1000)}ms
{_REQUEST_ID}\
    tcp-request connection track-sc1 src table heliostat_sources
    tcp-request connection reject if {{ sc1_conn_cur gt {limits.connections_per_source} }}
    {_refusal(404, "there is no such route", "not_found")} if {{ path -i /-/routes }}
    acl is_known_method method {" ".join(METHODS)}
    http-request set-log-level silent unless is_known_method
    {_refusal(405, f"the method must be one of {', '.join(METHODS)}", "method_not_allowed")} unless is_known_method
    {_refusal(400, _WEBSOCKET, "websocket")} if {{ req.hdr(upgrade) -i websocket }}
    acl is_encoded req.hdr(content-encoding) -m found
    acl is_encoded_plainly req.hdr(content-encoding) -i identity
    {_refusal(415, "Content-Encoding: only identity is allowed", "encoding")} if is_encoded !is_encoded_plainly
    http-request set-method GET if METH_HEAD
"""


def backend(name: str, replicas: Sequence[str], deadlines: Deadlines, known: Path) -> str:
    """For the backend of an application: deadlines, retries, refusals, and the replica of a conversation.

    `known` is the file of requests that an HAProxy before this one refused.

    A request whose body was sent is sent once more at most. With two replicas or more that is one retry, to another
    one. The last one is not known to be gone before connections are refused, which sends nothing, and only then Ray's
    own proxy is asked, which holds requests until there is a replica.
    """
    seconds = deadlines.answer + MARGIN_SECONDS
    up = "".join(f"    acl replica_up srv_is_up({name}/{replica})\n" for replica in replicas)
    return f"""\
    retries {1 if len(replicas) > 1 else _TO_THE_FALLBACK}
    timeout server {_milliseconds(seconds)}
    timeout check {CHECK_SECONDS}s
{up or "    acl replica_up always_false" + chr(10)}\
    http-request set-timeout server {_milliseconds(START_SECONDS + seconds)} unless replica_up
    http-request set-header {REPLICA_UP_HEADER} 1 if replica_up
    http-request del-header {REPLICA_UP_HEADER} unless replica_up
{_body_and_conversation(deadlines.body)}\
{_full(name)}\
{_lost(known)}\
    stick-table type string len 48 size 100k expire 30m store conn_cur
    http-request track-sc0 var(txn.conversation) if {{ var(txn.conversation) -m found }}
    stick match var(txn.conversation) if {{ var(txn.conversation) -m found }} {{ sc0_conn_cur le {_AT_ONCE} }}
    stick store-request var(txn.conversation) if {{ var(txn.conversation) -m found }}
"""


def _body_and_conversation(seconds: float) -> str:
    """Waits for the body; a conversation is identified by its first messages, up to the first one of the user."""
    return f"""\
    http-request wait-for-body time {_milliseconds(min(seconds, LONGEST_SECONDS))} if METH_POST
    acl is_chat path_end /v1/chat/completions
    acl has_system req.body,json_query('$.messages[0].role') -m str system developer
{_CONTENT.format(name="first", number=0, when="METH_POST is_chat")}\
{_CONTENT.format(name="second", number=1, when="METH_POST is_chat has_system")}\
    http-request set-var(txn.conversation) var(txn.first),concat(-,txn.second) if {{ var(txn.first) -m found }}
"""


def _full(name: str) -> str:
    """Refuses what a client asks beyond the open requests that it had when a replica last had no place for it.

    So the replicas, which know keys and shares, decide, and are not kept busy by what they cannot take. Where one of
    the open requests has ended, another is let through, and one as a probe each PROBE_MILLISECONDS.

    It comes after the body: an answer before that would close the connection. What a page of another origin asks goes
    to the replica, which knows what browsers want to see in its answer. A replica that a conversation sticks to says
    nothing about the others.
    """
    message = "the replicas have no place for one more request of this client; try again in a second"
    refusal = _refusal(429, message, "rate_limit_exceeded", "rate_limit_error")
    now = f"date(0,ms),mod({_CLOCK})"
    return f"""\
    http-request set-var(txn.key) req.hdr(authorization),xxh64
    http-request set-var(txn.client) str({name}),concat(-,txn.key),xxh64
    http-request set-var(txn.refused) var(txn.client),table_gpt(1,{FULL_TABLE})
    http-request set-var(txn.since) {now},sub(txn.refused)
    http-request set-var(txn.probes) var(txn.since),div({PROBE_MILLISECONDS})
    http-request set-var(txn.most) var(txn.client),table_gpt(0,{FULL_TABLE}),add(txn.probes)
    acl is_refused var(txn.refused) -m int gt 0
    acl is_recent var(txn.since) -m int 0:{FULL_MILLISECONDS}
    acl has_most var(txn.client),table_conn_cur({FULL_TABLE}),sub(txn.most) ge 0
    {refusal} hdr Retry-After 1 if METH_POST is_refused is_recent has_most !{{ req.hdr(origin) -m found }}
    http-request track-sc3 var(txn.client) table {FULL_TABLE} if METH_POST
    http-request set-var(txn.is_stuck) bool(true) if {{ var(txn.conversation),table_server_id({name}) gt 0 }}
    acl is_full res.hdr({FULL_HEADER}) -m found
    http-response sc-set-gpt(0,3) sc_conn_cur(3),sub(1) if is_full !{{ var(txn.is_stuck) -m bool }}
    http-response sc-set-gpt(1,3) {now} if is_full !{{ var(txn.is_stuck) -m bool }}
    http-response del-header {FULL_HEADER}
"""


def _lost(known: Path) -> str:
    """A request is known by its path and body. What is too long to be sent again was lost once, all others twice.

    One that a replica has answered does not end replicas: where it is lost, something else ended them.
    """
    refusal = _refusal(400, "two replicas ended while they had this request; it is refused for a while", "request_lost")
    return f"""\
    http-request set-var(txn.body) req.body,bytes(0,{_KNOWN_BYTES}),xxh64 if METH_POST
    http-request set-var(txn.size) req.body_size if METH_POST
    http-request set-var(txn.request) path,concat(-,txn.body,-),concat(,txn.size),xxh64 if METH_POST
    http-request track-sc2 var(txn.request) table {LOST_TABLE} if METH_POST
    http-request set-var(txn.refused_until) var(txn.request),map_str_int({known},0) if METH_POST
    {refusal} if METH_POST {{ sc_get_gpc0(2) ge {LOSSES} }} {{ sc_get_gpc1(2) eq 0 }}
    {refusal} if METH_POST {{ date,sub(txn.refused_until) lt 0 }}
    http-response sc-inc-gpc1(2)
    http-request set-var(txn.is_kept) bool(true) if {{ req.body_size le {REPLAYED_BYTES - _HEADERS_BYTES} }}
    http-after-response sc-inc-gpc0(2) if {{ status {LOST_STATUS} }}
    http-after-response sc-inc-gpc0(2) if {{ status {LOST_STATUS} }} {{ var(txn.is_kept) -m bool }}
"""


TABLES = f"""\
backend heliostat_sources
    stick-table type ipv6 size 100k expire 1m store conn_cur
backend {LOST_TABLE}
    stick-table type string len 20 size 100k expire {REFUSED_SECONDS}s store gpc0,gpc1
backend {FULL_TABLE}
    stick-table type string len 20 size 100k expire 1m store conn_cur,gpt(2)
"""
"""Sections at the end: connections by source, losses by request, and open requests by client, with how many it had
when it was refused, and when that was."""


def _milliseconds(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
