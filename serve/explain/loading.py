"""Chooses the explainer of a published model, by task and kind of input."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heliostat.infra import log
from heliostat.infra.errors import ModelError, ResourceError
from heliostat.infra.registry.inputs import ImageInputs, TableInputs, TextInputs
from heliostat.infra.registry.published import PublishedModel

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from heliostat.infra.registry.programs import Program
    from heliostat.serve.explain.base import Explainer
    from heliostat.serve.explain.texts import TextExplainer

_log = log.get(__name__)


def installed() -> bool:
    """Whether the packages of the extra `explain` are installed."""
    return find_spec("captum") is not None


def check_installed() -> None:
    """Raises ResourceError if they are not."""
    if not installed():
        raise ResourceError("explain: captum is not installed; pip install 'heliostat[explain]' installs it")


def available(load: Callable[[], Explainer[Any]]) -> Explainer[Any] | None:
    """What `load` returns, for an endpoint; None if the extra is not installed or the model has no explainer."""
    if not installed():
        return None
    import captum.attr  # noqa: F401  # seconds, which the first request would wait for

    try:
        return load()
    except ModelError as error:
        _log.warning("no /v1/explain: %s", error)
        return None


def check_classifier(description: PublishedModel) -> None:
    """Raises ModelError if the model is not a classifier."""
    if not description.task.endswith("-classification"):
        raise ModelError(f"{description.name}: its task is {description.task}; only classifiers can be explained")


def load(folder: Path, description: PublishedModel, device: torch.device | str = "cpu") -> Explainer[Any]:
    """The explainer of the model in the model folder `folder`, in float32; raises ModelError if there is none."""
    check_classifier(description)
    if description.inputs is None:
        return encoder(folder, description, device)
    import torch

    from heliostat.infra.registry import programs

    return of_program(programs.load(folder, torch.device(device)), folder, description, device)


def of_program(
    program: Program, folder: Path, description: PublishedModel, device: torch.device | str
) -> Explainer[Any]:
    """The explainer of a loaded exported program; raises ModelError if there is none for it."""
    from heliostat.serve.explain.images import ImageExplainer
    from heliostat.serve.explain.tables import TableExplainer
    from heliostat.serve.explain.texts import ProgramEmbeddings, TextExplainer
    from heliostat.serve.models.tokenizers import read_tokenizer

    inputs = description.inputs
    if isinstance(inputs, TableInputs):
        return TableExplainer(program, inputs, description.labels, device)
    if isinstance(inputs, ImageInputs):
        return ImageExplainer(program, inputs, description.labels, device)
    if isinstance(inputs, TextInputs):
        words = ProgramEmbeddings(program, inputs, description.name, device)
        return TextExplainer(words, cutting(read_tokenizer(folder), inputs.length), description.labels)
    raise ModelError(f"{description.name}: takes {inputs.kind if inputs else 'nothing'}; that cannot be explained")


def encoder(folder: Path, description: PublishedModel, device: torch.device | str) -> TextExplainer:
    """The explainer of a Hugging Face classifier.

    Loads the model again: the one that serves has layers replaced by faster ones without gradients.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from heliostat.infra.last_token import read_last_token
    from heliostat.serve.explain.texts import EncoderEmbeddings, TextExplainer

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype="float32").eval().to(device)
    read_last_token(model)
    words = AutoTokenizer.from_pretrained(folder)
    longest = getattr(model.config, "max_position_embeddings", description.max_length)
    tokenizer = cutting(words.backend_tokenizer, min(description.max_length, longest))
    silent = next((one for one in (words.pad_token_id, words.unk_token_id) if one is not None), 0)
    return TextExplainer(EncoderEmbeddings(model, silent), tokenizer, description.labels)


def cutting(tokenizer: Tokenizer, length: int) -> Tokenizer:
    """Makes the tokenizer truncate at `length` tokens, without padding; returns it."""
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return tokenizer
