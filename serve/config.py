"""The `serve` section of a spec."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from heliostat.cluster.haproxy.settings import (
    BODY_SECONDS,
    HEADER_SECONDS,
    LONGEST_SECONDS,
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_SOURCE,
)
from heliostat.infra.config.strict import StrictModel
from heliostat.serve.objectives import Objectives

LOOPBACK = ("127.0.0.1", "localhost", "::1")
Positive = Annotated[int, Field(gt=0)]


def _is_reference(text: str) -> str:
    if not re.fullmatch(r"models:/[^/@]+(/\d+|@[^/@]+)", text):
        raise ValueError("models:/NAME/VERSION or models:/NAME@ALIAS is allowed")
    return text


def _is_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError("letters, digits, dots, dashes and _ are allowed, 63 at most, a letter or digit first")
    return text


def _is_origin(text: str) -> str:
    if text != "*" and not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?", text):
        raise ValueError(
            "scheme, host and port as a browser sends them, such as https://app.example.com, or * is allowed"
        )
    return text


Origin = Annotated[str, AfterValidator(_is_origin)]
Reference = Annotated[str, AfterValidator(_is_reference)]
AdapterName = Annotated[str, AfterValidator(_is_name)]


def check_names(model: str, adapters: Iterable[str]) -> None:
    """Raises ValueError if an adapter has the name of the model itself."""
    if model in adapters:
        raise ValueError(f"serve.adapters.{model}: {model!r} is the name of the model itself; another name is needed")


class Replicas(StrictModel):
    """Between how many replicas the endpoint scales."""

    min: Annotated[int, Field(ge=0)] = 1
    """With 0, an endpoint that nobody asks takes nothing, and the first request waits for a replica to start."""
    max: Positive = 1

    @property
    def first(self) -> int:
        """The initial number of replicas."""
        return max(1, self.min)

    @model_validator(mode="after")
    def _ordered(self) -> Replicas:
        if self.min > self.max:
            raise ValueError(f"serve.replicas: min {self.min} is above max {self.max}")
        return self


class Tls(StrictModel):
    """Where clients connect with TLS."""

    certificate: Annotated[str, Field(pattern=r"^/[\w./-]+$")]
    """A PEM file with the certificate, those of its issuers and the private key, at this path on every node."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8443
    """The plain `serve.port` is then open to its own machine only."""


class Ingress(StrictModel):
    """What clients may hold of the address, which all endpoints of a Ray share and must agree about."""

    header_seconds: Annotated[float, Field(gt=0, le=3600)] = HEADER_SECONDS
    """How long a client may take to send the headers of a request."""
    max_connections: Positive = MAX_CONNECTIONS
    """Open connections in all; others wait until one closes."""
    max_connections_per_source: Positive = MAX_CONNECTIONS_PER_SOURCE
    """Open connections from one IP address; the next one is closed. A load balancer is one address for all clients."""


class ServeConfig(StrictModel):
    """One endpoint."""

    route: str | None = None
    """Path prefix; `/<name of the spec>` where left out."""
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    tls: Tls | None = None
    ingress: Ingress = Ingress()
    cors_origins: tuple[Origin, ...] = ()
    """Origins, such as `https://app.example.com`, whose pages may ask from a browser; `*` is any."""
    replicas: Replicas = Replicas()
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 8
    """Ongoing requests per replica that autoscaling aims at."""
    target_first_token_seconds: Annotated[float, Field(gt=0)] | None = None
    """`causal-lm`: replicas are added while first tokens take longer on average, however few requests are ongoing."""
    max_ongoing_requests: Positive = 64
    """Requests that a replica works on or holds; the next one gets 429. One key gets three quarters of them at most."""
    upscale_delay_seconds: Annotated[float, Field(ge=0)] = 5
    downscale_delay_seconds: Annotated[float, Field(ge=0)] = 60
    scale_to_zero_delay_seconds: Annotated[float, Field(ge=0)] = 300
    """Where `replicas.min` is 0: how long the last replica stays without a request."""
    max_queued_requests: Positive = 64
    """Requests that wait while there is no replica; the next one gets 429."""
    cpus_per_replica: Annotated[float, Field(gt=0)] = 1
    gpus_per_replica: Annotated[float, Field(ge=0)] = 0
    auth: Literal["keys", "none"] = "keys"
    """`keys`: requests carry `Authorization: Bearer KEY`; keys are made by `heliostat keys`."""
    page: bool | None = None
    """A page at the route, on which a person asks the model; where left out, on endpoints of this machine only."""
    max_body_bytes: Positive = 1_000_000
    body_timeout_seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS)] = BODY_SECONDS
    """How long the body of a request may take to arrive; then 408. Until it is here, it takes no place of others."""
    max_batch_size: Positive = 32
    """Inputs that the model takes at once."""
    max_tokens: Positive = 512
    """`causal-lm`: tokens that one answer may have."""
    timeout_seconds: Annotated[float, Field(gt=0)] = 60
    """How long one answer may take, up to its last token. A replica that stops waits this long for open answers."""
    objectives: Objectives = Objectives()
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    """`causal-lm`: what generates. `auto` is vLLM where it is installed and has code of its own for the model."""
    vllm: dict[str, Any] = {}
    """Options of vLLM's server by name, such as `max_model_len: 4096`; what Heliostat sets itself is refused."""
    adapters: dict[AdapterName, Reference] = {}
    """`causal-lm`: published adapters of the same base model, each under the name by which requests ask for it, such as
    `legal: models:/legal@production`."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """`auto`: bf16 on a replica whose device computes it, fp32 on others; exported programs always use fp32."""

    @property
    def has_page(self) -> bool:
        """Whether the endpoint has a page."""
        return self.host in LOOPBACK if self.page is None else self.page

    @field_validator("route")
    @classmethod
    def _is_a_prefix(cls, route: str | None) -> str | None:
        if route is not None and not re.fullmatch(r"/|(/[A-Za-z0-9._~-]+)+", route):
            raise ValueError("a path such as /sentiment is allowed: it starts with a slash and ends without one")
        return route


def reachable(host: str) -> str:
    """An address by which this machine reaches a server that listens on `host`."""
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
