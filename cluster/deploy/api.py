"""One namespace of a Kubernetes cluster, by its REST API.

The kubernetes package reads the kubeconfig and signs requests. Its own dynamic client keeps the kinds of a cluster in a
file of the shared temporary folder, so the few paths that are needed are found here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from heliostat.cluster.kubernetes.build import Manifest
from heliostat.infra.errors import KubernetesError

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

MANAGER = "heliostat"
"""Our name among the managers of an object's fields."""
SECONDS = (5, 60)
"""How long a connection and an answer may take."""


class RefusedError(KubernetesError):
    """The server's answer to a request that it does not carry out."""

    def __init__(self, message: str, status: int, reason: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status."""
        self.reason = reason
        """Kubernetes' own word, such as `Conflict`."""

    @property
    def is_transient(self) -> bool:
        """Whether the same request may be carried out later: the server is busy, or unwell."""
        return self.status == 429 or self.status >= 500


class UnansweredError(KubernetesError):
    """Nothing answers at the cluster's address, or not in time."""


@dataclass(frozen=True)
class Reference:
    """Which object."""

    api_version: str
    kind: str
    name: str

    @classmethod
    def of(cls, manifest: Manifest) -> Reference:
        """That of an object."""
        return cls(manifest["apiVersion"], manifest["kind"], manifest["metadata"]["name"])

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Resource:
    """Where objects of a kind are."""

    plural: str
    is_namespaced: bool
    is_kept: bool
    """Whether there are objects of it, to be listed and deleted."""


class Api:
    """The objects of one namespace. Methods raise RefusedError, or UnansweredError if nothing answers in time."""

    def __init__(self, client: ApiClient, context: str, namespace: str) -> None:
        self.context = context
        self.namespace = namespace
        self._client = client
        self._resources: dict[str, dict[str, Resource]] = {}

    @property
    def server(self) -> str:
        """The URL of the API."""
        return str(self._client.configuration.host)

    def apply(self, manifest: Manifest, *, force: bool = False, dry_run: bool = False) -> Manifest:
        """Applies an object on the server's side; returns it as it is then, or would be with `dry_run`.

        Fields that the server's schema does not have are refused. With `force`, fields of other managers become ours.
        """
        query = {"fieldManager": MANAGER, "force": json.dumps(force), "fieldValidation": "Strict"}
        if dry_run:
            query["dryRun"] = "All"
        path = self._path(Reference.of(manifest))
        return self._ask("PATCH", path, query, manifest, "application/apply-patch+yaml")

    def patch(self, reference: Reference, operations: Iterable[Mapping[str, Any]]) -> Manifest:
        """Changes single fields by JSON patch (RFC 6902)."""
        query = {"fieldManager": MANAGER}
        return self._ask("PATCH", self._path(reference), query, list(operations), "application/json-patch+json")

    def get(self, reference: Reference) -> Manifest | None:
        """The object, or None if there is none, or no such kind."""
        try:
            return self._ask("GET", self._path(reference))
        except RefusedError as error:
            if error.status == 404:
                return None
            raise

    def all_of(
        self, api_version: str, kind: str, *, labels: str = "", fields: str = "", everywhere: bool = False
    ) -> list[Manifest]:
        """Objects of a kind: of the namespace, or of all; none where the cluster lacks the kind."""
        query = {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        try:
            found = self._ask("GET", self._path(Reference(api_version, kind, ""), everywhere), query)
        except RefusedError as error:
            if error.status == 404:
                return []
            raise
        return [{"apiVersion": api_version, "kind": kind, **one} for one in found.get("items") or []]

    def delete(self, reference: Reference) -> bool:
        """Asks for the object's end, what it owns with it; returns False if it is not there."""
        try:
            self._ask("DELETE", self._path(reference), {"propagationPolicy": "Background"})
        except RefusedError as error:
            if error.status == 404:
                return False
            raise
        return True

    def logs(self, pod: str, since: str | None = None) -> str:
        """Lines of a pod's one container, each behind its time, from `since` (RFC 3339) on."""
        path = f"{self._path(Reference('v1', 'Pod', pod))}/log"
        query = {"timestamps": "true", **({"sinceTime": since} if since else {})}
        return self._send("GET", path, query).decode("utf-8", "replace")

    def has(self, api_version: str, kind: str) -> bool:
        """Whether the cluster knows the kind."""
        return kind in self._kinds(api_version)

    def kinds(self) -> list[tuple[str, str]]:
        """API version and kind of all that a namespace can hold and that can be listed and deleted."""
        groups = self._ask("GET", "/apis")["groups"]
        found = []
        for version in ("v1", *(group["preferredVersion"]["groupVersion"] for group in groups)):
            try:
                resources = self._kinds(version)
            except RefusedError as error:
                if not error.is_transient:  # an aggregated API whose own server is away
                    raise
                continue
            found += [(version, kind) for kind, one in resources.items() if one.is_namespaced and one.is_kept]
        return found

    def version(self) -> tuple[int, int]:
        """Major and minor version of Kubernetes."""
        found = self._ask("GET", "/version")
        return int(found["major"]), int(str(found["minor"]).rstrip("+"))

    def _path(self, reference: Reference, everywhere: bool = False) -> str:
        resource = self._kinds(reference.api_version).get(reference.kind)
        if resource is None:
            raise RefusedError(f"{self.context}: no kind {reference.kind} of {reference.api_version}", 404, "NotFound")
        place = f"/namespaces/{self.namespace}" if resource.is_namespaced and not everywhere else ""
        return f"{_root(reference.api_version)}{place}/{resource.plural}" + f"/{reference.name}" * bool(reference.name)

    def _kinds(self, api_version: str) -> dict[str, Resource]:
        if api_version not in self._resources:
            try:
                found = self._ask("GET", _root(api_version))["resources"]
            except RefusedError as error:
                if error.status != 404:
                    raise
                found = []
            whole = [one for one in found if "/" not in one["name"]]  # the others are parts, such as pods/log
            self._resources[api_version] = {
                one["kind"]: Resource(one["name"], one["namespaced"], {"delete", "list"} <= set(one["verbs"]))
                for one in whole
            }
        return self._resources[api_version]

    def _ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None, content: str = ""
    ) -> Any:
        return json.loads(self._send(method, path, query, body, content))

    def _send(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None, content: str = ""
    ) -> bytes:
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        headers = {"Accept": "application/json, */*", **({"Content-Type": content} if content else {})}
        try:
            answer = self._client.call_api(
                path, method, query_params=list((query or {}).items()), header_params=headers, body=body,
                auth_settings=["BearerToken"], _preload_content=False, _request_timeout=SECONDS,
            )  # fmt: skip
            return bytes(answer.data)
        except ApiException as error:
            raise _refusal(error, f"{self.context}: {method} {path}") from None
        except (HTTPError, OSError) as error:
            why = getattr(error, "reason", None) or error
            raise UnansweredError(f"{self.context}: {self.server} does not answer: {why}") from None


def _root(api_version: str) -> str:
    return f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"


def _refusal(error: Any, what: str) -> RefusedError:
    """In the server's words, which name the object."""
    try:
        said = json.loads(error.body)
    except (TypeError, ValueError):
        said = {}
    if error.status == 401:
        said = {"message": f"{what}: the credentials of the kubeconfig are refused", "reason": "Unauthorized"}
    message = " ".join(str(said.get("message") or f"{what}: {error.status} {error.reason}").split())
    return RefusedError(message, int(error.status or 0), str(said.get("reason") or ""))
