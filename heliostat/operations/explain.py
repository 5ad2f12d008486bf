"""Implements `heliostat explain`: fetches a published classifier, reads one input, explains the prediction."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.infra.errors import ConfigError, DataError
from heliostat.infra.json_objects import RepeatedKeyError, distinct
from heliostat.infra.lean_imports import import_transformers
from heliostat.infra.registry.inputs import ImageInputs, Inputs, TableInputs, same_word
from heliostat.infra.storage.config import StorageConfig

if TYPE_CHECKING:
    from heliostat.infra.registry.published import PublishedModel


def explain(
    storage: StorageConfig,
    reference: str,
    given: str,
    label: str | None,
    method: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Explains the model's prediction for an input, in the terminal or as JSON, and optionally as an HTML page."""
    from heliostat.infra.registry.registry import resolve
    from heliostat.serve.explain.loading import check_classifier, check_installed, load
    from heliostat.serve.models.bundles import describe, fetched
    from heliostat.view.explanation import show
    from heliostat.view.explanation_page import render
    from heliostat.view.terminal import View

    check_installed()
    check_page(html)
    version = resolve(storage, reference)
    described = describe(version.url, storage.endpoint_url)
    check_classifier(described)
    check_label(described, label)
    item = read_input(described.inputs, given)
    with fetched(version.url, version.digest, storage.endpoint_url) as found:
        import_transformers()
        found_why = load(found.folder, found.description).explain(item, label, method)
    title = f"{version.name} version {version.version}"
    if html:
        html.write_text(render(title, found_why, item), encoding="utf-8")
    if as_json:
        print(found_why.model_dump_json(indent=2))  # noqa: T201  # what is asked for is JSON, which is never wrapped
        return
    show(View(), title, found_why, item)
    if html:
        View().say(f"Page: {html}")


def check_label(described: PublishedModel, label: str | None) -> None:
    """Raises ConfigError, listing the known labels, for an unknown label; called before the model is fetched."""
    if label is not None and same_word(label, described.labels) is None:
        raise ConfigError(f"--label: {label[:60]!r} given; {', '.join(described.labels)} are known")


def check_page(html: Path | None) -> None:
    """Raises ConfigError if the page cannot be written; called before anything is computed."""
    if html and (html.is_dir() or not os.access(html.parent, os.W_OK)):
        raise ConfigError(f"--html: {html} given; a file in a folder that can be written to is needed")


def read_input(inputs: Inputs | None, given: str) -> Any:
    """The input in the form that explainers need: features of a row, pixels of an image, or a text.

    Raises ConfigError if there is none, DataError if the model does not accept it.
    """
    if isinstance(inputs, TableInputs):
        return inputs.features(read_row(given))
    if isinstance(inputs, ImageInputs):
        return inputs.pixels(read_bytes(given, "an image file"), given)
    text = read_text(given)
    if not text.strip():
        raise ConfigError("INPUT: an empty text given; one with a word in it is needed")
    return text


def read_text(given: str) -> str:
    """The text itself, or the content of the file of that name."""
    try:
        return Path(given).read_text(encoding="utf-8") if Path(given).is_file() else given
    except UnicodeDecodeError as error:
        raise DataError(f"{given}: not UTF-8 ({error.reason}); a text is needed") from None
    except (OSError, ValueError):  # too long for a file name
        return given


def read_row(given: str) -> dict[str, Any]:
    """A row from JSON, or from a JSON file."""
    is_json = given.lstrip().startswith("{")
    what = "INPUT" if is_json else given
    text = given if is_json else read_bytes(given, 'a row such as {"column": 1}, or a file with one,')
    try:
        row = json.loads(text, object_pairs_hook=distinct)
    except RepeatedKeyError as error:
        raise DataError(f"{what}: {error}") from None
    except ValueError as error:
        raise DataError(f"{what}: not valid JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"{what}: holds a {type(row).__name__}; one row, an object with its columns, is needed")
    return row


def read_bytes(given: str, needed: str) -> bytes:
    """The content of a file; raises ConfigError, which says what is needed, if it cannot be read."""
    try:
        return Path(given).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"INPUT: {given[:200]!r} cannot be read ({reason}); {needed} is needed") from None
