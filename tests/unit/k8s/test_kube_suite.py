"""The tests for a real cluster run through on the fake one, so that they do not rot while there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fake_kuberay import FakeKubeRay
from tests.fake_kubernetes import FakeKubernetes

ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "tests/kube"]


def run(*more: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run([*COMMAND, *more], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_suite_passes_on_what_the_fake_knows(tmp_path: Path) -> None:
    fake = FakeKubernetes()
    FakeKubeRay(fake)
    kubeconfig = fake.kubeconfig(tmp_path / "kubeconfig", "fake")
    unknown = "not kubectl"  # which asks for discovery documents of its own

    done = run("-k", unknown, HELIOSTAT_TEST_KUBECONFIG=str(kubeconfig), HELIOSTAT_TEST_SECONDS="20")

    fake.close()
    assert done.returncode == 0, done.stdout
    assert fake.all_of("RayService") == [], "nothing is left behind"


def test_without_a_cluster_it_is_skipped_and_says_so() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "HELIOSTAT_TEST_KUBECONFIG"}

    done = subprocess.run(
        [*COMMAND, "-k", "recipe and sentiment"], cwd=ROOT, env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True,
    )  # fmt: skip

    assert "there is no throwaway cluster: HELIOSTAT_TEST_KUBECONFIG is not set" in done.stdout
    assert done.returncode == 0, done.stdout
