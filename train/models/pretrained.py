"""Base models and tokenizers from a local folder or GGUF file."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from heliostat.cluster.folders import cache_folder, fill
from heliostat.infra.errors import ModelError
from heliostat.infra.lean_imports import import_transformers
from heliostat.infra.registry.published import CHAT_TEMPLATE

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    CHAT_TEMPLATE,
    "tokenizer.model",
)


def as_folder(path: Path) -> Path:
    """A Hugging Face model folder: `path` itself, or its conversion if it is a GGUF file.

    A GGUF file is dequantised once (about a minute for 135 M parameters) and cached.
    Raises ModelError if `path` is neither.
    """
    if path.suffix == ".gguf":
        return _converted(path)
    if not (path / "config.json").is_file():
        raise ModelError(f"model.source: {path} holds no config.json; a Hugging Face model folder or a .gguf is needed")
    return path


def _converted(gguf: Path) -> Path:
    stat = gguf.stat()
    key = hashlib.sha256(f"{gguf.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    return fill(cache_folder() / "gguf" / f"{gguf.stem}-{key}", lambda folder: _convert(gguf, folder))


def _convert(gguf: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype="float32")
    model.hf_quantizer = None  # the weights are float32 now; transformers would refuse to save them
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


@cache
def tokenizer(folder: Path) -> Any:
    """The fast tokenizer in `folder`, loaded once per process; raises ModelError if there is none."""
    transformers = import_transformers()
    try:
        return transformers.AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model.source: {folder} holds no tokenizer that transformers can read ({_line(error)})"
        ) from error


def tokenizer_fingerprint(folder: Path) -> str:
    """SHA-256 of the tokenizer's files: changes if the same text would be tokenised differently."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + b"\0" + (folder / name).read_bytes())
    return digest.hexdigest()


def load(auto_class: str, folder: Path, dropout: float | None, **options: Any) -> Any:
    """The model in `folder` in float32; `dropout` replaces every dropout probability of its configuration.

    A classification head for another number of labels is replaced by a new one. Raises ModelError if `auto_class` does
    not support this model or the weights do not fit.
    """
    from heliostat.train.models.kernels import attention

    transformers = import_transformers()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **options)
        if dropout is not None:
            for key in [key for key in config.to_dict() if key.endswith(("dropout", "dropout_prob", "pdrop"))]:
                setattr(config, key, dropout)
        model, found = getattr(transformers, auto_class).from_pretrained(
            folder, config=config, dtype="float32", attn_implementation=attention.implementation(config),
            ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"model.source: {folder} cannot be loaded as {auto_class} ({_line(error)})") from error
    _check_shapes(model, found["mismatched_keys"], folder)
    return model


def _check_shapes(model: Any, differing: Any, folder: Path) -> None:
    """Raises ModelError if weights other than those of a classification head, which is then new, have other shapes."""
    prefix = f"{model.base_model_prefix}."
    is_classifier = type(model).__name__.endswith("ForSequenceClassification")
    for name, stored, wanted in sorted(differing):
        if name.startswith(prefix) or not is_classifier:
            raise ModelError(
                f"model.source: {folder} cannot be loaded: {name} has shape {list(stored)}, and its config.json asks "
                f"for {list(wanted)}"
            )


def _line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
