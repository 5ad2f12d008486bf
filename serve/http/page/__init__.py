"""The web page of an endpoint: try the model in a browser, and copy the equivalent API calls."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from heliostat.serve.models.served_models import ServedModels

PICTURES = ("image-classification", "image-generation")
"""Tasks whose page shows images; the Content-Security-Policy allows them as `data:` URLs only."""
PLACE = "/*SERVED*/{}"


def page(served: ServedModels, needs_key: bool, explains: bool) -> APIRouter:
    """The route `/`. The Content-Security-Policy names the script's hash, so that the browser runs no other script."""
    about = {
        "name": served.name, "version": served.version, "task": served.task, "needs_key": needs_key,
        "explains": explains, "chats": served.chats,
    }  # fmt: skip
    source = files(__package__).joinpath("index.html").read_text(encoding="utf-8")
    text = source.replace(PLACE, json.dumps(about).replace("<", "\\u003c"))
    script = re.search("<script>(.*?)</script>", text, re.DOTALL)
    assert script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    pictures = "img-src data:; " if served.task in PICTURES else ""
    headers = {
        "Content-Security-Policy": f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        f"{pictures}connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
        "Cache-Control": "no-cache",
    }
    router = APIRouter()

    @router.get("/", include_in_schema=False)
    async def index() -> HTMLResponse:
        return HTMLResponse(text, headers=headers)

    return router
