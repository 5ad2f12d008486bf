"""Run by Ray instead of HAProxy: adapts the configuration that Ray wrote, then executes HAProxy.

Ray's template has no options for this: its metrics and stats pages listen on every interface, requests are passed on
before their body is complete, there is no TLS, and each turn of a conversation may go to another replica.

It imports only the standard library, since Ray starts it at each change of replicas.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

LOOPBACK = "127.0.0.1"
BODY_SECONDS = 15
"""How long a client may take to send the body that HAProxy waits for."""
TLS_CERTIFICATE, TLS_PORT = "HELIOSTAT_TLS_CERTIFICATE", "HELIOSTAT_TLS_PORT"
"""In HAProxy's environment: certificate and port for TLS; the plain port then listens on the loopback only."""
_PAGES = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
_AT_ONCE = 2
"""Open requests with the same beginning that still stick to one replica. One conversation has no more; a beginning that
many share is soon in the cache of every replica."""
_CONTENT = """\
    http-request set-var(txn.{name}) req.body,json_query('$.messages[{number}].content'),xxh64 if {when}
    http-request set-var(txn.{name}) req.body,json_query('$.messages[{number}].content[0].text'),xxh64 if {when}
"""
_FRONTEND = f"""\
    http-request wait-for-body time {BODY_SECONDS}s if METH_POST
    acl is_chat path_end /v1/chat/completions
    acl has_system req.body,json_query('$.messages[0].role') -m str system developer
{_CONTENT.format(name="first", number=0, when="METH_POST is_chat")}\
{_CONTENT.format(name="second", number=1, when="METH_POST is_chat has_system")}\
    http-request set-var(txn.conversation) var(txn.first),concat(-,txn.second) if {{ var(txn.first) -m found }}
"""
"""A conversation is identified by its first messages, up to the first one of the user."""
_BACKEND = f"""\
    stick-table type string len 48 size 100k expire 30m store conn_cur
    http-request track-sc0 var(txn.conversation) if {{ var(txn.conversation) -m found }}
    stick match var(txn.conversation) if {{ var(txn.conversation) -m found }} {{ sc0_conn_cur le {_AT_ONCE} }}
    stick store-request var(txn.conversation) if {{ var(txn.conversation) -m found }}
"""


def adapted(configuration: str, environment: Mapping[str, str]) -> str:
    """Ray's configuration with the additions."""
    for port in filter(None, map(environment.get, _PAGES)):
        configuration = re.sub(rf"^( *bind )\*?:{port}$", rf"\g<1>{LOOPBACK}:{port}", configuration, flags=re.M)
    configuration = re.sub(r"^frontend http_frontend\n", rf"\g<0>{_FRONTEND}", configuration, flags=re.M)
    applications = set(re.findall(r"^ *use_backend (\S+) if ", configuration, re.M))
    configuration = re.sub(
        r"^backend (\S+)\n",
        lambda found: found[0] + _BACKEND if found[1] in applications else found[0],
        configuration,
        flags=re.M,
    )
    return _secured(configuration, environment)


def _secured(configuration: str, environment: Mapping[str, str]) -> str:
    if not environment.get(TLS_PORT):
        return configuration
    tls = f"alpn h2,http/1.1 ssl-min-ver TLSv1.2 ssl crt {environment[TLS_CERTIFICATE]}"
    head, opened, rest = configuration.partition("frontend http_frontend\n")
    both = rf"\g<1>{LOOPBACK}:\g<3>" + "\n" + rf"\g<1>\g<2>:{environment[TLS_PORT]} {tls}"
    return head + opened + re.sub(r"^( *bind )(.*):(\d+)$", both, rest, count=1, flags=re.M)


def main(binary: str, *arguments: str) -> None:
    """Adapts the file after each `-f`, then executes `binary`."""
    for option, file in pairwise(arguments):
        if option == "-f":
            part = Path(f"{file}.{os.getpid()}")
            part.write_text(adapted(Path(file).read_text(), os.environ))
            part.replace(file)
    os.execv(binary, [binary, *arguments])


if __name__ == "__main__":
    main(*sys.argv[1:])
