from __future__ import annotations

import os
from pathlib import Path

import pytest

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.session import resources
from heliostat.infra.errors import ResourceError


def test_more_cpus_than_there_are_is_one_line_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "local_cpus", lambda: 2)
    resources.check_local(ClusterConfig(), "train.workers", 2, 0)
    with pytest.raises(ResourceError) as caught:
        resources.check_local(ClusterConfig(), "train.workers", 64, 0)
    assert str(caught.value).startswith("train.workers: 64 CPUs needed, 2 here; lower it")
    assert "cluster.num_cpus=64" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cpus_of_the_spec_count_in_place_of_the_machines() -> None:
    resources.check_local(ClusterConfig(num_cpus=64), "train.workers", 64, 0)
    with pytest.raises(ResourceError, match=r"serve.replicas.min: 2 CPUs needed, 1 here"):
        resources.check_local(ClusterConfig(num_cpus=1), "serve.replicas.min", 2, 0)


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "local_gpus", lambda: 1)
    resources.check_local(ClusterConfig(), "train.workers", 0, 1)
    with pytest.raises(ResourceError, match=r"train.workers: 2 GPUs needed, 1 here"):
        resources.check_local(ClusterConfig(), "train.workers", 0, 2)
    resources.check_local(ClusterConfig(num_gpus=2), "train.workers", 0, 2)


def test_a_cluster_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    resources.check_cluster(ClusterConfig(), "train.workers", 4, 0)
    with pytest.raises(ResourceError, match=r"8 CPUs needed, the Ray cluster has 4; .*cluster.autoscales=true"):
        resources.check_cluster(ClusterConfig(), "train.workers", 8, 0)
    with pytest.raises(ResourceError, match="1 GPUs needed, the Ray cluster has 0"):
        resources.check_cluster(ClusterConfig(), "train.workers", 1, 1)
    resources.check_cluster(ClusterConfig(autoscales=True), "train.workers", 800, 8)


@pytest.mark.parametrize(
    ("text", "cpus"), [("max 100000", None), ("150000 100000", 1), ("400000 100000", 4), ("", None)]
)
def test_a_containers_share_of_cpus(tmp_path: Path, text: str, cpus: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert resources._container_cpus(tmp_path / "cpu.max") == cpus


def test_there_is_at_least_one_cpu_and_never_more_than_the_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= resources.local_cpus() <= (os.cpu_count() or 1)
    monkeypatch.setattr(resources, "_container_cpus", lambda: 0)
    assert resources.local_cpus() >= 1


def test_a_cluster_that_is_busy_is_told_of(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    import ray

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0})
    monkeypatch.setattr(ray, "available_resources", lambda: {"CPU": 1.0})
    resources.warn_if_busy("train.workers", 1, 0)
    assert not caplog.messages
    resources.warn_if_busy("train.workers", 2, 1)
    assert caplog.messages == [
        "train.workers: 2 CPUs needed, 1 of the Ray cluster's 4 are free; the work waits for the rest",
        "train.workers: 1 GPUs needed, 0 of the Ray cluster's 0 are free; the work waits for the rest",
    ]
