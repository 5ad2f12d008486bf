"""Every kind of model, small, from its data to answers of an endpoint: the recipes with less of everything."""

from __future__ import annotations

import base64
import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from rich.console import Console
from selenium.webdriver.common.by import By

from heliostat.infra.images import decode, png
from heliostat.infra.registry import registry
from heliostat.pipeline import prepare, serve, sessions, train, tune
from heliostat.results import TrainingResult
from heliostat.serve.access.keys import generate_key
from heliostat.serve.deploy.launch import Endpoint
from heliostat.serve.models.bundles import describe
from heliostat.spec import Spec, load_spec
from heliostat.train.parallel.config import Workers
from heliostat.view.terminal import View
from tests import chinese
from tests.browser import chromium, give, screenshot, text_of, visit
from tests.guides import RECIPES, ROOT, commands
from tests.integration.tiny_models import generator
from tests.ports import free_port
from tests.tools import need
from tests.waiting import until

KEY = generate_key()
EVERYWHERE = [
    "train.workers=2", "train.validate_every=1000", "serve.cpus_per_replica=0.2", f"serve.port={free_port()}",
    "tune.trials=2", "tune.epochs=1",
]  # fmt: skip
SMALLER = {
    "tabular": ["train.epochs=5"],
    "digits": ["data.source=dataset:digits", "data.augment={}", "train.epochs=8"],
    "images": [
        "data.source=shapes", "data.format=images", "data.label_names={}", "data.split.validation=0.2",
        "data.split.test=0.2", "model.residual_cnn.channels=[8, 16]", "data.augment={crop: 1}", "train.epochs=6",
        "train.learning_rate=0.01", "train.global_batch_size=32",
    ],
    "reviews-lstm": [
        "data.source=chinese.csv", "data.where=null", "data.label_names={}", "data.max_length=64",
        "model.lstm.embedding=16", "model.lstm.hidden=16", "train.learning_rate=0.02", "train.epochs=4",
    ],
    "gan": [
        "data.source=dataset:digits", "data.limit=500", "model.gan={noise: 8, channels: [16, 8]}", "train.epochs=1",
    ],
    "language-model": [
        "data.source=verses.txt", "data.vocabulary=300", "data.max_length=64",
        "model.decoder={layers: 1, hidden: 32, heads: 2}", "train.global_batch_size=32", "train.epochs=4",
    ],
    "sentiment": [
        "model.source=encoder", "data.source=reviews.csv", "data.where=null", "data.label_names={}",
        "data.max_length=16", "train.learning_rate=0.01", "train.epochs=2",
    ],
    "chat": ["model.source=decoder", "data.source=chats.jsonl", "data.max_length=64", "train.epochs=1"],
}  # fmt: skip
"""All of `recipes/`, and what makes each a matter of seconds."""
CLASSIFIERS = {"tabular": "columns", "digits": "grid", "images": "grid", "reviews-lstm": "words", "sentiment": "words"}
"""Name -> what an explanation gives shares to."""
VERSE = "the sun the moon a star over under hill and vale goes comes shines"
EXPORTED = {*CLASSIFIERS, "gan"} - {"sentiment"}

ONE_WORKER = Workers(min=1, max=1)
"""Of a trial; trials of two are in test_main_job.py."""
QUIET = View(Console(quiet=True))


def shapes(folder: Path) -> None:
    """Bright and dark pictures with noise, in colour, in a folder for each class."""
    draw = np.random.default_rng(0)
    for label, mean in (("dark", 60), ("bright", 190)):
        (folder / label).mkdir(parents=True)
        for i in range(60):
            pixels = draw.normal(mean, 40, size=(8, 8, 3)).clip(0, 255).astype(np.uint8)
            (folder / label / f"{i}.png").write_bytes(png(pixels))


def verses(file: Path) -> None:
    """Texts of a few words, parted by empty lines."""
    draw = random.Random(0)
    file.write_text("\n\n".join(" ".join(draw.choices(VERSE.split(), k=12)) + f" {i}" for i in range(300)) + "\n")


def chats(file: Path) -> None:
    """Instructions with their answers, in the columns of the recipe."""
    lines = [{"instruction": f"what was {i}", "input": "", "output": f"a film from {i} to {i + 1}"} for i in range(64)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_none_is_left_out() -> None:
    assert set(RECIPES) == set(SMALLER)


@pytest.fixture(scope="module")
def specs(
    home: Path, reviews: Path, tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Spec]]:
    """The small recipes, with one storage for all."""
    folder = tmp_path_factory.mktemp("recipes")
    shapes(folder / "shapes")
    verses(folder / "verses.txt")
    chats(folder / "chats.jsonl")
    rows = [f'"{text}",{label}\n' for text, label in chinese.reviews(300)]
    (folder / "chinese.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    (folder / "reviews.csv").write_bytes(reviews.read_bytes())
    shutil.copytree(tiny_encoder, folder / "encoder")
    generator(folder / "decoder")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HELIOSTAT_STORAGE", str(folder / "storage"))
        patch.setenv("HELIOSTAT_CACHE", str(folder / "cache"))
        patch.setenv("HELIOSTAT_API_KEYS", KEY)
        yield {name: load_spec(name, [*EVERYWHERE, *smaller]) for name, smaller in SMALLER.items()}


@pytest.fixture(scope="module")
def trained(specs: dict[str, Spec]) -> Iterator[dict[str, TrainingResult]]:
    """All of them, trained on two workers in one Ray that stays up."""
    with sessions.session(specs["tabular"]):
        yield {name: train.run(spec, prepare.run(spec, QUIET), QUIET) for name, spec in specs.items()}


@pytest.fixture(scope="module")
def endpoints(specs: dict[str, Spec], trained: dict[str, TrainingResult]) -> dict[str, Endpoint]:
    """All of them, served beside one another."""
    return {name: serve.run(serve.app_args(spec, trained[name].model), QUIET) for name, spec in specs.items()}


def ask(endpoint: Endpoint, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, which must be one."""
    response = httpx.post(f"{endpoint.url}{path}", json=body, headers={"authorization": f"Bearer {KEY}"}, timeout=60)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


@pytest.mark.parametrize(
    ("name", "least"),
    [("tabular", 0.85), ("digits", 0.8), ("images", 0.8), ("reviews-lstm", 0.95), ("sentiment", 0.9)],
)
def test_a_classifier_learns(trained: dict[str, TrainingResult], name: str, least: float) -> None:
    assert trained[name].result["metrics"]["accuracy"] >= least


def test_a_language_model_learns_its_language(trained: dict[str, TrainingResult]) -> None:
    assert trained["language-model"].result["metrics"]["perplexity"] < 150, "of 300 pieces"


def test_a_generator_is_published_with_a_picture_of_what_it_makes(trained: dict[str, TrainingResult]) -> None:
    found = trained["gan"]
    assert 0 < found.result["metrics"]["sliced_wasserstein"] < 2
    assert found.report
    assert "data:image/png;base64," in Path(found.report).read_text()


def test_each_has_a_version_in_production_that_says_what_it_takes_in(
    specs: dict[str, Spec], trained: dict[str, TrainingResult]
) -> None:
    kinds = {}
    for name, spec in specs.items():
        version = registry.resolve(spec.storage, f"models:/{name}@production")
        assert version.digest == trained[name].model.digest
        kinds[name] = (Path(version.url) / "model" / "program.pt2").is_file()
    assert {name for name, is_exported in kinds.items() if is_exported} == EXPORTED


@pytest.mark.parametrize("name", SMALLER)
def test_the_search_of_a_recipe_finds_what_to_train_with(
    specs: dict[str, Spec], trained: dict[str, TrainingResult], name: str
) -> None:
    spec = specs[name].model_copy(update={"train": specs[name].train.model_copy(update={"workers": ONE_WORKER})})
    best, found = tune.run(spec, prepare.run(spec, QUIET), QUIET)
    assert len(found.trials) == 2
    assert not [trial.error for trial in found.trials if trial.error]
    assert np.isfinite(found.objectives[0].best(found.best))
    assert found.best.values.items() <= best.train.model_dump().items()
    assert found.best.values.keys() == specs[name].tune.space.keys()


@pytest.mark.parametrize("name", sorted(CLASSIFIERS))
def test_a_classifier_answers_as_it_did_when_it_was_published(
    trained: dict[str, TrainingResult], endpoints: dict[str, Endpoint], name: str
) -> None:
    probe = describe(trained[name].model.url, None).probe
    (found,) = ask(endpoints[name], "/v1/predict", probe["input"])["predictions"]
    assert found["label"] == probe["output"]["label"]
    assert found["scores"] == pytest.approx(probe["output"]["scores"], abs=1e-3)


@pytest.mark.parametrize(("name", "parts"), CLASSIFIERS.items())
def test_a_classifier_says_why(
    trained: dict[str, TrainingResult], endpoints: dict[str, Endpoint], name: str, parts: str
) -> None:
    probe = describe(trained[name].model.url, None).probe
    (found,) = ask(endpoints[name], "/v1/explain", probe["input"])["explanations"]
    assert found["label"] == probe["output"]["label"]
    assert len(found[parts]) > 0


def test_a_chinese_text_is_explained_by_its_words(endpoints: dict[str, Endpoint]) -> None:
    text = "说实话,屏幕让人失望,价格也让人失望。"
    (found,) = ask(endpoints["reviews-lstm"], "/v1/explain", {"text": text})["explanations"]
    assert found["label"] == "差评"
    assert "".join(one["word"] for one in found["words"]) == text
    strongest = max(found["words"], key=lambda one: one["attribution"])
    assert strongest["word"] in "让人失望"


@pytest.mark.parametrize("name", SMALLER)
def test_what_the_page_of_a_recipe_asks_is_answered(
    trained: dict[str, TrainingResult], endpoints: dict[str, Endpoint], name: str, tmp_path: Path
) -> None:
    if image := describe(trained[name].model.url, None).probe["input"].get("image"):
        for file in ("three.png", "seven.png", "photo.png"):
            (tmp_path / file).write_bytes(base64.b64decode(image))
    need("curl")
    asked = list(commands(ROOT / "docs" / "recipes" / f"{name}.md", "curl"))
    assert asked
    for call in asked:
        assert f"localhost:8000/{name}/" in call
        call = call.replace(f"localhost:8000/{name}", endpoints[name].url)
        done = subprocess.run(
            ["bash", "-c", f"{call} --silent --fail-with-body"],
            cwd=tmp_path, capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, (call, done.stdout)


def test_a_generator_answers_with_pictures(endpoints: dict[str, Endpoint]) -> None:
    found = ask(endpoints["gan"], "/v1/predict", {"seed": 4, "count": 3, "label": "7"})
    assert found["labels"] == ["7"] * 3
    assert [decode(base64.b64decode(image), "own", "image").shape for image in found["images"]] == [(8, 8, 1)] * 3


def test_a_language_model_goes_on(endpoints: dict[str, Endpoint]) -> None:
    asked = {"model": "language-model", "prompt": "the sun", "max_tokens": 8, "temperature": 0}
    assert ask(endpoints["language-model"], "/v1/completions", asked)["usage"]["completion_tokens"] > 0


def test_a_person_lets_a_language_model_go_on(endpoints: dict[str, Endpoint]) -> None:
    with chromium() as browser:
        visit(browser, endpoints["language-model"].url)
        give(browser, "key", KEY)
        give(browser, "text", "the sun ")
        browser.find_element(By.ID, "send").click()
        until(lambda: "tokens/s" in text_of(browser, "#figures"), "the text goes on", seconds=30)
        assert text_of(browser, ".assistant").startswith("the sun ")
        assert len(text_of(browser, ".assistant")) > len("the sun ")
        browser.find_element(By.TAG_NAME, "summary").click()
        assert "/v1/completions" in text_of(browser, "#curl")
        assert """client.completions.create(**{"model":"language-model","prompt":"the sun "})""" in text_of(
            browser, "#python"
        )
        screenshot(browser, "language-model")


def test_a_chat_model_answers(endpoints: dict[str, Endpoint]) -> None:
    asked = {"model": "chat", "messages": [{"role": "user", "content": "what was 3"}], "max_tokens": 8}
    assert ask(endpoints["chat"], "/v1/chat/completions", asked)["choices"][0]["message"]["role"] == "assistant"
