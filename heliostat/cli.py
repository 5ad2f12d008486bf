"""The commands. Thin: parse, then call the pipeline; nothing heavy is imported before a spec has been read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated

import typer

from heliostat import __version__
from heliostat.commands import experiment, keys
from heliostat.infra.errors import ConfigError
from heliostat.spec import Spec, load_spec

if TYPE_CHECKING:
    from heliostat.view.terminal import View

app = typer.Typer(
    name="heliostat",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From a base model and your own data to a monitored, autoscaled endpoint.",
)
models_app = typer.Typer(no_args_is_help=True, help="Published models: list, show, promote, roll back.")
app.add_typer(models_app, name="models")
app.add_typer(keys.app, name="keys")
app.add_typer(experiment.app, name="experiment")

SpecArgument = Annotated[str, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="Set over the spec, such as train.epochs=2."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would happen, and do nothing.")]


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """From a base model and your own data to a monitored, autoscaled endpoint."""
    if version:
        typer.echo(f"heliostat {__version__}")
        raise typer.Exit


@app.command()
def demo(
    recipe: Annotated[str, typer.Argument(help="`sentiment` or `chat`.")] = "sentiment",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the endpoint running.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Walk one real job through every stage: prepare, tune, train, evaluate, publish, serve, ask, watch."""
    from heliostat.demo import DEMOS, run_demo

    if recipe not in DEMOS:
        raise ConfigError(f"demo: {recipe!r} given; {' or '.join(DEMOS)} is allowed")
    spec = load_spec(recipe, DEMOS[recipe])
    if not planned(spec, dry_run, "prepare, tune, train, evaluate, publish, serve, ask"):
        run_demo(spec, keep)


@app.command()
def doctor(
    spec: Annotated[str | None, typer.Argument(metavar="[SPEC]", help="Check for this spec too.")] = None,
    overrides: Overrides = None,
    compile_ops: Annotated[bool, typer.Option("--compile", help="Compile DeepSpeed's operators now.")] = False,
) -> None:
    """Check this machine: each line passes, warns or fails, with what to do."""
    from heliostat.cluster.doctor.doctor import checks
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.serve.config import ServeConfig
    from heliostat.view.terminal import View

    loaded = load_spec(spec, overrides or []) if spec else None
    found = checks(
        loaded.storage if loaded else StorageConfig(),
        (loaded.serve if loaded else ServeConfig()).port,
        compile_ops,
    )
    View().table("Doctor", ["", "check", "found", "what to do"], [[c.status, c.name, c.found, c.advice] for c in found])
    if any(check.status == "fail" for check in found):
        raise typer.Exit(1)


@app.command()
def init(
    kind: Annotated[str | None, typer.Argument(metavar="KIND", help="What the data are; all kinds without.")] = None,
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="A folder that is new or empty.")] = None,
    name: Annotated[str | None, typer.Option(help="The model's name; the folder's where left out.")] = None,
) -> None:
    """Begin with your own data: write a commented spec and a small sample that trains as it is."""
    from heliostat.starters.write import start

    called = start(kind, folder, name)
    typer.echo(f"{folder} holds a spec and data for {called}; next: heliostat train {quote(f'{folder}/spec.yaml')}")


@app.command()
def prepare(spec: SpecArgument, overrides: Overrides = None, dry_run: DryRun = False) -> None:
    """Read, clean, split and tokenise the data; reuse the result where nothing has changed."""
    loaded = load_spec(spec, overrides or [])
    if planned(loaded, dry_run, "prepare"):
        return
    from heliostat.pipeline import train as pipeline
    from heliostat.view.terminal import View

    if pipeline.reuse(loaded, View()):
        return
    with stages(loaded) as view:
        pipeline.prepare(loaded, view)


@app.command()
def train(
    spec: SpecArgument,
    overrides: Overrides = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the newest run, or with --run.")] = False,
    run: Annotated[str | None, typer.Option("--run", help="Name of the run; goes on with one of that name.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Train, evaluate and publish the next version."""
    loaded = load_spec(spec, overrides or [])
    if planned(loaded, dry_run, "prepare, train, evaluate, publish"):
        return
    from heliostat.pipeline import train as pipeline

    name = pipeline.find_run(loaded, run, resume)
    if name and (version := pipeline.read_run(loaded, name).get("version")):
        typer.echo(f"run {name} has finished: it is version {version} of {loaded.name}")
        return
    with stages(loaded) as view:
        trained = pipeline.train(loaded, pipeline.prepare(loaded, view), view, name)
        if "production" not in trained.model.aliases:
            view.say(f"next: heliostat models promote {loaded.name} {trained.model.version}")
        else:
            view.say(f"next: heliostat serve {spec}")


@app.command()
def plan(
    spec: SpecArgument,
    overrides: Overrides = None,
    price: Annotated[list[str] | None, typer.Option("--price", help="NAME=USD an hour, such as H100=2.5.")] = None,
    mfu: Annotated[float, typer.Option("--mfu", min=0.01, max=1.0, help="Model FLOPs utilisation to expect.")] = 0.4,
) -> None:
    """Estimate memory at each ZeRO stage, what fits on which accelerator, time and price; start nothing."""
    loaded = load_spec(spec, overrides or [])
    from heliostat.pipeline.plan import show_plan
    from heliostat.view.terminal import View

    show_plan(loaded, View(), price or [], mfu)


@app.command()
def tune(
    spec: SpecArgument,
    overrides: Overrides = None,
    search_only: Annotated[bool, typer.Option("--search-only", help="Do not train the best trial in full.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Search learning rate, batch size and their like; then train the best trial in full and publish it."""
    loaded = load_spec(spec, overrides or [])
    if not loaded.tune.space:
        raise ConfigError("tune.space: empty; give at least one key, such as learning_rate: {loguniform: [1e-5, 1e-3]}")
    if planned(loaded, dry_run, f"prepare, {loaded.tune.trials} trials, train the best, publish"):
        return
    from heliostat.pipeline import train as pipeline

    with stages(loaded) as view:
        prepared = pipeline.prepare(loaded, view)
        best, _ = pipeline.tune(loaded, prepared, view)
        if not search_only:
            pipeline.train(best, prepared, view)


@app.command()
def evaluate(
    spec: SpecArgument,
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="models:/NAME@ALIAS or models:/NAME/VERSION; production.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure a published model on the test split of the spec's data."""
    loaded = load_spec(spec, overrides or [])
    if planned(loaded, dry_run, "evaluate"):
        return
    from heliostat.pipeline import train as pipeline

    version = pipeline.resolve_model(loaded, model)
    with stages(loaded) as view:
        pipeline.evaluate(loaded, version, pipeline.prepare(loaded, view), view)


@models_app.command("list")
def models_list() -> None:
    """All published versions, and what their aliases point to."""
    from heliostat.infra.registry.registry import list_models
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.view.terminal import View

    View().versions(list_models(StorageConfig()))


@models_app.command("show")
def models_show(reference: Annotated[str, typer.Argument(help="NAME, NAME@ALIAS or NAME/VERSION.")]) -> None:
    """One version: where it comes from, its metrics and its files."""
    from heliostat.infra.registry.bundle import read_manifest
    from heliostat.infra.registry.registry import resolve
    from heliostat.infra.storage.config import StorageConfig
    from heliostat.infra.storage.store import open_store
    from heliostat.view.terminal import View

    model = resolve(StorageConfig(), full_reference(reference))
    manifest, view = read_manifest(open_store(model.url), ""), View()
    view.version(model, sum(entry.size_bytes for entry in manifest.files.values()))
    view.metrics("Test split", model.metrics)
    rows = [[name, entry.size_bytes, entry.sha256] for name, entry in manifest.files.items()]
    view.table("Files", ["name", "bytes", "SHA-256"], rows)


@models_app.command("promote")
def models_promote(
    name: str, version: int, alias: Annotated[str, typer.Option(help="The alias to move.")] = "production"
) -> None:
    """Let an alias point to a version."""
    from heliostat.infra.registry.registry import promote
    from heliostat.infra.storage.config import StorageConfig

    model = promote(StorageConfig(), name, version, alias)
    typer.echo(f"{name}@{alias} is version {model.version}; heliostat serve puts it to work")


@models_app.command("rollback")
def models_rollback(name: str, alias: Annotated[str, typer.Option(help="The alias to move.")] = "production") -> None:
    """Let an alias point to the version before."""
    from heliostat.infra.registry.registry import rollback
    from heliostat.infra.storage.config import StorageConfig

    model = rollback(StorageConfig(), name, alias)
    typer.echo(f"{name}@{alias} is version {model.version} again; heliostat serve puts it to work")


@app.command()
def serve(
    spec: SpecArgument,
    overrides: Overrides = None,
    model: Annotated[str | None, typer.Option(help="models:/NAME@ALIAS or models:/NAME/VERSION; production.")] = None,
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
        from heliostat.pipeline.experiment import start_beside

        start_beside(loaded, model, canary, ab, by)
        return
    from heliostat.pipeline.endpoints import serve_until_stopped

    serve_until_stopped(loaded, model, detach)


@app.command()
def explain(
    model: Annotated[str, typer.Argument(help="NAME, models:/NAME@ALIAS or models:/NAME/VERSION.")],
    given: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="A text or a row as JSON, a file of either, or an image file."),
    ],
    label: Annotated[str | None, typer.Option(help="The label to explain; the likeliest where left out.")] = None,
    method: Annotated[str | None, typer.Option(help="For images: occlusion, or saliency.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as POST /v1/explain answers.")] = False,
) -> None:
    """Say why a published classifier answers as it does: what in the input speaks for a label, and what against it."""
    from heliostat.pipeline.explain import explain as run

    run(full_reference(model), given, label, method, html, as_json)


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The endpoint.")],
    version: Annotated[int | None, typer.Argument(help="The version before, where left out.")] = None,
) -> None:
    """Let an endpoint that runs answer from an earlier version again, without a request lost."""
    from heliostat.pipeline.experiment import roll_back

    roll_back(name, version)


@app.command()
def bench(
    url: Annotated[str, typer.Argument(help="The endpoint, such as http://localhost:8000/chat.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="concurrency, rate, requests, kind, model, words, max_tokens …"),
    ] = None,
    key: Annotated[str | None, typer.Option(envvar="HELIOSTAT_API_KEY", help="What the endpoint asks for.")] = None,
    texts: Annotated[Path | None, typer.Option(help="A file with a text to ask with in each line.")] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Put load on an OpenAI or predict endpoint: throughput, TTFT, inter-token latency, errors."""
    from heliostat.pipeline.bench import bench as run

    run(url, overrides or [], key, texts, out)


@app.command()
def submit(
    command: Annotated[str, typer.Argument(help="What to run there: `prepare`, `tune`, `train` or `evaluate`.")],
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="A YAML file, or the name of a recipe.")],
    overrides: Overrides = None,
    address: Annotated[str, typer.Option(envvar="RAY_ADDRESS", help="http://HOST:8265")] = "http://127.0.0.1:8265",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job's log to its end.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Run a command as a job on a Ray cluster."""
    if command not in ("prepare", "tune", "train", "evaluate"):
        raise ConfigError(f"submit: {command!r} given; prepare, tune, train or evaluate is allowed")
    loaded = load_spec(spec, overrides or [])
    if planned(loaded, dry_run, f"submit {command} to {address}"):
        return
    from heliostat.pipeline.submit import submit_command

    submit_command(command, loaded, address, wait)


@app.command()
def status() -> None:
    """What of ours is running: the local cluster, endpoints, jobs, leftovers."""
    from heliostat.pipeline.endpoints import show_status

    show_status()


@app.command()
def stop(
    name: Annotated[
        str | None, typer.Argument(help="One endpoint; all, and the local cluster, where left out.")
    ] = None,
) -> None:
    """End an endpoint, or all of them with the local cluster."""
    from heliostat.pipeline.endpoints import stop_serving

    stop_serving(name)


@contextmanager
def stages(spec: Spec) -> Iterator[View]:
    """A Ray session for the spec, and the terminal."""
    from heliostat.pipeline import train as pipeline
    from heliostat.view.terminal import View

    view = View()
    with view.progress("Ray") as advance:
        advance("starting", 0, 0)
    with pipeline.session(spec):
        yield view


def planned(spec: Spec, dry_run: bool, what: str) -> bool:
    """With --dry-run, prints what would happen and the resolved spec; tells whether it did."""
    if dry_run:
        from heliostat.infra.config.strict import dump_yaml

        typer.echo(f"# would {what}, in {spec.storage.url}\n{dump_yaml(spec)}", nl=False)
    return dry_run


def full_reference(reference: str) -> str:
    """`models:/…` from its short forms; a bare name means its production version."""
    reference = reference.removeprefix("models:/")
    return f"models:/{reference if '@' in reference or '/' in reference else reference + '@production'}"
