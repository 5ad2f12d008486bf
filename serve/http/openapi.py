"""OpenAPI request bodies for routes that parse the body themselves."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


def body_of(schema: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route whose JSON body has this schema."""
    full = schema.model_json_schema()
    content = {"application/json": {"schema": _inlined(full, full.pop("$defs", {}))}}
    return {"requestBody": {"required": True, "content": content}}


def _inlined(part: Any, definitions: dict[str, Any]) -> Any:
    """Replaces each `$ref` by its definition: FastAPI does not take in definitions from `openapi_extra`."""
    if isinstance(part, list):
        return [_inlined(one, definitions) for one in part]
    if not isinstance(part, dict):
        return part
    if "$ref" in part:
        return _inlined(definitions[part["$ref"].rpartition("/")[2]], definitions)
    return {key: _inlined(value, definitions) for key, value in part.items()}
