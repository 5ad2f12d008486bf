"""The commands answer bad input in one line, at once, and with nothing heavy imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from heliostat.spec import RECIPES, load_spec

COMMANDS = (
    "demo",
    "doctor",
    "init",
    "prepare",
    "plan",
    "train",
    "tune",
    "evaluate",
    "models",
    "serve",
    "explain",
    "bench",
    "submit",
    "status",
    "stop",
)
HEAVY = ("torch", "ray", "transformers", "deepspeed", "mlflow", "boto3", "pyarrow")


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "heliostat", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=60, check=False)


def test_help_and_a_bad_spec_import_nothing_heavy(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom heliostat.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"heavy = [name for name in {HEAVY} if name in sys.modules]\nsys.exit(', '.join(heavy) or 0)"
    )
    commands: tuple[list[str], ...] = (["--help"], ["train", "--help"], ["train", "sentiment", "train.worker=1"])
    for arguments in (*commands, ["init"], ["init", "table", str(tmp_path / "shop")]):
        done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    done = run(command, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "sentiment", "train.worker=3"], ["train.worker", "unknown key", "workers"]),
        (["train", "sentiment", "train.epochs=many"], ["train.epochs", "'many'", "number"]),
        (["train", "sentiment", "train.workers=99"], ["train.global_batch_size", "32", "at least train.workers (99)"]),
        (["train", "sentiment", "train.workers=many"], ["train.workers", "'many'", "a number or {min, max}"]),
        (["train", "sentiment", "data.split.test=0.95"], ["data.split", "0.95", "below 1"]),
        (["train", "sentiment", "epochs"], ["'epochs'", "key.path=value"]),
        (["train", "sentiment", "train.deepspeed={train_batch_size: 4}"], ["train_batch_size", "global_batch_size"]),
        (["train", "nowhere"], ["nowhere", "no such spec", "sentiment"]),
        (["tune", "chat", "tune.space={}"], ["tune.space", "empty"]),
        (["train", "sentiment", "train.epochs=.inf"], ["train.epochs", "inf", "finite"]),
        (["train", "sentiment", "serve.cpus_per_replica=.nan"], ["serve.cpus_per_replica", "nan", "finite"]),
        (["tune", "sentiment", "tune.space={learning_rate: {uniform: [0.1, .inf]}}"], ["tune.space", "inf", "finite"]),
        (["plan", "sentiment", "--price", "H100=nan"], ["--price", "H100=nan"]),
        (["plan", "sentiment", "--price", "H100=inf"], ["--price", "H100=inf"]),
        (["tune", "sentiment", "--price", "T1000=2"], ["tune.price", "T1000=2", "CPU", "H100"]),
        (["tune", "sentiment", "--price", "L4=1", "--price", "CPU=1"], ["--price", "L4=1, CPU=1", "one is allowed"]),
        (["tune", "sentiment", "tune.budget.usd=5"], ["tune.budget.usd", "5", "--price NAME=USD"]),
        (["tune", "sentiment", "tune.budget.usd=0"], ["tune.budget.usd", "0", "greater than 0"]),
        (["tune", "sentiment", "--retry", "failed"], ["--retry", "failed", "--resume"]),
        (["serve", "sentiment", "--canary", "nan"], ["--canary", "nan"]),
        (["keys", "add", "shop", "--days", "0"], ["--days", "0", "above 0"]),
        (["keys", "add", "shop", "--days", "inf"], ["--days", "inf", "at most 36500"]),
        (["keys", "add", "shop", "--days", "1e300"], ["--days", "1e+300", "at most 36500"]),
        (["keys", "add", "shop", "--days", "nan"], ["--days", "nan", "at most 36500"]),
        (["keys", "add", "shop", "--model", ""], ["--model", "''", "an endpoint"]),
        (["submit", "train", "sentiment", "--address", "http://127.0.0.1:99999"], ["--address", ":99999", "8265"]),
        (["train", "/dev/zero"], ["/dev/zero", "not a spec"]),
        (["demo", "video"], ["'video'", "sentiment or chat"]),
        (["init"], ["no KIND", "table (", "images (", "texts (", "chat (", "language (", "generator ("]),
        (["init", "video", "here"], ["'video'", "table (", "chat (", "language (", "generator ("]),
        (["init", "table"], ["no DIR", "heliostat init table DIR"]),
        (["init", "table", "here", "--name", "My Model"], ["name", "'My Model'", "a-z"]),
        (["init", "table", "/"], ["/ is not empty", "new or empty"]),
        (["submit", "train", "sentiment", "--id", "a/b"], ["--id", "'a/b'", "letters, digits"]),
        (["submit", "train", "sentiment", "--retries", "2", "--no-wait"], ["--retries", "2", "--no-wait"]),
        (["submit", "models", "sentiment"], ["'models'", "prepare, tune, train, evaluate or serve"]),
        (["train", "sentiment", "tune.space={lr: {choice: [1]}}"], ["'lr'", "learning_rate"]),
        (["train", "sentiment", "serve.replicas={min: 3, max: 2}"], ["serve.replicas", "3", "2"]),
        (["train", "sentiment", "name=My Model"], ["name", "'My Model'", "a-z"]),
        (["train", "sentiment", "model={}"], ["model", "nothing given", "exactly one of source, mlp"]),
        (["train", "sentiment", "model.mlp={}"], ["model.source and model.mlp given", "exactly one"]),
        (
            ["train", "tabular", "model={source: bert}"],
            ["model.source", "tabular-classification", "model.mlp is needed"],
        ),
        (["train", "tabular", "model={lstm: {}}"], ["model.lstm", "tabular-classification", "model.mlp is needed"]),
        (["train", "tabular", "model.mlp.hidden=[0]"], ["model.mlp.hidden.0", "0", "greater than 0"]),
        (["train", "images", "train.adapter={}"], ["train.adapter", "model.residual_cnn is built here"]),
        (["train", "gan", "train.zero_stage=3"], ["train.zero_stage", "3", "0, 1 and 2 are allowed"]),
        (["train", "chat", "data.split.stratify=true"], ["data.split.stratify", "causal-lm", "no classes"]),
        (
            ["train", "gan", "data.split.stratify=true", "data.columns.label=null"],
            ["data.split.stratify", "image-generation", "no classes"],
        ),
        (["train", "digits", "data.columns.label=null"], ["data.columns.label", "null", "image-classification"]),
        (["train", "language-model", "model.decoder.heads=3"], ["model.decoder.hidden", "256", "a multiple of 6"]),
        (
            ["train", "chat", "train.class_weights=balanced"],
            ["train.class_weights", "causal-lm", "a classification is needed"],
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["file:///x", "http://host/x", "s3://my_bucket", "/data/100%", "what?"])
@pytest.mark.parametrize("arguments", [["models", "list"], ["keys", "list"], ["train", "sentiment"], ["doctor"]])
def test_a_wrong_place_in_the_environment_is_one_line_that_names_it(
    arguments: list[str], place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HELIOSTAT_STORAGE", place)
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"heliostat: HELIOSTAT_STORAGE: {place!r} given; ")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_server_in_the_environment_is_one_line_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HELIOSTAT_STORAGE", "s3://bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "foo")
    done = run("keys", "list")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "AWS_ENDPOINT_URL_S3: Invalid endpoint: foo; http://host:port" in done.stderr


def test_output_that_goes_nowhere_is_one_line_and_a_true_exit_code(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "heliostat", "keys", "list"]
        environment = {**os.environ, "HELIOSTAT_STORAGE": str(tmp_path)}
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment, timeout=60, check=False
        )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "sentiment", "train.workers=64", "train.global_batch_size=64"], ["train.workers", "64"]),
        (["train", "sentiment", "model.source=/no/such/folder"], ["model.source", "/no/such/folder"]),
        (["prepare", "sentiment", "data.source=pkg:no_such_package/x.csv"], ["data.source", "no_such_package", "pip"]),
        (["evaluate", "sentiment"], ["models:/sentiment@production"]),
        (["train", "sentiment", "--resume"], ["--resume", "no run"]),
    ],
)
def test_what_is_missing_is_one_line(arguments: list[str], words: list[str], tmp_path: Path) -> None:
    done = run(*arguments, f"storage.url={tmp_path}/storage")
    lines = [line for line in done.stderr.splitlines() if line.startswith("heliostat:")]
    assert done.returncode != 0
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["prepare", "train", "tune", "evaluate", "serve"])
def test_dry_run_prints_the_resolved_spec_and_does_nothing(command: str, tmp_path: Path) -> None:
    done = run(command, "sentiment", "train.epochs=3", "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "epochs: 3" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_every_recipe_loads() -> None:
    recipes = sorted(RECIPES.glob("*.yaml"))
    assert {recipe.stem for recipe in recipes} >= {"sentiment", "chat"}
    for recipe in recipes:
        assert load_spec(recipe).name == recipe.stem
