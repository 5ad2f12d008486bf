"""The models that an endpoint serves, and the lookup of the one that a request names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from heliostat.serve.access.auth import not_allowed
from heliostat.serve.access.keys import ApiKey
from heliostat.serve.errors import RequestError, Scope
from heliostat.serve.metrics import ADAPTER


@dataclass(frozen=True)
class ServedModels:
    """A served model with its adapters; an adapter is one, too."""

    name: str
    version: str
    task: str
    run_id: str
    created: datetime
    chats: bool = False
    """Whether it takes conversations."""
    adapters: tuple[ServedModels, ...] = ()
    parent: str | None = None
    """For an adapter: the name of the model at whose endpoint it is served."""

    @property
    def all_models(self) -> tuple[ServedModels, ...]:
        """The model, then its adapters."""
        return (self, *self.adapters)

    @property
    def label(self) -> str:
        """Metric label: `name@version` of an adapter, empty for the model itself."""
        return f"{self.name}@{self.version}" if self.parent else ""

    @property
    def card(self) -> dict[str, Any]:
        """Its object in `/v1/models`, without its adapters."""
        parent = {"parent": self.parent} if self.parent else {}
        return {
            "id": self.name,
            "object": "model",
            "created": int(self.created.timestamp()),
            "owned_by": "heliostat",
            "version": self.version,
            "task": self.task,
            "run_id": self.run_id,
            **parent,
        }

    def allowed_to(self, scope: Scope) -> list[ServedModels]:
        """The models that the request's key allows."""
        key: ApiKey | None = scope.get("heliostat.key")
        return [one for one in self.all_models if key is None or key.opens(one.name)]

    def pick(self, name: str | None, scope: Scope) -> ServedModels:
        """The model that a request names, or the model itself if None; records its label in the scope.

        Raises RequestError 404 if there is no such model, 403 if the request's key is for others.
        """
        found = next((one for one in self.all_models if name in (None, one.name)), None)
        mine = self.allowed_to(scope)
        if found is None:
            names = ", ".join(repr(one.name) for one in mine)
            raise RequestError(
                404,
                f"model: {name!r} is not served here; {names} {'is' if len(mine) == 1 else 'are'}",
                code="model_not_found",
                param="model",
            )
        if found not in mine:
            raise not_allowed(scope["heliostat.key"], found.name)
        scope[ADAPTER] = found.label
        return found
