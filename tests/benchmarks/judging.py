"""What further shows that a model is good, once its recipe was trained in full: measures of a second model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from heliostat.infra.registry import programs, registry
from heliostat.infra.registry.fetching import fetch_model
from heliostat.infra.registry.inputs import NoiseInputs
from heliostat.infra.registry.published import WEIGHTS, PublishedModel
from heliostat.infra.registry.registry import ModelVersion
from heliostat.infra.scratch import scratch
from heliostat.infra.storage.store import open_store
from heliostat.spec import Spec
from heliostat.train import tasks
from heliostat.train.data.prepared import open_prepared
from heliostat.train.evaluation.evaluate import evaluate
from heliostat.train.models.bases import base_folder, rows_of
from heliostat.train.parallel.distributed import World
from tests.benchmarks.ngrams import KneserNey

SAMPLES = 2000
CONFIDENT = 0.9
ORDERS = (2, 3, 4, 5)


def judge(spec: Spec, judge_name: str = "digits") -> dict[str, Any]:
    """What the classifier `judge_name` in the same storage says of SAMPLES images of the generator."""
    generator, description = program(resolved(spec, spec.name))
    classifier, known = program(resolved(spec, judge_name))
    inputs = description.inputs
    assert isinstance(inputs, NoiseInputs)
    assert description.labels == known.labels
    noise = inputs.noise(0, SAMPLES)
    with torch.inference_mode():
        scores = classifier(pixels=generator(noise=noise)).softmax(dim=1)
    surest, labels = scores.max(dim=1)
    shares = np.bincount(labels.numpy(), minlength=len(known.labels)) / SAMPLES
    return {
        "judged_confident_share": float((surest >= CONFIDENT).float().mean()),
        "judged_as_made": float((labels == inputs.classes_of(noise)).float().mean()),
        "judged_classes": int((shares > 0).sum()),
        "judged_largest_share": float(shares.max()),
        "judged_shares": dict(zip(known.labels, shares.round(4).tolist(), strict=True)),
    }


def against_ngrams(spec: Spec) -> dict[str, Any]:
    """The perplexity of the best n-gram model on the test split, in the same tokens."""
    described = description_of(resolved(spec, spec.name))
    prepared = open_prepared(spec.storage, described.data_fingerprint)
    train, test = (prepared.split(name)["input_ids"].to_pylist() for name in ("train", "test"))
    found = {order: KneserNey(train, spec.data.vocabulary, order).perplexity(test) for order in ORDERS}
    best = min(found, key=found.__getitem__)
    return {"ngram_perplexity": found[best], "ngram_order": best}


def against_base(spec: Spec) -> dict[str, Any]:
    """The loss of the base model on the test split."""
    described = description_of(resolved(spec, spec.name))
    prepared = open_prepared(spec.storage, described.data_fingerprint)
    task = tasks.get(spec.task)
    model = task.load_model(base_folder(spec.model, spec.data, prepared, spec.storage), prepared.labels, None)
    found = evaluate(task, model, rows_of(prepared, "test"), World(0, 1, "cpu"))
    return {"base_loss": found.metrics["loss"]}


def resolved(spec: Spec, name: str) -> ModelVersion:
    """The version in production."""
    return registry.resolve(spec.storage, f"models:/{name}@production")


def program(version: ModelVersion) -> tuple[programs.Program, PublishedModel]:
    """The exported program of a version, and what it says of itself."""
    with scratch("judge") as folder:
        found = fetch_model(open_store(version.url), "", folder / "model", version.digest, None)
        return programs.load(folder / "model" / WEIGHTS), found


def description_of(version: ModelVersion) -> PublishedModel:
    """What a version says of itself."""
    with scratch("judge") as folder:
        return fetch_model(open_store(version.url), "", folder / "model", version.digest, None)
