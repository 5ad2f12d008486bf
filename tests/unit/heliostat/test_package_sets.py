"""Every command where only a part of what Heliostat needs is installed: it works, or says in one line what lacks."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from packaging.requirements import Requirement

from heliostat import __main__
from heliostat.cli import app
from heliostat.infra import installed
from heliostat.infra.errors import HeliostatError
from tests.package_sets import make_environment, serve_packages

SERVES_ONLY = "which is not installed here: this image serves only; use the train image, or pip install heliostat"
NOTHING_RUNS = "nothing is running: no detached Ray of ours"

WORK: dict[str, tuple[list[str], int, str]] = {
    "bench": (["http://127.0.0.1:1/x"], 1, "no answer"),
    "deploy": (["sentiment", "--context", "test"], 1, "pip install 'heliostat[kubernetes]' brings it"),
    "destroy": (["--context", "test"], 1, "pip install 'heliostat[kubernetes]' brings it"),
    "doctor": ([], 0, "not installed: cmaes, deepspeed, "),
    "experiment promote": (["shop"], 1, NOTHING_RUNS),
    "experiment show": (["shop"], 2, "none of shop runs"),
    "experiment stop": (["shop"], 1, NOTHING_RUNS),
    "explain": (["shop", "a joy"], 1, "pip install 'heliostat[explain]'"),
    "exporter": (["--storage", "ftp://x"], 2, "s3://bucket/prefix or a local path"),
    "init": (["table", "shop"], 0, "next: heliostat train"),
    **{
        f"jobs {name}": ([*job, "--address", "http://127.0.0.1:1"], 1, "nothing answers there")
        for name, job in {"list": [], **{name: ["a"] for name in ("follow", "logs", "stop", "wait")}}.items()
    },
    "keys add": (["shop"], 0, ""),
    "keys list": ([], 0, "Keys"),
    "keys remove": (["nobody"], 2, "'nobody' given"),
    "models list": ([], 0, "Published models"),
    "models promote": (["shop", "1"], 1, "shop"),
    "models rollback": (["shop"], 1, "shop"),
    "models show": (["shop"], 1, "shop"),
    "monitor down": ([], 0, "no monitor is running"),
    "monitor status": ([], 1, "not all of it runs"),
    "monitor up": (["--rules", "none.yaml"], 2, "--rules: none.yaml: no such file"),
    "render helm": (["sentiment", "storage.url=s3://bucket", "--no-serve", "--out", "chart"], 0, "files written"),
    "render k8s": (["sentiment", "storage.url=s3://bucket", "--no-serve", "--out", "out"], 0, "files written"),
    "render launcher": (["sentiment"], 2, "cluster.launcher: missing"),
    "rollback": (["shop"], 1, NOTHING_RUNS),
    "serve": (["sentiment"], 1, "models:/sentiment@production"),
    "status": ([], 0, NOTHING_RUNS),
    "stop": ([], 1, NOTHING_RUNS),
    "trials clone": (["m", "0", "learning_rate=1"], 1, "m: no search yet in"),
    "trials list": (["m"], 1, "m: no search yet in"),
    "trials stop": (["m", "0"], 1, "m: no search yet in"),
    "submit": (["train", "sentiment", "--address", "http://127.0.0.1:1"], 1, "nothing answers there"),
}
"""What works where only serving is installed: arguments, exit code, and what is said."""
TRAIN = {"demo": [], **{name: ["sentiment"] for name in ("evaluate", "plan", "prepare", "train", "tune")}}
"""What needs all packages, with arguments."""


def commands(group: Any = None) -> Iterator[str]:
    """The names of all commands."""
    top: Any = group or typer.main.get_command(app)
    for name, command in top.commands.items():
        inner = getattr(command, "commands", None)
        yield from (f"{name} {one}" for one in commands(command)) if inner else [name]


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


CALLS = """
import contextlib, io, json, sys, traceback
from heliostat.__main__ import main

def call(arguments):
    sys.argv, code, out, err = ["heliostat", *arguments], 0, io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
            code = -1
    return code, out.getvalue(), err.getvalue()

print(json.dumps([call(arguments) for arguments in json.load(sys.stdin)]))
"""
"""Calls commands one after another in one process, which imports PyTorch, Ray and MLflow once."""


def call(programs: Path, folder: Path, calls: list[list[str]], **variables: str) -> list[Said]:
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(folder), "RAY_TMPDIR": str(folder), **variables}
    done = subprocess.run(
        [str(programs / "python"), "-c", CALLS], input=json.dumps(calls), cwd=folder, env=environment,
        capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return [Said(*one) for one in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def tracking() -> Iterator[str]:
    """The address of an MLflow server that knows no model."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path.partition("?")[0].endswith("/search")
            body = b"{}" if found else b'{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}'
            self.send_response(200 if found else 404)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the packages of the serving image."""
    return make_environment(tmp_path_factory.mktemp("serving"), serve_packages())


@pytest.fixture(scope="module")
def in_serving(serving: Path, tracking: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    """What each command says there."""
    arguments = {**{name: given for name, (given, _, _) in WORK.items()}, **TRAIN}
    calls = [[*name.split(), *given] for name, given in arguments.items()]
    said = call(serving, tmp_path_factory.mktemp("folder"), calls, MLFLOW_TRACKING_URI=tracking)
    return dict(zip(arguments, said, strict=True))


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment into which Heliostat came without its dependencies."""
    return make_environment(tmp_path_factory.mktemp("bare"), [])


def test_every_command_is_tried() -> None:
    assert sorted([*WORK, *TRAIN]) == sorted(commands())


@pytest.mark.parametrize("command", WORK)
def test_the_serving_image_has_the_commands_of_serving(in_serving: dict[str, Said], command: str) -> None:
    said, (_, code, words) = in_serving[command], WORK[command]
    assert said.code == code, said.err
    assert words in said.out + said.err
    assert said.err.count("\n") == (code > 0), said.err


def test_the_doctor_of_the_serving_image_says_what_it_is_not_for(in_serving: dict[str, Said]) -> None:
    [line] = [line for line in in_serving["doctor"].out.splitlines() if "DeepSpeed missing" in line]
    assert "nothing can be trained" in line
    assert installed.SERVES_ONLY in line


@pytest.mark.parametrize("command", TRAIN)
def test_the_serving_image_says_that_it_only_serves(in_serving: dict[str, Said], command: str) -> None:
    said = in_serving[command]
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"heliostat: {command}: needs ")
    assert said.err.endswith(f", {SERVES_ONLY}\n")
    assert said.err.count("\n") == 1


def test_the_serving_image_has_help_and_resolves_specs(serving: Path, tmp_path: Path) -> None:
    said = call(serving, tmp_path, [["--help"], ["--version"], ["train", "sentiment", "--dry-run"]])
    assert [one.code for one in said] == [0, 0, 0]


def test_a_registry_in_a_file_needs_a_database(serving: Path, tmp_path: Path) -> None:
    [said] = call(serving, tmp_path, [["models", "list"]])
    assert said.code == 1
    assert "needs sqlalchemy" in said.err
    assert "MLFLOW_TRACKING_URI" in said.err
    assert said.err.count("\n") == 1


def test_without_its_dependencies_each_command_says_so(bare: Path, tmp_path: Path) -> None:
    words = [["--help"], ["--version"], [], *([*name.split()] for name in [*WORK, *TRAIN])]
    line = "needs typer, which is not installed here: pip install heliostat installs it\n"
    for given, said in zip(words, call(bare, tmp_path, words), strict=True):
        name = f"{given[0]}: " if given and not given[0].startswith("-") else ""
        assert said == Said(1, "", f"heliostat: {name}{line}")


def test_the_program_itself_says_so(bare: Path, tmp_path: Path) -> None:
    done = subprocess.run([bare / "heliostat", "train"], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("heliostat: train: needs typer, ")


def lost(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def without(patch: pytest.MonkeyPatch, *missing: str) -> None:
    """As where these packages are not installed."""
    patch.setattr(installed, "_is_installed", lambda name: name not in missing)


def test_all_is_installed_here_and_named_as_its_modules_are() -> None:
    assert installed.missing_packages() == []
    named = {installed.MODULES.get(top, top.replace("_", "-")) for top in importlib.metadata.packages_distributions()}
    ours = [Requirement(line) for line in importlib.metadata.requires("heliostat") or []]
    assert {one.name.lower() for one in ours if one.marker is None} <= named


def test_a_module_that_lacks_is_a_package_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "scikit-learn")
    assert installed.missing_packages() == ["scikit-learn"]
    said = "needs scikit-learn, which is not installed here: pip install heliostat installs it"
    assert installed.explain(lost("sklearn.metrics")) == said
    without(monkeypatch, "deepspeed")
    assert installed.explain(lost("pyarrow")) == f"needs pyarrow, {SERVES_ONLY}"


def test_a_mistake_of_ours_stays_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    assert installed.explain(lost("deepspeed")) is None, "all is installed, so it is no matter of packages"
    without(monkeypatch, "deepspeed")
    assert installed.explain(lost("heliostat.nowhere")) is None
    assert installed.explain(ModuleNotFoundError("of no module")) is None


def test_the_program_ends_with_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        installed.require("sys", "no_such_module")

    monkeypatch.setattr("heliostat.cli.app", fail)
    monkeypatch.setattr("sys.argv", ["heliostat", "train", "sentiment"])
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        __main__.main()
    without(monkeypatch, "torch")
    with pytest.raises(SystemExit) as ended:
        __main__.main()
    assert ended.value.code == HeliostatError.exit_code
    assert capsys.readouterr().err == (
        "heliostat: train: needs no-such-module, which is not installed here: pip install heliostat installs it\n"
    )
