"""Publishes a trained model, after validating it.

The weights are gathered, written as safetensors with everything that serving needs, read back and checked, and the
outputs are compared with the trained model's. Only then are the files uploaded; they never change afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from heliostat.infra.checksums import file_digest
from heliostat.infra.drift.reference import write_reference
from heliostat.infra.errors import ModelError
from heliostat.infra.registry import bundle
from heliostat.infra.registry.published import CHAT_TEMPLATE, PublishedModel, write_description
from heliostat.infra.scratch import scratch
from heliostat.infra.storage.base import Store
from heliostat.infra.tracing.span import part
from heliostat.train.data.rows import Rows
from heliostat.train.evaluation.evaluate import Evaluation, records_at_once
from heliostat.train.evaluation.reference import reference_of
from heliostat.train.loop import Run
from heliostat.train.parallel.distributed import World
from heliostat.train.publish_formats import Weights, form_of
from heliostat.train.tasks.base import Task

QUESTIONS = 16
"""Records on which the outputs of the trained and the published model are compared."""
TOLERANCE = 5e-2
"""Largest relative difference of the outputs: the published model computes in float32, the trained one may not."""


@dataclass(frozen=True)
class Published:
    """A published model: its address, digest and size."""

    url: str
    digest: str
    size_bytes: int


@part("publish")
def publish(
    run: Run, base: Path, description: PublishedModel, spec: str, store: Store, test: Evaluation | None = None
) -> Published:
    """Publishes the run's model under `models/<name>/<run id>` in `store`; all ranks must call it together.

    `base` is the folder of the base model (its tokenizer is published too), `spec` the resolved spec, `test`
    the evaluation of the test split, with whose answers those in production are compared. Raises ModelError
    if a tensor is missing, empty, of the wrong shape or not finite, or if the outputs of the files differ from the
    trained model's.
    """
    task, engine, world = run.task, run.engine, run.world
    rows = run.validation if len(run.validation) else run.rows
    form = form_of(engine.module, run.train)
    weights = gather(form.gathered(engine), world)
    questions = np.arange(min(QUESTIONS, len(rows), records_at_once(run.train)))
    engine.module.eval()
    with torch.no_grad():
        answers = task.outputs(engine, world.to_device(task.collate(rows, questions)))

    def validated() -> Published:
        check(weights, filter(None, map(form.name, engine.module.state_dict())))
        with scratch("publish") as temporary:
            folder = temporary / "bundle"
            form.write(engine.module, weights, base, folder)
            whole = form.whole(folder, base, temporary / "whole")
            model = task.load_model(whole, rows.labels, None).eval()
            check_stored(weights, form.stored(folder, model))
            compare(task, model, rows, questions, answers)
            found = {
                "probe": task.probe(model, whole, rows, description.max_length),
                "base": form.store_base(store, base),
                "has_chat_template": (folder / form.file).with_name(CHAT_TEMPLATE).is_file(),
            }
            write_description(folder, description.model_copy(update=found))
            (folder / "spec.yaml").write_text(spec, encoding="utf-8")
            if reference := reference_of(task, run.rows, test, whole, description.max_length):
                write_reference(folder, reference)
            return upload(store, folder, form.file, description)

    return world.from_first(validated)


def gather(gathered: Iterable[tuple[str, torch.Tensor]], world: World) -> Weights:
    """The full weights by name on rank 0; empty on the other ranks."""
    weights = {}
    for name, tensor in gathered:
        if world.is_first:
            weights[name] = tensor.contiguous()
    return weights


def check(weights: Weights, names: Iterable[str]) -> None:
    """Raises ModelError for the first tensor that is missing, empty or not finite."""
    for name in names:
        if name not in weights or weights[name].numel() == 0:
            raise ModelError(f"{name}: empty after gathering; nothing is published")
        if not torch.isfinite(weights[name]).all():
            raise ModelError(f"{name}: holds values that are not finite; nothing is published")


def check_stored(weights: Weights, stored: Weights) -> None:
    """Raises ModelError for the first tensor whose stored values differ from the trained ones."""
    for name, trained in weights.items():
        if name not in stored or not torch.equal(stored[name].to(trained.dtype), trained):
            raise ModelError(f"{name}: the file holds other values than the trained model; nothing is published")


def compare(task: Task, model: torch.nn.Module, rows: Rows, questions: np.ndarray, answers: np.ndarray) -> None:
    """Raises ModelError if the outputs of `model` differ from the trained model's."""
    with torch.no_grad():
        ours = task.outputs(model, task.collate(rows, questions))
    gap = float(np.abs(ours - answers).max() / max(1.0, float(np.abs(answers).max())))
    if gap > TOLERANCE:
        raise ModelError(f"the published files answer otherwise than the trained model: relative difference {gap:.3g}")


def upload(store: Store, folder: Path, weights: str, description: PublishedModel) -> Published:
    """Uploads the folder, its manifest last; idempotent for a run that is retried after it has published.

    `weights` is the file that is compared. Raises ModelError if the run has already published other weights.
    """
    prefix = f"models/{description.name}/{description.run_id}"
    if store.exists(f"{prefix}/manifest.json"):
        manifest = bundle.read_manifest(store, prefix)
        if weights not in manifest.files or manifest.files[weights].sha256 != file_digest(folder / weights):
            raise ModelError(f"{store.url}/{prefix}: holds other weights of the same run; start a new run")
    else:
        metadata = {"name": description.name, "task": description.task}
        manifest = bundle.publish_directory(store, prefix, folder, metadata)
    size = sum(entry.size_bytes for entry in manifest.files.values())
    return Published(f"{store.url.rstrip('/')}/{prefix}", manifest.digest, size)
