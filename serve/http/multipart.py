"""Parses forms with files (`multipart/form-data`, RFC 7578)."""

from __future__ import annotations

from collections.abc import Collection
from email.message import Message
from email.parser import BytesHeaderParser
from typing import Any

from fastapi import Request

from heliostat.serve.errors import RequestError, invalid

FORM = "multipart/form-data"
MAX_PARTS = 1000
MOST_HEAD_BYTES = 4096
"""Size limit for the headers of one part (field name and file name)."""
MOST_PARAMETERS = 16
"""Limit for the parameters of one header: the standard library's parser takes time quadratic in them."""


def media_type(request: Request) -> str:
    """Media type of the body according to its Content-Type, such as FORM."""
    return _content_type(request).get_content_type()


def read_form(request: Request, body: bytes, several: Collection[str] = ()) -> dict[str, Any]:
    """The fields by name: a list of bytes for names in `several`, text for all others.

    Raises RequestError 400 if the body is not a valid form, and 422 if another field occurs twice.
    """
    found: dict[str, Any] = {}
    for name, content in _parts(body, _content_type(request).get_boundary()):
        if name in several:
            found.setdefault(name, []).append(content)
        elif name in found:
            raise invalid(name, f"{name[:60]!r}: given twice")
        else:
            found[name] = content.decode(errors="replace")
    return found


def _content_type(request: Request) -> Message:
    value = request.headers.get("content-type", "")
    if value.count(";") > MOST_PARAMETERS:
        raise _broken(f"its Content-Type has more than {MOST_PARAMETERS} parameters")
    header = Message()
    header["content-type"] = value
    return header


def _parts(body: bytes, boundary: str | None) -> list[tuple[str, bytes]]:
    """Name and content of each part. Splits at boundaries instead of reading line by line."""
    if not boundary:
        raise _broken("its Content-Type has no boundary")
    mark = b"\r\n--" + boundary.encode("ascii", "replace")
    _, *parts = (b"\r\n" + body).split(mark, MAX_PARTS + 1)
    if len(parts) > MAX_PARTS:
        raise _broken(f"more than {MAX_PARTS} parts")
    if not parts or not parts[-1].startswith(b"--"):
        raise _broken("its last boundary is missing")
    return [_part(part) for part in parts[:-1]]


def _part(part: bytes) -> tuple[str, bytes]:
    head, blank, content = part.partition(b"\r\n\r\n")
    if len(head) > MOST_HEAD_BYTES or head.count(b";") > MOST_PARAMETERS:
        raise _broken(f"a part's head has more than {MOST_HEAD_BYTES} bytes or {MOST_PARAMETERS} parameters")
    name = BytesHeaderParser().parsebytes(head.lstrip()).get_param("name", header="content-disposition")
    if not blank or not isinstance(name, str) or not name:
        raise _broken("a part has no name")
    return name, content


def _broken(reason: str) -> RequestError:
    return RequestError(400, f"body: no valid form: {reason}", code="invalid_form")
