"""Which label an input has: an exported program, whose inputs are all of one size."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from heliostat.infra.errors import ModelError
from heliostat.infra.registry.inputs import ImageInputs, NoiseInputs, TableInputs, TextInputs
from heliostat.infra.registry.published import PublishedModel
from heliostat.serve.compute.devices import device_of
from heliostat.serve.config import ServeConfig
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
    from heliostat.serve.models.bundles import Fetched

Collate = Callable[[Sequence[Any]], Mapping[str, "torch.Tensor"]]
PROBE_TOLERANCE = 0.01
"""How far a probability may be from the trained model's: both compute in float32, maybe on other processors."""


class ProgramClassifier(Generic[Item]):
    """Answers with the probability of each label, computed in float32."""

    tolerance = PROBE_TOLERANCE

    def __init__(
        self,
        program: Program,
        collate: Collate,
        labels: tuple[str, ...],
        device: torch.device,
        config: ServeConfig,
        metrics: ServeMetrics,
    ) -> None:
        self.program = program
        self.collate = collate
        self.labels = labels
        self.device = device
        self.batcher: Batcher[Item, list[float]] = batches(self.scores, config, metrics)

    async def predict(self, items: Sequence[Item]) -> list[dict[str, float]]:
        """The probability of each label, for each input."""
        return [dict(zip(self.labels, row, strict=True)) for row in await self.batcher.submit(items)]

    def scores(self, batch: Sequence[Item]) -> list[list[float]]:
        """One pass: inputs in, a probability for each label out."""
        logits = run(self.program, self.collate(batch), self.device)
        found: list[list[float]] = logits.float().softmax(dim=-1).tolist()
        return found

    def check_health(self) -> None:
        """Raises where the model can answer no more."""
        if not self.batcher.alive:
            raise RuntimeError("the thread that runs the model has ended")

    def close(self) -> None:
        """Ends the thread."""
        self.batcher.close()


class PaddedTexts(Texts):
    """Requests with texts, for a model that takes them in one length."""

    def __init__(self, inputs: TextInputs, tokenizer: Tokenizer) -> None:
        super().__init__(TextEncoder(tokenizer, inputs.length))
        self.inputs = inputs

    @property
    def blank(self) -> Encoded:
        """A text of one token, to try a model with."""
        return Encoded([self.inputs.vocabulary - 1], 1)

    def collate(self, batch: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Texts as the model takes them: int64 [texts, length]; a text without tokens is the unknown word."""
        return self.inputs.padded([one.ids for one in batch])


def program_service(found: Fetched, config: ServeConfig, served: ServedModels, metrics: ServeMetrics) -> Service:
    """The program in the bundle with the route for its kind of input; ModelError where it does not fit its description.

    On a GPU too it computes in float32, without the shorter TensorFloat-32.
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
        program, processor.collate, found.description.labels, device, config, metrics
    )
    explainer = available(lambda: of_program(program, found.folder, found.description, device))
    return classifier_service(processor, classifier, served, config, metrics, explainer)


def processor_of(inputs: TableInputs | ImageInputs | TextInputs, folder: Path) -> Tables | Images | PaddedTexts:
    """The way from requests to a classifier in the model folder `folder`."""
    if isinstance(inputs, TableInputs):
        return Tables(inputs)
    if isinstance(inputs, ImageInputs):
        return Images(inputs)
    return PaddedTexts(inputs, read_tokenizer(folder))


def check_outputs(
    program: Program, collate: Collate, blank: Any, device: torch.device, description: PublishedModel
) -> None:
    """Raises ModelError where the program does not take what its description says, or has other outputs than labels."""
    for count in TRIED:
        found = tried(program, collate([blank] * count), device, description.name)
        if found.shape != (count, len(description.labels)):
            raise ModelError(
                f"{description.name}: heliostat.json names {len(description.labels)} labels, "
                f"the model has outputs {list(found.shape[1:])}"
            )
