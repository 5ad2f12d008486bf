"""Which adapters may stand beside a model, and what a replica gets of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from heliostat.infra.config.strict import build
from heliostat.infra.errors import ConfigError, IntegrityError, ModelError
from heliostat.infra.registry import registry
from heliostat.infra.registry.published import ADAPTER
from heliostat.pipeline.serve import app_args, resolve_model
from heliostat.serve.app import application
from heliostat.serve.args import AppArgs
from heliostat.serve.deploy import launch
from heliostat.serve.models.adapter_check import check_adapters
from heliostat.serve.models.adapter_fetch import fetched_together
from heliostat.spec import Spec
from tests.integration.tiny_models import classifier, generator, publish
from tests.tiny_adapters import change_settings, publish_adapter, publish_folder


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, whole and as an adapter of its own, and two adapters of it."""
    storage = tmp_path_factory.mktemp("adapters") / "storage"
    publish(storage, "chat", "causal-lm", generator)
    base = storage.parent / "chat-r1" / "model"
    for seed, name in enumerate(("legal", "support", "own"), start=1):
        publish_adapter(storage, name, base, seed)
    return storage


@pytest.fixture(scope="module")
def base(storage: Path) -> Path:
    return storage.parent / "chat-r1" / "model"


def bundle(storage: Path, name: str, version: str = "1") -> dict[str, str]:
    url = storage / "models" / name / "r1"
    digest = hashlib.sha256((url / "manifest.json").read_bytes()).hexdigest()
    return {"url": str(url), "digest": digest, "version": version}


def arguments(storage: Path, model: str = "chat", /, **adapters: Any) -> AppArgs:
    """How `model` is served with adapters, each under the name and of the bundle given."""
    given = {name: one if isinstance(one, dict) else bundle(storage, one) for name, one in adapters.items()}
    own = bundle(storage, model, "7")
    return build(AppArgs, {"name": "chat", **own, "adapters": given, "storage": {"url": str(storage)}})


@pytest.mark.parametrize("model", ["chat", "own"])
def test_adapters_of_the_base_model_are_fetched_with_it_and_gone_afterwards(storage: Path, model: str) -> None:
    """Whether the model is the base itself or another adapter of it, which then is one of them."""
    args = arguments(storage, model, legal="legal", support="support")
    with fetched_together(args) as found:
        assert list(found.adapters) == [*(["chat"] if model == "own" else []), "legal", "support"]
        assert list(found.adapter_descriptions) == ["legal", "support"]
        assert (found.folder / "model.safetensors").exists()
        assert AutoTokenizer.from_pretrained(found.folder).chat_template
        assert not (found.folder / "adapter_config.json").exists()
        folders = [found.folder, *found.adapters.values()]
    assert not any(folder.exists() for folder in folders)


def test_an_adapter_that_was_altered_is_refused_by_its_key(storage: Path, base: Path, tmp_path: Path) -> None:
    publish_adapter(tmp_path / "storage", "legal", base, 1)
    args = arguments(storage, legal=bundle(tmp_path / "storage", "legal"))
    file = tmp_path / "storage" / "models" / "legal" / "r1" / "adapter" / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    check_adapters(args)  # by what its manifest says it fits
    with pytest.raises(IntegrityError, match=r"^serve.adapters.legal: .*adapter_model.safetensors"):
        fetched_together(args).__enter__()


def one(name: str, storage: Path, folder: Path, base: Path) -> dict[str, str]:
    """A bundle that cannot be an adapter of `base`, by what is wrong with it."""
    if name == "other base":
        publish(storage, "other", "causal-lm", lambda to: other_generator(to))
        publish_adapter(storage, "legal", folder / "other-r1" / "model", 1)
    elif name == "classifier":
        publish(storage, "legal", "text-classification", classifier)
    elif name == "other task":
        publish_adapter(storage, "legal", base, 1, task="text-classification")
    elif name == "dora":
        publish_adapter(storage, "legal", base, 1, use_dora=True)
    elif name == "template":
        publish_adapter(storage, "kept", base, 1)
        copy = folder / "kept-r1"
        (copy / ADAPTER / "chat_template.jinja").write_text("{{ messages }}")
        return dict(zip(("url", "digest"), publish_folder(storage, "legal", copy), strict=True)) | {"version": "1"}
    return bundle(storage, "legal")


def other_generator(folder: Path) -> dict[str, Any]:
    probe = generator(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rope_theta": 1.0}))
    return probe


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("other base", "belongs to 'tiny', which is not what chat version 7 is made of: config.json differs"),
        ("classifier", "a text-classification model; causal-lm is needed"),
        ("other task", "a text-classification model; causal-lm is needed"),
        ("dora", "adapter_config.json: use_dora True"),
        ("template", "its chat_template.jinja differs from the served model's"),
    ],
)
def test_what_cannot_stand_beside_a_model_is_refused_in_one_line(
    storage: Path, base: Path, tmp_path: Path, wrong: str, line: str
) -> None:
    args = arguments(storage, legal=one(wrong, tmp_path / "storage", tmp_path, base))
    with pytest.raises(ModelError, match=f"^serve.adapters.legal: .*{line}") as caught:
        check_adapters(args)
    assert "\n" not in str(caught.value)


def test_a_whole_model_is_no_adapter(storage: Path) -> None:
    with pytest.raises(ModelError, match=r"^serve.adapters.legal: .*a whole model and no adapter; train.adapter"):
        check_adapters(arguments(storage, legal="chat"))


def test_a_model_that_is_no_plain_lora_itself_has_none_beside_it(storage: Path, base: Path, tmp_path: Path) -> None:
    publish_adapter(tmp_path / "storage", "dora", base, 1, use_dora=True)
    own = bundle(tmp_path / "storage", "dora")
    with pytest.raises(ModelError, match=r"dora/r1/adapter/adapter_config.json: use_dora True"):
        check_adapters(arguments(storage, legal="legal").model_copy(update=own))


def test_a_rank_that_vllm_does_not_take_is_refused(storage: Path, base: Path, tmp_path: Path) -> None:
    folder = tmp_path / "legal"
    publish_adapter(tmp_path / "storage", "kept", base, 1)
    (tmp_path / "kept-r1").rename(folder)
    change_settings(folder / ADAPTER, r=1024)
    url, digest = publish_folder(tmp_path / "storage", "legal", folder)
    args = arguments(storage, legal={"url": url, "digest": digest, "version": "1"})
    check_adapters(args)
    vllm = args.config.model_copy(update={"engine": "vllm"})
    with pytest.raises(ModelError, match=r"^serve.adapters.legal: rank 1024 given; vllm takes 512 at most"):
        check_adapters(args.model_copy(update={"config": vllm}))


def test_nothing_starts_with_an_adapter_that_does_not_fit(storage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "start_serve", lambda config: pytest.fail("Serve was started"))
    args = arguments(storage, legal="chat")
    with pytest.raises(ModelError, match=r"^serve.adapters.legal"):
        launch.deploy(args.model_copy(update={"config": args.config.model_copy(update={"auth": "none"})}))


def test_another_version_of_an_adapter_replaces_replicas(storage: Path) -> None:
    def version(**adapters: Any) -> str:
        return str(application(arguments(storage, **adapters))._bound_deployment._version)

    assert version(legal="legal") == version(legal="legal")
    assert len({version(), version(legal="legal"), version(legal="support"), version(law="legal")}) == 4
    assert version(legal="legal") != version(legal={**bundle(storage, "legal"), "version": "2"})


def test_names_and_references_are_checked_before_anything_is_looked_up(spec_values: dict[str, Any]) -> None:
    def refused(adapters: Any, **other: Any) -> str:
        with pytest.raises(ConfigError) as caught:
            build(Spec, {**spec_values, **other, "serve": {"adapters": adapters}})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "serve.adapters.chat: 'chat' is the name of the model itself" in refused({"chat": "models:/legal/1"})
    assert "serve.adapters.legal: 'legal/1' given; " in refused({"legal": "legal/1"})
    assert "serve.adapters" in refused({"a b": "models:/legal/1"})
    assert "task is text-classification; causal-lm is needed" in refused(
        {"legal": "models:/legal/1"}, task="text-classification"
    )


def test_arguments_of_an_application_name_versions_and_no_references(storage: Path) -> None:
    args = arguments(storage, legal="legal").model_dump(mode="json")
    changes: list[tuple[dict[str, Any], str]] = [
        ({"config": {"adapters": {"law": "models:/law/1"}}}, "adapters, with url, digest and version of each"),
        ({"name": "legal"}, "'legal' is the name of the model itself"),
    ]
    for change, line in changes:
        with pytest.raises(ConfigError, match=line):
            build(AppArgs, {**args, **change})


@pytest.fixture
def spec_values(tmp_path: Path) -> dict[str, Any]:
    return {
        "name": "chat",
        "task": "causal-lm",
        "model": {"source": "anywhere"},
        "data": {"source": "anywhere", "columns": {"text": "text"}},
        "storage": {"url": str(tmp_path / "registry")},
    }


@pytest.fixture
def spec(spec_values: dict[str, Any], storage: Path) -> Spec:
    """A spec with two adapters by reference, of which there are versions."""
    adapters = {"legal": "models:/law@production", "support": "models:/support/1"}
    made = build(Spec, {**spec_values, "serve": {"adapters": adapters}})
    for name, stored in (("chat", "chat"), ("law", "legal"), ("law", "support"), ("support", "support")):
        found = bundle(storage, stored)
        registry.register(made.storage, name, found["url"], found["digest"], "", {})
    registry.promote(made.storage, "chat", 1)
    registry.promote(made.storage, "law", 1)
    return made


def test_references_mean_the_versions_of_this_moment(spec: Spec, storage: Path) -> None:
    model = resolve_model(spec, None)
    args = app_args(spec, model)
    assert {name: one.model_dump() for name, one in args.adapters.items()} == {
        "legal": bundle(storage, "legal"),
        "support": bundle(storage, "support"),
    }
    assert args.config.adapters == {}
    check_adapters(args)
    registry.promote(spec.storage, "law", 2)
    assert app_args(spec, model).adapters["legal"].version == "2"
    missing = spec.model_copy(update={"serve": spec.serve.model_copy(update={"adapters": {"tax": "models:/tax/1"}})})
    with pytest.raises(ModelError, match=r"^serve.adapters.tax: models:/tax/1: no such model; published: chat, law"):
        app_args(missing, model)
