"""Run by Ray instead of HAProxy: adapts the configuration that Ray wrote, then executes HAProxy.

Ray's template has no options for this: its metrics and stats pages listen on every interface, headers have no deadline,
requests are passed on before their body is complete and sent on until no replica is left, each one goes to a replica
however full all are, there is no TLS, and each turn of a conversation may go to another replica.

It imports only the standard library, since Ray starts it at each change of replicas.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from heliostat.cluster.haproxy import rules
from heliostat.cluster.haproxy.deadlines import Deadlines, deadlines
from heliostat.cluster.haproxy.losses import keep
from heliostat.cluster.haproxy.settings import Limits

LOOPBACK = "127.0.0.1"
TLS_CERTIFICATE, TLS_PORT = "HELIOSTAT_TLS_CERTIFICATE", "HELIOSTAT_TLS_PORT"
"""In HAProxy's environment: certificate and port for TLS; the plain port then listens on the loopback only."""
_FRONTEND = "frontend http_frontend\n"
_PAGES = ("frontend prometheus\n", "listen stats\n")


def adapted(configuration: str, environment: Mapping[str, str], known: Mapping[str, Deadlines], refused: Path) -> str:
    """Ray's configuration with the additions.

    `known` are the deadlines of the applications, by backend, and `refused` is the file of requests that an HAProxy
    before this one refused.
    """
    sections = re.split(r"^(?=[a-z])", configuration, flags=re.M)
    applications = _applications(configuration)
    for at, section in enumerate(sections):
        name = section.partition("\n")[0].removeprefix("backend ")
        if section.startswith(_PAGES):
            sections[at] = re.sub(r"^( *bind ).*:(\d+)$", rf"\g<1>{LOOPBACK}:\g<2>", section, flags=re.M)
        elif section.startswith("defaults\n"):
            sections[at] = re.sub(r"^ *errorfile .*\n", "", section, flags=re.M) + rules.ERRORS
        elif section.startswith(_FRONTEND):
            sections[at] = _secured(_begun(section, rules.frontend(Limits.read(environment))), environment)
        elif name in applications and section.startswith("backend "):
            addition = rules.backend(name, list(_replicas(section)), known.get(name, Deadlines()), refused)
            sections[at] = _begun(section, addition)
        elif section.startswith("backend default_backend\n"):
            sections[at] = f"backend {name}\n{rules.NOT_FOUND}"
    return rules.GLOBAL + "".join(sections) + rules.TABLES


def _begun(section: str, addition: str) -> str:
    head, _, rest = section.partition("\n")
    return f"{head}\n{addition}{rest}"


def _applications(configuration: str) -> set[str]:
    return set(re.findall(r"^ *use_backend (\S+) if ", configuration, re.M))


def _replicas(section: str) -> dict[str, str]:
    """Names and addresses of a backend's servers, without Ray's own proxy, which is the backup."""
    lines = re.findall(r"^ *server (\S+) (\S+)(.*)$", section, re.M)
    return {name: address for name, address, options in lines if not options.endswith(" backup")}


def replica_urls(configuration: str) -> dict[str, list[str]]:
    """By backend of an application: address and route (`host:port/route`) of each replica."""
    routes = dict(re.findall(r"^ *acl is_(\S+) path (\S+)$", configuration, re.M))
    backends = dict(re.findall(r"^backend (\S+)\n((?: .*\n|\n)*)", configuration, re.M))
    return {
        name: [address + routes.get(name, "/") for address in _replicas(backends[name]).values()]
        for name in sorted(_applications(configuration) & backends.keys())
    }


def _secured(frontend: str, environment: Mapping[str, str]) -> str:
    if not environment.get(TLS_PORT):
        return frontend
    tls = f"alpn h2,http/1.1 ssl-min-ver TLSv1.2 ssl crt {environment[TLS_CERTIFICATE]}"
    both = rf"\g<1>{LOOPBACK}:\g<3>" + "\n" + rf"\g<1>\g<2>:{environment[TLS_PORT]} {tls}"
    return re.sub(r"^( *bind )(.*):(\d+)$", both, frontend, count=1, flags=re.M)


def main(binary: str, *arguments: str) -> None:
    """Adapts the file after each `-f`, then executes `binary`."""
    for option, file in pairwise(arguments):
        if option == "-f":
            path, part = Path(file), Path(f"{file}.{os.getpid()}")
            written = path.read_text()
            known = deadlines(replica_urls(written), path.with_name("deadlines.json"))
            refused = path.with_name("refused.map")
            keep(re.findall(r"^ *stats socket (\S+)", written, re.M), refused)
            part.write_text(adapted(written, os.environ, known, refused))
            part.replace(path)
    os.execv(binary, [binary, *arguments])
