"""Endpoints: `serve`, `rollback`, `status`, `stop`."""

from __future__ import annotations

from typing import Annotated

import typer

from heliostat.commands.common import Context, DryRun, ModelOption, Namespace, Overrides, SpecArgument, planned
from heliostat.spec import load_spec

app = typer.Typer()


@app.command()
def serve(
    spec: SpecArgument,
    overrides: Overrides = None,
    model: ModelOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="Leave it running; `heliostat stop` ends it.")] = False,
    canary: Annotated[
        float | None,
        typer.Option(help="Beside the version that runs, for so many percent of the requests; rolled back if worse."),
    ] = None,
    ab: Annotated[
        float | None, typer.Option(help="Beside it too, to compare: for so many percent, whatever comes of it.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Header whose value decides which version answers, such as authorization.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Answer from a published model, under keys and limits, autoscaled, until Ctrl-C."""
    loaded = load_spec(spec, overrides or [])
    if planned(loaded, dry_run, "serve"):
        return
    if (canary, ab, by) != (None, None, None):
        from heliostat.operations.experiment import start_experiment

        start_experiment(loaded, model, canary, ab, by)
        return
    from heliostat.operations.endpoints import serve_until_stopped

    serve_until_stopped(loaded, model, detach)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The endpoint.")],
    version: Annotated[int | None, typer.Argument(help="The version before, where left out.")] = None,
    context: Context = None,
    namespace: Namespace = None,
    timeout: Annotated[float, typer.Option(min=1, help="On Kubernetes: seconds until it must answer.")] = 1800,
) -> None:
    """Let an endpoint that runs answer from an earlier version again, without a request lost."""
    if context or namespace:
        from heliostat.operations import deploy, kubernetes

        kubernetes.roll_back(deploy.reach(context, namespace), name, version, timeout)
        return
    from heliostat.operations.experiment import roll_back

    roll_back(name, version)


@app.command()
def status(context: Context = None, namespace: Namespace = None) -> None:
    """What of ours is running: the local cluster, endpoints, jobs, leftovers; or the same on Kubernetes."""
    if context or namespace:
        from heliostat.operations import deploy, kubernetes

        kubernetes.show(deploy.reach(context, namespace))
        return
    from heliostat.operations.endpoints import show_status

    show_status()


@app.command()
def stop(
    name: Annotated[
        str | None, typer.Argument(help="One endpoint; all, and the local cluster, where left out.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask where another command is at work on it.")] = False,
) -> None:
    """End an endpoint, or all of them with the local cluster."""
    from heliostat.operations.endpoints import stop_serving

    stop_serving(name, yes)
