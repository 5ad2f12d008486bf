from __future__ import annotations

from heliostat.cluster.deploy.api import Api
from heliostat.cluster.deploy.joblog import JobLog
from tests.fake_kubernetes import FakeKubernetes


def pod(kubernetes: FakeKubernetes, name: str) -> None:
    meta = {"name": name, "labels": {"job-name": "mood-7"}}
    kubernetes.write({"apiVersion": "v1", "kind": "Pod", "metadata": meta})


def test_each_line_of_a_job_is_said_once_however_often_it_is_looked_at(api: Api, kubernetes: FakeKubernetes) -> None:
    said: list[str] = []
    log = JobLog(api, "mood-7", said.append)
    log()
    pod(kubernetes, "first")
    log()  # the pod waits to start
    kubernetes.logs["first"] = "2026-01-01T00:00:01Z a\n2026-01-01T00:00:01Z a\n"
    log()
    log()
    kubernetes.logs["first"] += "2026-01-01T00:00:01Z b\n2026-01-01T00:00:02Z c\n"
    log()
    assert said == ["a", "a", "b", "c"], "two equal lines of one time are two lines"

    pod(kubernetes, "second")
    kubernetes.logs["second"] = "2026-01-01T00:00:01Z the next attempt\n"
    log()
    assert said[4:] == ["the next attempt"]
