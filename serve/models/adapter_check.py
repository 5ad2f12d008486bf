"""Checks whether adapters can be served with a model, from their manifests and descriptions in storage."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat.infra.errors import ModelError
from heliostat.infra.registry import bundle
from heliostat.infra.registry.bundle import FileEntry, Manifest
from heliostat.infra.registry.published import (
    ADAPTER,
    CHAT_TEMPLATE,
    DESCRIPTION,
    WEIGHTS,
    PublishedModel,
    parse_description,
)
from heliostat.serve.models.adapter_settings import SETTINGS, parse_settings
from heliostat.serve.models.bundles import check_manifest, locate

if TYPE_CHECKING:
    from heliostat.serve.args import AppArgs

TASK = "causal-lm"
TOKENIZER = ("tokenizer.json", CHAT_TEMPLATE)
"""Files that must be the same for all models of an endpoint."""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Allowed values of vLLM's `max_lora_rank`."""


@dataclass(frozen=True)
class StoredBundle:
    """A bundle in storage whose manifest has been checked against its digest."""

    url: str
    manifest: Manifest
    endpoint_url: str | None

    @property
    def described(self) -> PublishedModel:
        """Its description."""
        return parse_description(self.read(DESCRIPTION), source=f"{self.url}/{DESCRIPTION}")

    @property
    def base(self) -> Mapping[str, FileEntry]:
        """The files of its base model, by name; of the model itself if it is not an adapter."""
        described = self.described
        if described.base is None:
            return self.below(WEIGHTS)
        return check_manifest(described.base.url, described.base.digest, self.endpoint_url).files

    def read(self, name: str) -> bytes:
        """Reads one file."""
        store, prefix = locate(self.url, self.endpoint_url)
        return bundle.read_file(store, prefix, name, self.manifest)

    def below(self, folder: str) -> dict[str, FileEntry]:
        """The files in one of its folders, by their names relative to it."""
        files = self.manifest.files.items()
        return {name.removeprefix(f"{folder}/"): entry for name, entry in files if name.startswith(f"{folder}/")}


def check_adapters(args: AppArgs) -> None:
    """Raises ModelError or IntegrityError, with the spec's key, for the first adapter that cannot be served.

    Reads manifests and descriptions but no weights, so that a command can refuse before it starts anything.
    """
    if not args.adapters:
        return
    model = stored(args.url, args.digest, args.storage.endpoint_url)
    described = model.described
    if described.task != TASK:
        raise ModelError(f"serve.adapters: given, and {args.name} is a {described.task} model; {TASK} is needed")
    if described.base:
        _check_settings(model, args.config.engine)
    base, tokenizer = model.base, model.below(ADAPTER if described.base else WEIGHTS)
    for name, one in args.adapters.items():
        with named(name):
            adapter = stored(one.url, one.digest, args.storage.endpoint_url)
            _check_is_one(adapter)
            _check_base(adapter, base, f"{args.name} version {args.version}")
            _check_tokenizer(adapter, tokenizer)
            _check_settings(adapter, args.config.engine)


@contextmanager
def named(name: str) -> Iterator[None]:
    """Prefixes a ModelError with the spec's key of an adapter."""
    try:
        yield
    except ModelError as error:
        raise type(error)(f"serve.adapters.{name}: {error}") from error


def stored(url: str, digest: str, endpoint_url: str | None) -> StoredBundle:
    """The bundle at `url`; raises what `check_manifest` raises."""
    return StoredBundle(url.rstrip("/"), check_manifest(url, digest, endpoint_url), endpoint_url)


def check_rank(rank: int, engine: str) -> None:
    """Raises ModelError for a LoRA rank that the engine does not support."""
    if engine == "vllm" and rank > VLLM_RANKS[-1]:
        raise ModelError(f"rank {rank} given; vllm takes {VLLM_RANKS[-1]} at most, and engine: transformers any")


def _check_settings(adapter: StoredBundle, engine: str) -> None:
    name = f"{ADAPTER}/{SETTINGS}"
    check_rank(parse_settings(adapter.read(name), source=f"{adapter.url}/{name}").rank, engine)


def _check_is_one(adapter: StoredBundle) -> None:
    described = adapter.described
    if described.task != TASK:
        raise ModelError(f"{adapter.url}: a {described.task} model; {TASK} is needed")
    if described.base is None:
        raise ModelError(
            f"{adapter.url}: a whole model and no adapter; train.adapter.publish: adapter publishes adapters"
        )


def _check_base(adapter: StoredBundle, served: Mapping[str, FileEntry], model: str) -> None:
    """Compares by content: the same files may be stored in two places."""
    differing = [name for name, entry in adapter.base.items() if served.get(name) != entry]
    if differing:
        raise ModelError(
            f"{adapter.url}: belongs to {adapter.described.base_model!r}, which is not what {model} is made of: "
            f"{differing[0]} differs; adapters of one base model are allowed"
        )


def _check_tokenizer(adapter: StoredBundle, served: Mapping[str, FileEntry]) -> None:
    found = adapter.below(ADAPTER)
    for name in TOKENIZER:
        if found.get(name) != served.get(name):
            raise ModelError(f"{adapter.url}: its {name} differs from the served model's, which all adapters share")
