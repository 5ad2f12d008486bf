"""What an endpoint says of its requests in `/openapi.json`, where routes read their bodies themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def body_of(schema: type[BaseModel]) -> dict[str, Any]:
    """For a route's `openapi_extra`: its body is this."""
    full = schema.model_json_schema()
    content = {"application/json": {"schema": _inlined(full, full.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:
    """With each reference replaced by what it refers to: FastAPI takes in no definitions that are not its own."""
    if isinstance(part, list):
        return [_inlined(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in part.items()}
