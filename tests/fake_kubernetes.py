"""A small Kubernetes API server: keeps objects, knows who owns which fields, and can fail.

It knows what deployments need of the real one: discovery, server-side apply with conflicts (all lists atomic, as those
of KubeRay's kinds are), JSON patches, generations, finalizers, selectors, dry runs. What it does not know it answers
with 400, so that no test passes by it. What schemas refuse is tested elsewhere, against the schemas.
"""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Manifest = dict[str, Any]
KINDS: dict[str, dict[str, tuple[str, bool]]] = {
    "v1": {
        "ConfigMap": ("configmaps", True),
        "Event": ("events", True),
        "Namespace": ("namespaces", False),
        "Node": ("nodes", False),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
        "Pod": ("pods", True),
        "ResourceQuota": ("resourcequotas", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "ServiceAccount": ("serviceaccounts", True),
    },
    "apps/v1": {"Deployment": ("deployments", True), "StatefulSet": ("statefulsets", True)},
    "batch/v1": {"CronJob": ("cronjobs", True), "Job": ("jobs", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
}
KUBERAY: dict[str, dict[str, tuple[str, bool]]] = {
    "ray.io/v1": {
        "RayCluster": ("rayclusters", True),
        "RayCronJob": ("raycronjobs", True),
        "RayJob": ("rayjobs", True),
        "RayService": ("rayservices", True),
    }
}
MONITORING: dict[str, dict[str, tuple[str, bool]]] = {
    "monitoring.coreos.com/v1": {"PodMonitor": ("podmonitors", True), "PrometheusRule": ("prometheusrules", True)}
}
"""What the Prometheus operator brings."""
Key = tuple[str, str, str]
"""Path of the collection without its namespace, namespace, name."""
Path_ = tuple[str, ...]


class RefusalError(Exception):
    """An answer that is no success."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status, self.reason = status, reason


@dataclass
class Stored:
    """One object, and who applied or wrote which of its leaves."""

    live: Manifest
    owners: dict[tuple[str, str], set[Path_]] = field(default_factory=dict)
    """(manager, `Apply` or `Update`) -> paths of leaves."""


class FakeKubernetes:
    """Starts at once; `kubeconfig` writes how to reach it."""

    def __init__(self, kinds: Mapping[str, Mapping[str, tuple[str, bool]]] | None = None) -> None:
        self.kinds = {**KINDS, **KUBERAY} if kinds is None else kinds
        self.objects: dict[Key, Stored] = {}
        self.requests: list[tuple[str, str]] = []
        """Method and path of all that was asked, dry runs marked by `?dryRun`."""
        self.faults: list[Callable[[str, str], None]] = []
        """Each is given method and path before anything is done, and may raise RefusalError."""
        self.reactions: list[Callable[[Manifest], None]] = []
        """Each is given an object that has changed: what controllers do."""
        self.logs: dict[str, str] = {}
        """Pod -> lines, each behind its time."""
        self.token = "right"
        self._lock, self._version = threading.RLock(), 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, file: Path, *names: str, namespace: str = "models", token: str = "right") -> Path:
        """Writes one with contexts of these names, of which the first is current."""
        contexts = [{"name": name, "context": {"cluster": "c", "user": "u", "namespace": namespace}} for name in names]
        users = [{"name": "u", "user": {"token": token}}]
        clusters = [{"name": "c", "cluster": {"server": self.url}}]
        kinds = {"apiVersion": "v1", "kind": "Config", "current-context": names[0]}
        file.write_text(yaml.safe_dump({**kinds, "contexts": contexts, "users": users, "clusters": clusters}))
        return file

    # What tests do beside the API.

    def find(self, kind: str, name: str, namespace: str = "models") -> Manifest | None:
        """A copy of the object."""
        with self._lock:
            found = self.objects.get(self._key(kind, namespace, name))
            return copy.deepcopy(found.live) if found else None

    def write(self, manifest: Manifest, manager: str = "test", namespace: str = "models") -> Manifest:
        """What a controller writes: replaces the object, or makes it; `manager` owns the leaves that differ."""
        manifest = copy.deepcopy(manifest)
        key = self._key(manifest["kind"], namespace, manifest["metadata"]["name"])
        with self._lock:
            before = self.objects.get(key)
            owners = before.owners if before else {}
            old = _leaves(before.live) if before else {}
            changed = {path for path, value in _leaves(manifest).items() if old.get(path, ...) != value}
            mine = {path for path in changed if path[0] != "status" and path[:2] != ("metadata", "managedFields")}
            for others in owners.values():
                others -= mine
            owners[(manager, "Update")] = owners.get((manager, "Update"), set()) | mine
            self._keep(key, manifest, owners)
        return self._react(manifest)

    def remove(self, kind: str, name: str, namespace: str = "models") -> None:
        """The object is gone, finalizers or not."""
        with self._lock:
            self.objects.pop(self._key(kind, namespace, name), None)

    def all_of(self, kind: str) -> list[Manifest]:
        with self._lock:
            return [copy.deepcopy(one.live) for key, one in sorted(self.objects.items()) if one.live["kind"] == kind]

    # What requests do.

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Any, content: str, token: str) -> Any:
        if token != f"Bearer {self.token}":
            raise RefusalError(401, "Unauthorized", "Unauthorized")
        self.requests.append((method, path + "?dryRun" * ("dryRun" in query)))
        for fault in list(self.faults):
            fault(method, path)
        if path == "/version":
            return {"major": "1", "minor": "36", "gitVersion": "v1.36.0"}
        if path == "/apis":
            groups = [{"preferredVersion": {"groupVersion": one}} for one in self.kinds if "/" in one]
            return {"groups": groups}
        for api_version, kinds in self.kinds.items():
            root = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
            if path == root:
                return {"resources": [_resource(kind, *where) for kind, where in kinds.items()]}
            if path.startswith(root + "/"):
                return self._at(api_version, method, path[len(root) + 1 :].split("/"), query, body, content)
        raise RefusalError(404, "NotFound", "the server could not find the requested resource")

    def _at(
        self, api_version: str, method: str, parts: list[str], query: Mapping[str, str], body: Any, content: str
    ) -> Any:
        namespace = ""
        if parts[0] == "namespaces" and len(parts) > 2:
            namespace, parts = parts[1], parts[2:]
        kind = next((kind for kind, (plural, _) in self.kinds[api_version].items() if plural == parts[0]), None)
        if kind is None:
            raise RefusalError(404, "NotFound", "the server could not find the requested resource")
        if parts[2:] == ["status"]:
            parts = parts[:2]  # controllers write it as a part; here it is one of the object's fields
        if parts[2:] == ["log"]:
            return self._log(parts[1], query)
        key = (f"{api_version}/{kind}", namespace, parts[1] if len(parts) > 1 else "")
        with self._lock:
            if method == "GET":
                return self._get(key, query)
            if method == "DELETE":
                return self._delete(key)
            if method == "PATCH" and content == "application/apply-patch+yaml":
                done = self._apply(key, body, query)
            elif method == "PATCH" and content == "application/json-patch+json":
                done = self._json_patch(key, body, query.get("fieldManager", "test"))
            else:
                raise RefusalError(400, "BadRequest", f"this fake does not know {method} {content}")
        return done if "dryRun" in query else self._react(done)

    def _log(self, pod: str, query: Mapping[str, str]) -> str:
        if pod not in self.logs:
            raise RefusalError(400, "BadRequest", f'container "c" in pod "{pod}" is waiting to start')
        since = query.get("sinceTime", "")
        return "".join(line for line in self.logs[pod].splitlines(True) if line.split(" ")[0] >= since)

    def _get(self, key: Key, query: Mapping[str, str]) -> Any:
        if key[2]:
            return copy.deepcopy(self._found(key).live)
        wanted = [*_selected(query.get("labelSelector", "")), *_selected(query.get("fieldSelector", ""), fields=True)]
        items = [
            copy.deepcopy(stored.live)
            for (kind, namespace, _), stored in sorted(self.objects.items())
            if kind == key[0] and namespace == key[1] and all(matches(stored.live) for matches in wanted)
        ]
        return {"items": items}

    def _delete(self, key: Key) -> Any:
        stored = self._found(key)
        if stored.live["metadata"].get("finalizers"):
            stored.live["metadata"].setdefault("deletionTimestamp", "2026-01-01T00:00:00Z")
            self._react(stored.live)
        else:
            del self.objects[key]
            if key[0] == "v1/Namespace":
                self.objects = {one: kept for one, kept in self.objects.items() if one[1] != key[2]}
        return {"kind": "Status", "status": "Success"}

    def _apply(self, key: Key, body: Manifest, query: Mapping[str, str]) -> Manifest:
        if query.get("fieldValidation") == "Strict" and "unknownField" in body.get("spec", {}):
            raise RefusalError(400, "BadRequest", f"{key[2]}: .spec.unknownField: field not declared in schema")
        manager, stored = (query["fieldManager"], "Apply"), self.objects.get(key)
        mine = {path: value for path, value in _leaves(body).items() if not _is_identity(path)}
        live = _leaves(stored.live) if stored else {}
        owners = copy.deepcopy(stored.owners) if stored else {}
        self._conflicts(key, manager, mine, live, owners, query.get("force") == "true")
        gone = owners.get(manager, set()) - mine.keys()
        kept = set().union(*(paths for who, paths in owners.items() if who != manager))
        result = {path: value for path, value in live.items() if path not in gone - kept}
        result.update(mine)
        owners[manager] = set(mine)
        found = _tree({**result, ("apiVersion",): body["apiVersion"], ("kind",): body["kind"]})
        found["metadata"]["name"] = key[2]
        if "dryRun" in query:
            return found
        return self._keep(key, found, owners)

    def _conflicts(
        self,
        key: Key,
        manager: tuple[str, str],
        mine: Mapping[Path_, Any],
        live: Mapping[Path_, Any],
        owners: dict[tuple[str, str], set[Path_]],
        force: bool,
    ) -> None:
        differing = {path for path, value in mine.items() if path in live and live[path] != value}
        for who, paths in owners.items():
            if who != manager and (contested := paths & differing):
                if not force:
                    field_ = "." + ".".join(min(contested))
                    message = f'Apply failed with 1 conflict: conflict with "{who[0]}" using {key[0]}: {field_}'
                    raise RefusalError(409, "Conflict", message)
                paths -= contested

    def _json_patch(self, key: Key, operations: list[Mapping[str, Any]], manager: str) -> Manifest:
        stored = self._found(key)
        found = copy.deepcopy(stored.live)
        for one in operations:
            *place, last = [part.replace("~1", "/").replace("~0", "~") for part in one["path"].split("/")[1:]]
            target: Any = found
            for part in place:
                target = target[int(part)] if isinstance(target, list) else target[part]
            at: Any = int(last) if isinstance(target, list) else last
            if one["op"] == "test" and target[at] != one["value"]:
                raise RefusalError(422, "Invalid", f"the server rejected our request: testing {one['path']} failed")
            if one["op"] in ("add", "replace"):
                target[at] = one["value"]
            elif one["op"] == "remove":
                del target[at]
        changed = {path for path, value in _leaves(found).items() if _leaves(stored.live).get(path, ...) != value}
        stored.owners.setdefault((manager, "Update"), set()).update(changed)
        return self._keep(key, found, stored.owners)

    def _keep(self, key: Key, found: Manifest, owners: dict[tuple[str, str], set[Path_]]) -> Manifest:
        before = self.objects.get(key)
        old, meta = (before.live if before else {}), found["metadata"]
        meta.setdefault("uid", old.get("metadata", {}).get("uid") or f"uid-{len(self.objects)}-{key[2]}")
        meta.setdefault("namespace", key[1])
        if not meta["namespace"]:
            del meta["namespace"]
        generation = old.get("metadata", {}).get("generation", 0)
        meta["generation"] = generation + (old.get("spec") != found.get("spec") or not generation)
        meta["managedFields"] = _managed(owners)
        same = {**meta, "resourceVersion": old.get("metadata", {}).get("resourceVersion")}
        if not old or {**found, "metadata": same} != old:
            self._version += 1
            meta["resourceVersion"] = str(self._version)
        else:
            meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        self.objects[key] = Stored(found, owners)
        if meta.get("deletionTimestamp") and not meta.get("finalizers"):
            del self.objects[key]
        return copy.deepcopy(found)

    def _react(self, found: Manifest) -> Manifest:
        for reaction in list(self.reactions):
            reaction(copy.deepcopy(found))
        return found

    def _found(self, key: Key) -> Stored:
        if key not in self.objects:
            raise RefusalError(404, "NotFound", f"{key[0]} {key[2]!r} not found")
        return self.objects[key]

    def _key(self, kind: str, namespace: str, name: str) -> Key:
        [(api_version, is_namespaced)] = [
            (version, kinds[kind][1]) for version, kinds in self.kinds.items() if kind in kinds
        ]
        return f"{api_version}/{kind}", namespace if is_namespaced else "", name


def _resource(kind: str, plural: str, is_namespaced: bool) -> dict[str, Any]:
    return {"kind": kind, "name": plural, "namespaced": is_namespaced, "verbs": ["delete", "get", "list", "patch"]}


def _is_identity(path: Path_) -> bool:
    return path in (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace"))


def _leaves(value: Any, at: Path_ = ()) -> dict[Path_, Any]:
    """Path -> value of what has no parts of its own; a list is one."""
    if isinstance(value, dict) and (value or not at):
        return {path: leaf for key, part in value.items() for path, leaf in _leaves(part, (*at, key)).items()}
    return {at: value}


def _tree(leaves: Mapping[Path_, Any]) -> Manifest:
    found: Manifest = {}
    for path, value in leaves.items():
        at = found
        for part in path[:-1]:
            at = at.setdefault(part, {})
        at[path[-1]] = copy.deepcopy(value)
    found.setdefault("metadata", {})
    return found


def _managed(owners: Mapping[tuple[str, str], set[Path_]]) -> list[dict[str, Any]]:
    """As `metadata.managedFields` says it."""
    return [
        {
            "manager": manager,
            "operation": operation,
            "fieldsType": "FieldsV1",
            "fieldsV1": _fields(paths),
        }
        for (manager, operation), paths in sorted(owners.items())
        if paths
    ]


def _fields(paths: set[Path_]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(paths):
        at = found
        for part in path:
            at = at.setdefault(f"f:{part}", {})
    return found


def _selected(selector: str, fields: bool = False) -> Iterator[Callable[[Manifest], bool]]:
    for term in filter(None, selector.split(",")):
        yield partial(_has, term, fields)


def _has(term: str, fields: bool, one: Manifest) -> bool:
    key, _, value = term.partition("=")
    return bool((_field(one, key) if fields else one["metadata"].get("labels", {}).get(key)) == value)


def _field(one: Manifest, path: str) -> Any:
    at: Any = one
    for part in path.split("."):
        at = (at or {}).get(part)
    return at


def _handler(fake: FakeKubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # an answer of two writes would wait 40 ms for an acknowledgement

        def _serve(self) -> None:
            parts = urlsplit(self.path)
            query = {key: values[0] for key, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            content, token = self.headers.get("Content-Type") or "", self.headers.get("Authorization") or ""
            try:
                status, said = 200, fake.answer(self.command, parts.path, query, body, content, token)
            except RefusalError as error:
                status = error.status
                said = {"kind": "Status", "message": str(error), "reason": error.reason, "code": status}
            sent = (said if isinstance(said, str) else json.dumps(said)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain" if isinstance(said, str) else "application/json")
            self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_PATCH = do_DELETE = do_POST = do_PUT = _serve  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler
