"""`cluster.launcher` of a spec: what is refused, in one line each, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from heliostat.cli import app
from heliostat.cluster.launcher.__main__ import EXAMPLES
from heliostat.cluster.launcher.render import PROVIDERS
from heliostat.infra.errors import ConfigError
from heliostat.operations.render_launcher import chosen_provider, render_launcher
from heliostat.spec import Spec, load_spec
from tests.guides import ROOT


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A recipe with the examples of all providers, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((ROOT / "recipes" / "sentiment.yaml").read_text())
    values["cluster"] = {"launcher": yaml.safe_load(EXAMPLES.read_text())}
    Path("spec.yaml").write_text(yaml.safe_dump(values))
    return "spec.yaml"


REFUSED = {
    "image=registry.example.com/heliostat/cluster:latest": "cluster.launcher.image: .*no tag `latest`",
    "image=registry.example.com/heliostat/cluster": "cluster.launcher.image: .*NAME:TAG is allowed",
    "aws.region=west": "cluster.launcher.aws.region: 'west' given",
    "aws.region=null": "cluster.launcher.aws.region: None given",
    "aws.regoin=us-west-2": "cluster.launcher.aws.regoin: unknown key; did you mean 'region'",
    "aws.machine_image=latest_dlami": "cluster.launcher.aws.machine_image: 'latest_dlami' given",
    "aws.security_groups=[]": r"cluster.launcher.aws.security_groups: \[\] given",
    "aws.pools={}": "cluster.launcher.aws.pools: {} given",
    "aws.pools.l4.min=5": "cluster.launcher.aws.pools.l4.max: 4 given; min is 5, so 5 or more is needed",
    "aws.pools.l4.capacity=cheap": "cluster.launcher.aws.pools.l4.capacity: 'cheap' given",
    "aws.pools.L4={machine: x, cpus: 1, max: 1}": "cluster.launcher.aws.pools.L4",
    "aws.pools.l4.accelerator=nvidia-l4": "cluster.launcher.aws.pools.l4.accelerator: unknown key",
    "gcp.zone=europe-west4-a": "cluster.launcher.gcp.zone: 'europe-west4-a' given; a zone of us-central1 is needed",
    "gcp.machine_image=projects/p/global/images/family/f": "cluster.launcher.gcp.machine_image: .*no family",
    "azure.machine_image=microsoft-dsvm:ubuntu-hpc:2204:latest": "cluster.launcher.azure.machine_image: .*no version",
    "azure.subnet=0.0.0.0": "cluster.launcher.azure.subnet: '0.0.0.0' given",
    "local.workers=[]": r"cluster.launcher.local.workers: \[\] given",
    "local.workers=[192.0.2.10]": "cluster.launcher.local.workers: .*twice: 192.0.2.10",
    "idle_minutes=0": "cluster.launcher.idle_minutes: 0 given",
    "name=Heliostat": "cluster.launcher.name: 'Heliostat' given",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_no_cluster_can_be_made_of_is_refused_by_key(override: str, spec: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[override]) as raised:
        load_spec(spec, [f"cluster.launcher.{override}"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["region", "subnets", "security_groups", "head_profile", "worker_profile", "pools"])
def test_what_is_missing_is_named(key: str, spec: str) -> None:
    values = yaml.safe_load(Path(spec).read_text())
    del values["cluster"]["launcher"]["aws"][key]
    Path(spec).write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=f"cluster.launcher.aws.{key}: missing, a value is needed"):
        load_spec(spec)


def launcher_of(spec: str, **sections: Any) -> Spec:
    return load_spec(spec, [f"cluster.launcher.{name}={value}" for name, value in sections.items()])


def test_a_provider_is_one_that_there_is_and_that_the_spec_describes(spec: str) -> None:
    without = {name: "null" for name in PROVIDERS if name != "gcp"}
    assert chosen_provider(launcher_of(spec, **without), None) == "gcp"
    with pytest.raises(ConfigError, match="--provider: 'ibm' given; local, aws, gcp, azure is allowed"):
        chosen_provider(load_spec(spec), "ibm")
    with pytest.raises(ConfigError, match=r"--provider: not given, and cluster.launcher has local, aws, gcp, azure"):
        chosen_provider(load_spec(spec), None)
    with pytest.raises(ConfigError, match=r"cluster.launcher.aws: missing, .*given: gcp"):
        render_launcher(launcher_of(spec, **without), "aws", None, force=False)
    with pytest.raises(ConfigError, match=r"cluster.launcher: missing"):
        chosen_provider(load_spec("sentiment"), "aws")
    assert not Path("aws.yaml").exists()


@pytest.mark.parametrize("provider", PROVIDERS)
def test_the_command_writes_the_same_bytes_again_and_keeps_what_was_edited(provider: str, spec: str) -> None:
    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["render", "launcher", spec, "--provider", provider, *words])
        return done.exit_code, f"{done.output}{done.exception or ''}"

    file = Path(f"{provider}.yaml")
    assert "written" in run()[1]
    first = file.read_bytes()
    assert yaml.safe_load(first)["cluster_name"] == "heliostat"
    assert f"#   ray up {file}\n" in file.read_text()
    assert "as it was" in run()[1]
    file.write_bytes(first.replace(b"idle_timeout_minutes: 10", b"idle_timeout_minutes: 20"))
    code, said = run()
    assert code != 0
    assert f"{file}: changed since it was rendered" in said
    assert b"idle_timeout_minutes: 20" in file.read_bytes()
    assert run("--force")[0] == 0
    assert file.read_bytes() == first


def test_a_file_that_was_never_rendered_is_kept(spec: str) -> None:
    Path("mine.yaml").write_text("cluster_name: mine\n")
    with pytest.raises(ConfigError, match=r"mine.yaml: changed since it was rendered, or never was"):
        render_launcher(load_spec(spec), "aws", Path("mine.yaml"), force=False)
    assert Path("mine.yaml").read_text() == "cluster_name: mine\n"
