"""The stages of the path, each one function: prepare, tune, train, evaluate, serve.

They run inside `session(spec)` and tell a View how they fare; the commands and the demo are made of them.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from heliostat.infra.config.strict import build, dump_yaml
from heliostat.infra.errors import ConfigError, ModelError, NotFoundError
from heliostat.pipeline.report import Curves, measured, report_on_model, report_on_run, whole
from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.serve.args import AdapterArgs, AppArgs
    from heliostat.serve.deploy.launch import Endpoint
    from heliostat.train.data.encoder import Encoder
    from heliostat.train.data.prepared import Prepared
    from heliostat.train.job import Job
    from heliostat.tune.search import Search


@dataclass
class Trained:
    """What came of a run."""

    run_id: str
    model: ModelVersion
    result: Mapping[str, Any]
    """`metrics` on the test split, `confusion`, `reliability`, `worst`, `labels`, `url`, `digest`, `size_bytes`."""
    tracking_url: str
    curves: Curves
    """Of the whole run, by step: `train/loss`, `validation/accuracy` and their like."""
    report: str | None = None
    """Where its page is; None where there is none."""


@contextmanager
def session(spec: Spec) -> Iterator[None]:
    """Ray, local or joined, with room for the spec's workers; everything of ours is gone at the end."""
    from heliostat.cluster.session.session import session as ray_session

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    least = spec.train.workers.min
    gpus = least if spec.train.use_gpu is True else 0
    with ray_session(spec.cluster, cpus=least * spec.train.cpus_per_worker, gpus=gpus):
        yield


@contextmanager
def serving_session(spec: Spec) -> Iterator[None]:
    """Ray, local or joined, with room for the fewest replicas that the spec allows."""
    from heliostat.cluster.session.session import session as ray_session

    least, serve = spec.serve.replicas.first, spec.serve
    cpus, gpus = least * serve.cpus_per_replica, least * serve.gpus_per_replica
    with ray_session(spec.cluster, cpus=cpus, gpus=gpus, key="serve.replicas.min"):
        yield


def prepare(spec: Spec, view: View) -> Prepared:
    """The spec's data as tokens, in storage; reused where nothing has changed."""
    from heliostat.train.data.prepared import prepare as prepare_data

    encoder = encoder_of(spec)
    with view.progress("prepare") as advance:
        prepared = prepare_data(spec.data, encoder, spec.storage, advance)
    view.prepared(prepared)
    return prepared


def prepared_data(spec: Spec) -> Prepared | None:
    """The prepared data where nothing has changed since they were made; needs no Ray."""
    from heliostat.train.data.prepared import find_prepared

    return find_prepared(spec.data, encoder_of(spec), spec.storage)


def encoder_of(spec: Spec) -> Encoder:
    """What turns the spec's records into numbers."""
    from heliostat.train import tasks
    from heliostat.train.models.bases import base_model

    return tasks.get(spec.task).encoder(spec.data, base_model(spec.model, spec.storage))


def reuse(spec: Spec, view: View) -> bool:
    """Shows the prepared data where there are any."""
    prepared = prepared_data(spec)
    if prepared:
        view.prepared(prepared)
    return prepared is not None


def make_job(spec: Spec, prepared: Prepared, run_id: str) -> Job:
    """What each worker of a run is told; ConfigError where the base model cannot be laid out as `train` says."""
    from heliostat.train.job import Job
    from heliostat.train.models.bases import base_folder
    from heliostat.train.parallel.sharding import check_model

    check_model(spec.train, base_folder(spec.model, spec.data, prepared, spec.storage))
    return Job(
        name=spec.name,
        task=spec.task,
        run_id=run_id,
        model=spec.model,
        data=spec.data,
        data_fingerprint=prepared.fingerprint,
        train=spec.train,
        storage=spec.storage,
        spec=dump_yaml(spec),
    )


def new_run_id() -> str:
    """Sortable by time, unique, and fit for a file name."""
    return f"{datetime.now(timezone.utc):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def tune(spec: Spec, prepared: Prepared, view: View) -> tuple[Spec, Search]:
    """The spec with the values of the best trial, and the search: in MLflow, a run with a child for each trial."""
    from heliostat.infra.tracking import start_run
    from heliostat.tune.report import log_trial, write_csv
    from heliostat.tune.search import search

    run_id = f"search-{new_run_id()}"
    job = make_job(spec, prepared, run_id)
    with (
        start_run(
            spec.storage, spec.name, run_id, spec.tune.model_dump(mode="json"), {"heliostat.kind": "search"}
        ) as run,
        view.trials(spec.tune.trials) as on_trial,
    ):
        found = search(job, spec.tune, on_trial)
        for trial in found.trials:
            log_trial(spec.storage, spec.name, trial, parent_run_id=run.id)
        run.artifact(write_csv(found, spec.storage, f"runs/{spec.name}/{run_id}/trials.csv"))
    view.searched(found)
    train = {**spec.train.model_dump(), **found.best.values}
    return spec.model_copy(update={"train": build(type(spec.train), train)}), found


def train(spec: Spec, prepared: Prepared, view: View, run_id: str | None = None) -> Trained:
    """Trains, evaluates and publishes the next version of the model; the first becomes `production`.

    A run called `run_id` that ended too early goes on after its newest complete checkpoint.
    """
    from heliostat.infra.tracking import start_run
    from heliostat.train import tasks
    from heliostat.train.launch import launch

    run_id = run_id or new_run_id()
    record = read_run(spec, run_id)
    job = make_job(spec, prepared, run_id)
    params = {**spec.train.model_dump(mode="json"), "model": spec.model.origin, "data": prepared.fingerprint}
    tags = {"heliostat.kind": "run", "heliostat.run_id": run_id}
    with start_run(spec.storage, spec.name, run_id, params, tags, run_id=record.get("mlflow")) as run:
        write_run(spec, run_id, {"mlflow": run.id, "status": "running"})
        seen: Curves = {}
        with view.training() as on_event:

            def handle(event: Mapping[str, Any]) -> None:
                values, step = measured(event), event.get("step", 0)
                run.log(values, step)
                for name, value in values.items():
                    seen.setdefault(name, {})[step] = value
                on_event(event)

            result = launch(job, handle)
        model = register(spec, run.id, result)
        curves = whole(run, seen, tasks.get(spec.task).metric) if record else seen
        trained = Trained(run_id, model, result, run.url, curves)
        trained.report = report_on_run(spec, prepared, run, trained)
        write_run(spec, run_id, {"mlflow": run.id, "status": "finished", "version": model.version})
    view.trained(trained)
    return trained


def register(spec: Spec, tracking_id: str, result: Mapping[str, Any]) -> ModelVersion:
    """The published files as the model's next version; the first version becomes `production`.

    Files that are a version already, as a run that was lost right after finds them, stay that version.
    """
    from heliostat.infra.registry import registry

    known = [one for one in registry.list_models(spec.storage) if one.digest == result["digest"]]
    version = (
        known[0]
        if known
        else registry.register(
            spec.storage, spec.name, result["url"], result["digest"], tracking_id, dict(result["metrics"])
        )
    )
    try:
        registry.resolve(spec.storage, f"models:/{spec.name}@production")
    except ModelError:
        return registry.promote(spec.storage, spec.name, version.version)
    return version


def run_key(spec: Spec, run_id: str) -> str:
    """Where a run says how it stands."""
    return f"runs/{spec.name}/{run_id}/run.json"


def write_run(spec: Spec, run_id: str, record: Mapping[str, Any]) -> None:
    """Says how a run stands, and that it is the newest; its resolved spec goes along."""
    from heliostat.infra.storage.store import open_store

    store = open_store(spec.storage)
    store.write_bytes(f"runs/{spec.name}/{run_id}/spec.yaml", dump_yaml(spec).encode())
    store.write_bytes(run_key(spec, run_id), json.dumps({"run_id": run_id, **record}).encode())
    store.write_bytes(f"runs/{spec.name}/newest.json", json.dumps({"run_id": run_id}).encode())


def read_run(spec: Spec, run_id: str) -> dict[str, Any]:
    """How a run stands; empty where there is none of that name."""
    from heliostat.infra.storage.store import open_store

    try:
        return json.loads(open_store(spec.storage).read_bytes(run_key(spec, run_id)))
    except NotFoundError:
        return {}


def find_run(spec: Spec, name: str | None, resume: bool) -> str | None:
    """The run to go on with or to begin: `name`, or with `resume` the newest; None for a new one without a name.

    `train.resume: auto` resumes the newest where there is one that has not finished.

    Raises ConfigError for a name that cannot be a folder's, and with `resume` where there is none or where it has
    finished.
    """
    if name and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise ConfigError(
            f"--run: {name!r} given; letters, digits, dots, dashes and underscores are allowed, 64 at most"
        )
    given, name = name, name or (newest_run(spec) if resume or spec.train.resume == "auto" else None)
    record = read_run(spec, name) if name else {}
    if resume and not record:
        which = f"run {name!r}" if name else "run yet"
        raise ConfigError(f"--resume: no {which} of {spec.name} in {spec.storage.url}")
    if resume and record.get("status") == "finished":
        raise ConfigError(f"run {name} has finished (version {record['version']}); start a new one")
    return name if given or record.get("status") == "running" else None


def newest_run(spec: Spec) -> str | None:
    """The name of the newest run of the spec; None where there is none."""
    from heliostat.infra.storage.store import open_store

    try:
        return json.loads(open_store(spec.storage).read_bytes(f"runs/{spec.name}/newest.json"))["run_id"]
    except NotFoundError:
        return None


def evaluate(spec: Spec, model: ModelVersion, prepared: Prepared, view: View) -> Mapping[str, Any]:
    """What the test split of the spec's data says of a published model, on this machine's cores; with a report."""
    from heliostat.train.evaluation.assess import assess

    with view.progress("evaluate") as advance:
        advance("test split", 0, 0)
        found = assess(model, spec.storage, prepared)
    view.evaluated(model, found, report_on_model(spec, prepared, model, found))
    return found


def serve(args: AppArgs, view: View) -> Endpoint:
    """An application that answers from a model version under its route; the Ray session must be up."""
    from heliostat.pipeline.example_call import example_call
    from heliostat.serve.deploy.launch import deploy
    from heliostat.serve.models.bundles import describe

    described = describe(args.url, args.storage.endpoint_url)
    with view.progress("serve") as advance:
        beside = "".join(f", {name} version {one.version}" for name, one in args.adapters.items())
        advance(f"{args.name} version {args.version}{beside}", 0, 0)
        endpoint = deploy(args)
    view.serving(endpoint, example_call(endpoint.url, args.name, described, args.config.auth == "keys"))
    return endpoint


def app_args(spec: Spec, model: ModelVersion) -> AppArgs:
    """How the spec has a model version served, with the versions that its adapters are now.

    Raises ModelError where an adapter is not there.
    """
    from heliostat.serve.args import AppArgs

    return AppArgs(
        name=spec.name,
        url=model.url,
        digest=model.digest,
        version=str(model.version),
        adapters={name: resolve_adapter(spec, name) for name in spec.serve.adapters},
        config=spec.serve.model_copy(update={"adapters": {}}),
        storage=spec.storage,
    )


def resolve_adapter(spec: Spec, name: str) -> AdapterArgs:
    """The version that `serve.adapters` means by a name."""
    from heliostat.infra.registry.registry import resolve
    from heliostat.serve.args import AdapterArgs
    from heliostat.serve.models.adapter_check import named

    with named(name):
        found = resolve(spec.storage, spec.serve.adapters[name])
    return AdapterArgs(url=found.url, digest=found.digest, version=str(found.version))


def resolve_model(spec: Spec, reference: str | None) -> ModelVersion:
    """The version that `reference` names, or the spec's `production`."""
    from heliostat.infra.registry.registry import resolve

    return resolve(spec.storage, reference or f"models:/{spec.name}@production")
