"""Classifiers from exported programs, whose inputs all have one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from heliostat.infra.drift.statistics import ImageStatistics, Statistics, TableStatistics, TextStatistics
from heliostat.infra.errors import ModelError
from heliostat.infra.registry.inputs import ImageInputs, NoiseInputs, TableInputs, TextInputs
from heliostat.infra.registry.published import PublishedModel
from heliostat.serve.compute.devices import device_of
from heliostat.serve.config import ServeConfig
from heliostat.serve.drift.loading import watch_of
from heliostat.serve.explain.loading import available, of_program
from heliostat.serve.http.app import Service
from heliostat.serve.metrics import ServeMetrics
from heliostat.serve.models.served_models import ServedModels
from heliostat.serve.models.tokenizers import read_tokenizer
from heliostat.serve.predictors import image_generation
from heliostat.serve.predictors.batcher import Batcher
from heliostat.serve.predictors.classification_api import classifier_service
from heliostat.serve.predictors.images import Images
from heliostat.serve.predictors.inputs import Item
from heliostat.serve.predictors.passes import TRIED, batches, run, tried
from heliostat.serve.predictors.tables import Tables
from heliostat.serve.predictors.texts import Encoded, TextEncoder, Texts

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

    from heliostat.infra.registry.programs import Program
    from heliostat.serve.models.bundles import FetchedModel

Collate = Callable[[Sequence[Any]], Mapping[str, "torch.Tensor"]]
PROBE_TOLERANCE = 0.01
"""Largest allowed difference from the trained model's probability: both are float32, maybe on different processors."""


class ProgramClassifier(Generic[Item]):
    """A classifier in float32: returns the probability of each label."""

    tolerance = PROBE_TOLERANCE

    def __init__(
        self,
        program: Program,
        collate: Collate,
        blank: Item,
        labels: tuple[str, ...],
        device: torch.device,
        config: ServeConfig,
        metrics: ServeMetrics,
    ) -> None:
        self.program = program
        self.collate = collate
        self.labels = labels
        self.device = device
        self.batcher: Batcher[Item, list[float]] = batches(self.scores, blank, config, metrics)

    async def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        """The probability of each label, for each input."""
        return [dict(zip(self.labels, row, strict=True)) for row in await self.batcher.submit(items)]

    def scores(self, batch: Sequence[Item]) -> list[list[float]]:
        """One forward pass: inputs in, a probability for each label out."""
        logits = run(self.program, self.collate(batch), self.device)
        found: list[list[float]] = logits.float().softmax(dim=-1).tolist()
        return found

    def check_health(self) -> None:
        """Raises if the model can no longer answer."""
        self.batcher.check_health()

    def close(self) -> None:
        """Stops the model's thread."""
        self.batcher.close()


class PaddedTexts(Texts):
    """Parses requests with texts, for a model that takes a fixed length."""

    def __init__(self, inputs: TextInputs, tokenizer: Tokenizer) -> None:
        super().__init__(TextEncoder(tokenizer, inputs.length, inputs.unknown_id))
        self.inputs = inputs

    @property
    def blank(self) -> Encoded:
        """A text of one token, for the trial passes."""
        return Encoded([self.inputs.vocabulary - 1], 1)

    def collate(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """The model's input: int64 [texts, length]; a text without tokens becomes the unknown word."""
        return self.inputs.padded([one.ids for one in batch])


def program_service(found: FetchedModel, config: ServeConfig, served: ServedModels, metrics: ServeMetrics) -> Service:
    """The bundle's program with the routes for its kind of input; raises ModelError if it does not fit its description.

    TensorFloat-32 is turned off, so that a GPU computes in full float32 too.
    """
    import torch

    from heliostat.infra.registry import programs

    device = device_of(config)
    torch.backends.cudnn.allow_tf32 = False
    program = programs.load(found.folder, device)
    inputs = found.description.inputs
    if isinstance(inputs, NoiseInputs):
        generator = image_generation.ImageGenerator(program, inputs, found.description.labels, device, config, metrics)
        generator.check_outputs(found.description.name)
        return image_generation.generator_service(generator, served, config)
    assert inputs is not None
    processor = processor_of(inputs, found.folder)
    check_outputs(program, processor.collate, processor.blank, device, found.description)
    classifier: ProgramClassifier[Any] = ProgramClassifier(
        program, processor.collate, processor.blank, found.description.labels, device, config, metrics
    )
    explainer = available(lambda: of_program(program, found.folder, found.description, device))
    drift = watch_of(found, statistics_of(inputs, found), served, metrics)
    if isinstance(processor, Tables):
        processor.drift = drift
    return classifier_service(processor, classifier, served, config, metrics, explainer, drift)


def statistics_of(inputs: TableInputs | ImageInputs | TextInputs, found: FetchedModel) -> Statistics:
    """What drift is measured by, for a kind of input."""
    if isinstance(inputs, TableInputs):
        return TableStatistics(inputs)
    if isinstance(inputs, ImageInputs):
        return ImageStatistics()
    return TextStatistics(inputs.unknown_id, found.reference.common_tokens if found.reference else ())


def processor_of(inputs: TableInputs | ImageInputs | TextInputs, folder: Path) -> Tables | Images | PaddedTexts:
    """The input processor for a classifier in the model folder `folder`."""
    if isinstance(inputs, TableInputs):
        return Tables(inputs)
    if isinstance(inputs, ImageInputs):
        return Images(inputs)
    return PaddedTexts(inputs, read_tokenizer(folder))


def check_outputs(
    program: Program, collate: Collate, blank: Any, device: torch.device, description: PublishedModel
) -> None:
    """Raises ModelError if the program rejects the inputs of its description or its outputs do not match the labels."""
    for count in TRIED:
        found = tried(program, collate([blank] * count), device, description.name)
        if found.shape != (count, len(description.labels)):
            raise ModelError(
                f"{description.name}: heliostat.json names {len(description.labels)} labels, "
                f"the model has outputs {list(found.shape[1:])}"
            )
