"""Nodes, tasks and objects that go wrong for real, and the alerts that fire in Alertmanager. Run by `make faults`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from heliostat.cluster.environment import applied, local_environment
from heliostat.cluster.scrape import discoverable
from tests.nodes import NODE
from tests.prometheus import SECONDS, alertmanager, fast_rules, prometheus
from tests.waiting import until

pytestmark = pytest.mark.faults


@pytest.fixture
def several_nodes(home: Path) -> Iterator[tuple[Cluster, list[Any]]]:
    """A head without CPUs and two nodes with one each, at addresses of their own; they report each second."""
    quick = {"RAY_health_check_period_ms": "1000", "RAY_metrics_report_interval_ms": "1000"}
    with applied({**local_environment(), **quick}):
        made = Cluster(
            initialize_head=True,
            shutdown_at_exit=False,
            head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False},
        )
        nodes = [made.add_node(**{**NODE, "node_ip_address": f"127.0.0.{number}"}) for number in (2, 3)]
        ray.init(made.address, log_to_driver=False)
        yield made, nodes
        ray.shutdown()
        made.shutdown()


class Worker:
    """Takes a CPU of a node."""

    def node(self) -> str:
        return ray.get_runtime_context().get_node_id()


def test_a_cluster_that_goes_wrong(several_nodes: tuple[Cluster, list[Any]], tmp_path: Path) -> None:
    cluster, nodes = several_nodes
    with (
        discoverable(),
        alertmanager(tmp_path) as alerts,
        prometheus(tmp_path, rules=fast_rules(tmp_path / "rules.yaml"), tells=alerts) as server,
    ):
        until(lambda: len(server.now('up{job="ray"} == 1')) == 3, "all nodes are scraped", SECONDS)
        workers = [ray.remote(num_cpus=1)(Worker).remote() for _ in nodes]
        ray.get([worker.node.remote() for worker in workers])
        until(lambda: len(server.now("heliostat:node_cpus_used:sum == 1")) == 2, "the CPUs are in use", SECONDS)

        wanted = ray.remote(resources={"unobtainium": 1})(lambda: None).remote()
        alerts.fires("HeliostatNoNodeFits")
        ray.cancel(wanted)
        alerts.ends("HeliostatNoNodeFits")

        kept = [ray.put(np.ones(20 << 20, dtype=np.uint8)) for _ in range(8)]
        alerts.fires("HeliostatObjectStoreSpills")
        del kept
        alerts.ends("HeliostatObjectStoreSpills")

        cluster.remove_node(nodes.pop(), allow_graceful=False)
        alerts.fires("HeliostatNodeLost", NodeAddress="127.0.0.3")
        alerts.fires("HeliostatTargetDown")
        alerts.ends("HeliostatNodeLost")
        with discoverable():  # as a Ray with an API server renews it
            alerts.ends("HeliostatTargetDown")
