"""Networks that are built here: what they compute, what they leave alone, and what is published of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from heliostat.infra.registry import programs
from heliostat.infra.registry.inputs import ImageInputs, Inputs, NoiseInputs, NumberColumn, TableInputs, TextInputs
from heliostat.train.data.config import Augment
from heliostat.train.models.architectures.config import Gan, Lstm, Mlp, ModelConfig, ResidualCnn
from heliostat.train.models.architectures.gan import AdversarialNetwork
from heliostat.train.models.architectures.network import Network, Settings, build_network, read_settings
from heliostat.train.models.architectures.residual_cnn import Convolution
from heliostat.train.models.architectures.stages import augmented
from heliostat.train.telemetry.flops import Flops
from tests.exported import exported

TABLE = TableInputs(columns=tuple(NumberColumn(name=str(i), mean=0, std=1) for i in range(5)))
COLOUR = ImageInputs(height=8, width=8, mode="rgb", mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3))
TEXT = TextInputs(length=12, pad_id=0, unknown_id=1, vocabulary=30)
MODELS: dict[str, tuple[ModelConfig, Inputs]] = {
    "rows": (ModelConfig(mlp=Mlp(hidden=[7, 6], dropout=0.5)), TABLE),
    "pixels": (ModelConfig(mlp=Mlp(hidden=[9])), COLOUR),
    "convolutions": (ModelConfig(residual_cnn=ResidualCnn(channels=[8, 12], dropout=0.5)), COLOUR),
    "words": (ModelConfig(lstm=Lstm(embedding=6, hidden=5)), TEXT),
    "noise": (ModelConfig(gan=Gan(noise=4, channels=[8, 8])), COLOUR),
}


def network(kind: str, augment: Augment | None = None) -> Network:
    model, inputs = MODELS[kind]
    torch.manual_seed(0)
    return build_network(Settings(model=model, inputs=inputs, augment=augment or Augment()), 3)


def inputs_of(kind: str, records: int) -> dict[str, torch.Tensor]:
    example = network(kind).example(records)
    draw = torch.Generator().manual_seed(1)
    return {
        name: torch.randint(1, 30, tensor.shape, generator=draw, dtype=tensor.dtype)
        if not tensor.is_floating_point()
        else torch.randn(tensor.shape, generator=draw)
        for name, tensor in example.items()
        if name != "attention_mask"
    } | ({"attention_mask": torch.ones_like(example["attention_mask"])} if "attention_mask" in example else {})


def published(model: Network, folder: Path) -> programs.Program:
    """What a replica loads of `model`, written into `folder`, with the weights that were gathered."""
    program, weights = exported(model, folder)
    assert {name: one.tolist() for name, one in program.weights().items()} == {
        name: one.tolist() for name, one in weights.items()
    }
    return program


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("records", [1, 5])
def test_what_is_published_answers_as_the_network_does(kind: str, records: int, tmp_path: Path) -> None:
    model = network(kind).eval()
    given = inputs_of(kind, records)
    program = published(model, tmp_path)
    with torch.no_grad():
        ours, theirs = model(**given), program(**given)
    assert ours.dtype == theirs.dtype
    assert torch.allclose(ours.float(), theirs.float(), atol=1e-5)
    assert read_settings(tmp_path / "bundle" / "model") == model.settings


def test_weights_of_convolutions_are_published_standardised_and_laid_out(tmp_path: Path) -> None:
    model = network("convolutions").eval()
    program = published(model, tmp_path)
    name = "layers.3.convolution.weight"
    weight = program.weights()[name]
    assert not torch.allclose(weight, model.state_dict()[name], atol=1e-2)
    assert torch.allclose(weight.mean(dim=(1, 2, 3)), torch.zeros(len(weight)), atol=1e-6)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert "layer_norm" not in program.graph.code


@pytest.mark.parametrize("kind", ["rows", "pixels", "convolutions", "words"])
def test_a_record_is_answered_the_same_whatever_is_beside_it(kind: str) -> None:
    model, given = network(kind).eval(), inputs_of(kind, 6)
    with torch.no_grad():
        together = model(**given)
        alone = torch.cat([model(**{name: one[[i]] for name, one in given.items()}) for i in range(6)])
    assert together.shape == (6, 3)
    assert torch.allclose(together, alone, atol=1e-5)


def test_padding_changes_no_text() -> None:
    model = network("words").eval()
    assert isinstance(model.settings.inputs, TextInputs)
    short = {"input_ids": torch.tensor([[4, 5, 6]]), "attention_mask": torch.ones(1, 3, dtype=torch.int64)}
    with torch.no_grad():
        assert torch.allclose(model(**short), model(**model.settings.inputs.padded([[4, 5, 6]])), atol=1e-6)


@pytest.mark.parametrize("kind", ["rows", "convolutions", "words"])
def test_every_weight_learns(kind: str) -> None:
    model = network(kind).train()
    model(**inputs_of(kind, 4)).logsumexp(dim=1).sum().backward()
    still = [name for name, one in model.named_parameters() if one.grad is None or not one.grad.abs().sum()]
    assert still == []


def test_standardised_weights_have_no_offset_and_no_size() -> None:
    layer = Convolution(3, 4)
    images = torch.randn(2, 3, 5, 5)
    before = layer(images)
    layer.weight.data.mul_(7).add_(2)
    assert torch.allclose(layer(images), before, atol=1e-5)
    assert not torch.allclose(layer(images), torch.zeros(()))


def test_a_residual_network_sees_how_bright_an_image_is() -> None:
    first = network("convolutions").get_submodule("layers.0")
    grey = first(torch.ones(1, 3, 9, 9))
    assert not torch.allclose(grey[:, :, 4, 4], torch.zeros(()), atol=1e-3)


def test_the_work_of_a_network_is_that_of_its_matrices() -> None:
    assert network("rows").forward_flops() == 2 * (5 * 7 + 7 * 6 + 6 * 3)
    assert network("words").forward_flops() == 2 * 4 * 5 * (6 + 5)
    assert network("noise").forward_flops() > 0
    flops = Flops.of(network("rows"))
    assert flops.needed(np.ones(10), 10) == 10 * 3 * 2 * (5 * 7 + 7 * 6 + 6 * 3)


def test_images_are_changed_in_training_only_and_as_the_spec_says() -> None:
    given = inputs_of("pixels", 4)
    plain, changed = network("pixels"), network("pixels", Augment(crop=2, flip=True, erase=3))
    with torch.no_grad():
        assert torch.equal(plain.train()(**given), plain.eval()(**given))
        assert torch.equal(plain(**given), changed.eval()(**given))
        assert not torch.equal(plain(**given), changed.train()(**given))


def test_an_image_is_moved_mirrored_and_blanked_out() -> None:
    images = torch.arange(1.0, 37.0).reshape(1, 1, 6, 6).repeat(400, 1, 1, 1)
    torch.manual_seed(0)
    flipped = augmented(images, Augment(flip=True))
    mirrored = (flipped == images.flip(3)).all(dim=(1, 2, 3))
    assert ((flipped == images).all(dim=(1, 2, 3)) ^ mirrored).all()
    assert 150 < mirrored.sum() < 250
    moved = augmented(images, Augment(crop=2))
    kinds = {tuple(image.flatten().tolist()) for image in moved}
    assert len(kinds) == 25
    assert max(image.count(0.0) for image in kinds) == 36 - 16
    erased = augmented(images, Augment(erase=3))
    gaps = (erased == 0).sum(dim=(1, 2, 3))
    assert gaps.max() == 9
    assert gaps.min() == 4, "a square may reach over the edge"
    assert (erased[erased != 0] == images[erased != 0]).all()


def test_each_half_of_an_adversarial_network_learns_from_its_own_loss_alone() -> None:
    model = network("noise").train()
    assert isinstance(model, AdversarialNetwork)
    pixels, labels = torch.randint(255, (6, 8, 8, 3), dtype=torch.uint8), torch.arange(6) % 3
    for column, learns, stays in ((0, model.discriminator, model.generator), (1, model.generator, model.discriminator)):
        model.zero_grad()
        model(pixels=pixels, labels=labels)[:, column].sum().backward()
        assert any(one.grad is not None and one.grad.abs().sum() for one in learns.parameters())
        assert all(one.grad is None or not one.grad.abs().sum() for one in stays.parameters())


def test_both_halves_of_an_adversarial_network_are_told_the_class() -> None:
    model = network("noise").eval()
    assert isinstance(model, AdversarialNetwork)
    with torch.no_grad():
        noise, labels = torch.randn(4, 4), [torch.full((4,), label) for label in range(3)]
        made = [model.generator(noise, one) for one in labels]
        judged = [model.discriminator(made[0], one) for one in labels]
    for found in (made, judged):
        assert not any(torch.equal(one, found[0]) for one in found[1:])


def test_an_adversarial_network_learns_from_its_labels() -> None:
    pixels, losses = torch.randint(255, (6, 8, 8, 3), dtype=torch.uint8), []
    for label in (0, 2):
        torch.manual_seed(0)
        losses.append(network("noise")(pixels=pixels, labels=torch.full((6,), label)))
    assert (losses[0] != losses[1]).all()


def test_without_classes_an_adversarial_network_knows_one() -> None:
    model, inputs = MODELS["noise"]
    made = build_network(Settings(model=model, inputs=inputs), 0)
    assert made.inputs == NoiseInputs(size=1 + 4, classes=1)
    assert made(pixels=torch.zeros(2, 8, 8, 3, dtype=torch.uint8)).shape == (2, 2)


def test_what_is_published_of_a_generator_is_its_moving_average() -> None:
    model = network("noise").train()
    assert isinstance(model, AdversarialNetwork)
    assert model.inputs == NoiseInputs(size=3 + 4, classes=3)
    means = dict(model.average.named_buffers())
    before = means["first.weight"].clone()
    with torch.no_grad():
        model.generator.first.weight += 1
    pixels = torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    model(pixels=pixels)
    assert torch.equal(means["first.weight"], before), "it moves once a step"
    model.stepped()
    for _ in range(3):
        model(pixels=pixels)
        assert torch.allclose(means["first.weight"], before + 0.9, atol=1e-6), "little is left of what was drawn"
    model.moves.add_(10**6)
    model.stepped()
    model(noise=model.inputs.noise(0, 1))
    assert torch.allclose(means["first.weight"], before + 1 - 0.1 * model.config.average, atol=1e-6)
    assert all(name.startswith("average.") for name in model.published().state_dict())
    assert not {id(one) for one in means.values()} & {id(one) for one in model.parameters()}
    noise = model.inputs.noise(0, 3)
    made = model.eval()(noise=noise)
    assert (made.shape, made.dtype) == ((3, 8, 8, 3), torch.uint8)
    noise[:, :3] *= 2
    assert torch.equal(model(noise=noise), made), "of a class no more is seen than which number is the largest"


def test_both_optimizers_of_an_adversarial_network_have_their_own_rate() -> None:
    from heliostat.train.engine import RATE, _groups

    settings = Settings(model=ModelConfig(gan=Gan(noise=4, channels=[8], discriminator_rate=4)), inputs=COLOUR)
    groups = _groups(build_network(settings, 0), 0.1)
    assert [(group[RATE], group["weight_decay"]) for group in groups] == [
        (1.0, 0.1),
        (1.0, 0.0),
        (4.0, 0.1),
        (4.0, 0.0),
    ]
