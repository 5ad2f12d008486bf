"""Which cluster is meant: a context of the kubeconfig, named or confirmed."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from heliostat.cluster.deploy.api import Api
from heliostat.infra.errors import ConfigError, ResourceError


def connect(context: str | None, namespace: str | None, confirm: Callable[[str], bool] | None) -> Api:
    """The namespace of a context, by default the context's own; sends nothing.

    Without a name, the kubeconfig's current context is taken if `confirm` says yes to a line that names it; None where
    nobody can be asked. Raises ConfigError for a context that is not there, or is neither named nor confirmed, and
    ResourceError where the kubernetes package is not installed.
    """
    try:
        from kubernetes import client, config
        from kubernetes.config.config_exception import ConfigException
    except ModuleNotFoundError:
        raise ResourceError(
            "the package kubernetes is not here; pip install 'heliostat[kubernetes]' brings it"
        ) from None

    file = os.environ.get("KUBECONFIG") or "~/.kube/config"
    try:
        contexts, current = config.list_kube_config_contexts(file)
        found = _named(context, contexts) if context else _confirmed(current, namespace, contexts, confirm)
        settings = client.Configuration()
        config.load_kube_config(file, context=found["name"], client_configuration=settings, persist_config=False)
    except (ConfigException, OSError, ValueError) as error:
        raise ConfigError(f"{file}: {' '.join(str(error).split())}") from None
    settings.retries = False
    return Api(client.ApiClient(settings), found["name"], namespace or _namespace(found))


def _named(context: str, contexts: list[dict[str, Any]]) -> dict[str, Any]:
    found = next((one for one in contexts if one["name"] == context), None)
    if found is None:
        raise ConfigError(f"--context: {context!r} given; the kubeconfig has {_names(contexts)}")
    return found


def _confirmed(
    current: dict[str, Any],
    namespace: str | None,
    contexts: list[dict[str, Any]],
    confirm: Callable[[str], bool] | None,
) -> dict[str, Any]:
    name, place = current["name"], namespace or _namespace(current)
    if confirm is None:
        raise ConfigError(f"--context: not given; the kubeconfig has {_names(contexts)}, of which {name} is current")
    if not confirm(f"the kubeconfig's current context is {name}; is its namespace {place} meant?"):
        raise ConfigError("--context: not given, and the current one not confirmed; nothing is changed")
    return current


def _namespace(context: dict[str, Any]) -> str:
    return context.get("context", {}).get("namespace") or "default"


def _names(contexts: list[dict[str, Any]]) -> str:
    return ", ".join(sorted(one["name"] for one in contexts))
