"""The description of a published model: the file `heliostat.json` next to its weights.

Training writes it and serving reads it; they share nothing else. A published model is a folder in storage:

    manifest.json     sizes and SHA-256 checksums of all the others, written last
    heliostat.json    this description
    spec.yaml         the resolved spec of the run
    drift.json        of a classifier: how the training split falls into bins, with which serving compares
    model/            config.json, model.safetensors, tokenizer files: a Hugging Face model folder

or, for a model that is not a Hugging Face model, the same with an exported program:

    model/            program.pt2 (torch.export), architecture.json that it was built from, and tokenizer.json if it
                      takes texts

or, for an adapter, instead of `model/`:

    adapter/          adapter_config.json, adapter_model.safetensors as peft reads them, tokenizer files

whose base model is a bundle of its own (`bases/<digest of its files>`), which is stored once.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from heliostat.infra.config.strict import StrictModel, build
from heliostat.infra.errors import ModelError
from heliostat.infra.registry.inputs import Inputs

DESCRIPTION = "heliostat.json"
WEIGHTS = "model"
ADAPTER = "adapter"
CHAT_TEMPLATE = "chat_template.jinja"
"""Next to the tokenizer: the template that renders a conversation as one text."""


class BaseModel(StrictModel):
    """The stored files of the base model that an adapter belongs to."""

    url: str
    digest: str
    """SHA-256 of the bundle's manifest."""


class EarlyStop(StrictModel):
    """Where and why a run ended before its last step (`train.early_stopping`)."""

    step: int
    """The last one that it took."""
    steps: int
    """Those that it would have taken."""
    metric: str
    patience: int
    """Validations in a row in which the metric did not improve by more than `min_delta`."""
    min_delta: float
    since: int
    """The step of the last validation that improved; 0 if none did."""

    @property
    def words(self) -> str:
        """The same in words, such as `after step 40 of 100: …`."""
        by = f" by more than {self.min_delta:g}" if self.min_delta else ""
        many = "1 validation" if self.patience == 1 else f"{self.patience} validations"
        since = f", since step {self.since}" if self.since else ""
        return f"after step {self.step} of {self.steps}: {self.metric} has not improved{by} in {many}{since}"


class PublishedModel(StrictModel):
    """Where a published model comes from and how it is to be asked."""

    model_config = ConfigDict(allow_inf_nan=True)  # a metric need not be a number, such as the ROC-AUC of one class

    name: str
    task: str
    labels: tuple[str, ...] = ()
    """Class names in the order of the outputs, or of what a generator can be asked for; empty where there are none."""
    max_length: int
    """Tokens of the longest input it was trained on."""
    base_model: str
    """`model.source` of the spec."""
    base: BaseModel | None = None
    """Set where an adapter was published."""
    run_id: str
    data_fingerprint: str
    search: str | None = None
    """`SEARCH/TRIAL`, where the run has the values of a search's trial."""
    precision: str | None = None
    """What it was trained in, `bf16` or `fp32`; None where the run did not say."""
    metrics: dict[str, float]
    """Measured on the test split."""
    stopped_early: EarlyStop | None = None
    """Set where the run ended before its last step, since it no longer improved."""
    heliostat_version: str
    created: datetime
    inputs: Inputs | None = None
    """What an exported program takes in; None for a Hugging Face model."""
    has_chat_template: bool = True
    """Whether a `causal-lm` takes conversations; it goes on with a text otherwise."""
    probe: dict[str, Any] = {}
    """An input and the trained model's output for it, which serving checks once at start."""


def read_description(folder: Path) -> PublishedModel:
    """The description in `folder`; raises ModelError if it is missing or cannot be read."""
    file = folder / DESCRIPTION
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror}); a published model has one") from error
    return parse_description(text, source=str(file))


def parse_description(text: str | bytes, source: str) -> PublishedModel:
    """The description in `text`; raises ConfigError with `source` and the first wrong field."""
    return build(PublishedModel, json.loads(text), source=source)


def write_description(folder: Path, model: PublishedModel) -> None:
    """Writes the description into `folder`."""
    (folder / DESCRIPTION).write_text(model.model_dump_json(indent=2) + "\n", encoding="utf-8")
