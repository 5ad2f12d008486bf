"""The stages that a spec goes through: prepare, plan, tune, train, evaluate."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from heliostat.commands.common import DryRun, ModelOption, Overrides, SpecArgument, planned, stages
from heliostat.infra.errors import ConfigError
from heliostat.infra.installed import TRAINING, require
from heliostat.infra.storage.config import StorageConfig
from heliostat.spec import load_spec

app = typer.Typer()


@app.command()
def prepare(spec: SpecArgument, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Read, clean, split and tokenise the data; reuse the result where nothing has changed."""
    loaded = load_spec(spec, overrides or [])
    if planned(loaded, dry_run, "prepare"):
        return
    from heliostat.pipeline import prepare
    from heliostat.view.terminal import View

    if prepare.reuse(loaded, View()):
        return
    with stages(loaded) as view:
        prepare.run(loaded, view)


@app.command()
def train(
    spec: SpecArgument,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest run, or with --run.")] = False,
    run: Annotated[str | None, typer.Option("--run", help="Name of the run; goes on with one of that name.")] = None,
    from_search: Annotated[
        str | None, typer.Option(metavar="SEARCH[/TRIAL]", help="With the values of its best trial, or of this one.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Train, evaluate and publish the next version."""
    loaded, trial = load_spec(spec, overrides or []), None
    if from_search:
        from heliostat.pipeline.searches import searched

        loaded, trial, said = searched(loaded, from_search)
        typer.echo(said)
    if planned(loaded, dry_run, "prepare, train, evaluate, publish"):
        return
    from heliostat.infra.registry import registry
    from heliostat.pipeline import prepare, runs, train

    name = runs.find_run(loaded, run, resume)
    record = runs.read_run(loaded, name) if name else {}
    if record.get("status") == "finished":
        typer.echo(f"run {name} of {loaded.name} has finished: {runs.published(record)}")
        return
    if not record:  # nothing is lost yet; a run that was begun goes on, whatever MLflow does
        registry.check(loaded.storage)
    with stages(loaded) as view:
        trained = train.run(loaded, prepare.run(loaded, view), view, name, trial)
        if not trained.model.version:
            view.say("next: heliostat models list registers it, once MLflow answers")
        elif "production" not in trained.model.aliases and loaded.train.promote == "first":
            place = "" if loaded.storage == StorageConfig() else f"HELIOSTAT_STORAGE={loaded.storage.url} "
            view.say(f"next: {place}heliostat models promote {loaded.name} {trained.model.version}")
        elif "production" in trained.model.aliases:
            view.say(f"next: {os.environ.get(train.NEXT) or f'heliostat serve {spec}'}")


@app.command()
def plan(
    spec: SpecArgument,
    overrides: Overrides = None,
    price: Annotated[list[str] | None, typer.Option("--price", help="NAME=USD an hour, such as H100=2.5.")] = None,
    mfu: Annotated[float, typer.Option("--mfu", min=0.01, max=1.0, help="Model FLOPs utilisation to expect.")] = 0.4,
) -> None:
    """Estimate memory at each ZeRO stage, what fits on which accelerator, time and price; start nothing."""
    loaded = load_spec(spec, overrides or [])
    from heliostat.operations.plan import show_plan
    from heliostat.view.terminal import View

    show_plan(loaded, View(), price or [], mfu)


@app.command()
def tune(
    spec: SpecArgument,
    overrides: Overrides = None,
    search_only: Annotated[bool, typer.Option("--search-only", help="Do not train the best trial in full.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest search, or with --search.")] = False,
    search: Annotated[str | None, typer.Option("--search", help="Name of the search.")] = None,
    retry: Annotated[
        str | None, typer.Option("--retry", metavar="failed", help="Try failed trials again and begin no new ones.")
    ] = None,
    page: Annotated[bool, typer.Option("--page", help="Show it in a browser too, on this machine only.")] = False,
    price: Annotated[
        list[str] | None,
        typer.Option("--price", help="NAME=USD an hour of a worker's accelerator, or CPU=USD of a core."),
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Search learning rate, batch size and their like; then train the best trial in full and publish it."""
    loaded = load_spec(spec, [*(overrides or []), *_price(price or [])])
    from heliostat.pipeline.trial_spec import check_space

    check_space(loaded)
    if planned(loaded, dry_run, f"prepare, {loaded.tune.runs} trials, train the best, publish"):
        return
    from heliostat.infra.registry import registry
    from heliostat.pipeline import prepare, runs, searches, train, tune

    name = searches.find_search(loaded, search, resume)
    searches.check_retry(loaded, name, retry, resume)
    registry.check(loaded.storage)
    with stages(loaded) as view:
        data = prepare.run(loaded, view)
        best, found = tune.run(loaded, data, view, name, with_page=page, retry=retry is not None)
        if not search_only:
            run = f"{name}-trial-{found.best.number}"
            record = runs.read_run(loaded, run)
            if record.get("status") == "finished":
                view.say(f"trial {found.best.number} was trained in full before: {runs.published(record)}")
            else:
                train.run(best, prepare.run(best, view), view, run, found.winner)


def _price(given: list[str]) -> list[str]:
    """What `--price` sets in the spec."""
    if len(given) > 1:
        raise ConfigError(f"--price: {', '.join(given)} given; one is allowed, of what the workers run on")
    return [f"tune.price={price}" for price in given]


@app.command()
def evaluate(
    spec: SpecArgument,
    overrides: Overrides = None,
    model: ModelOption = None,
    dry_run: DryRun = False,
) -> None:
    """Measure a published model on the test split of the spec's data."""
    loaded = load_spec(spec, overrides or [])
    if planned(loaded, dry_run, "evaluate"):
        return
    from heliostat.pipeline import evaluate, prepare, serve

    require(*TRAINING)
    version = serve.resolve_model(loaded, model)
    with stages(loaded) as view:
        evaluate.run(loaded, version, prepare.run(loaded, view), view)
