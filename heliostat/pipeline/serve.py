"""Serves a published version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heliostat.spec import Spec
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.serve.args import AdapterArgs, AppArgs
    from heliostat.serve.deploy.launch import Endpoint


def run(args: AppArgs, view: View) -> Endpoint:
    """Deploys a model version under its route; needs a running Ray session."""
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
    """The arguments for serving a model version as the spec says, with its adapters resolved to versions.

    Raises ModelError if an adapter does not exist.
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
    """The version that `serve.adapters` names for an adapter."""
    from heliostat.infra.registry.registry import resolve
    from heliostat.serve.args import AdapterArgs
    from heliostat.serve.models.adapter_check import named

    with named(name):
        found = resolve(spec.storage, spec.serve.adapters[name])
    return AdapterArgs(url=found.url, digest=found.digest, version=str(found.version))


def resolve_model(spec: Spec, reference: str | None) -> ModelVersion:
    """The version named by `reference`, by default the spec's `production`."""
    from heliostat.infra.registry.registry import resolve

    return resolve(spec.storage, reference or f"models:/{spec.name}@production")
