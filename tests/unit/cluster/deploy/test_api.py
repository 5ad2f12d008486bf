from __future__ import annotations

from pathlib import Path

import pytest

from heliostat.cluster.deploy.api import Api, Reference, RefusedError
from heliostat.cluster.deploy.contexts import connect
from heliostat.cluster.deploy.owned import applied
from heliostat.infra.errors import ConfigError, KubernetesError
from tests.fake_kubernetes import FakeKubernetes

CONFIG = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "labels": {"a.b/c": "d"}}}
HERE = Reference.of(CONFIG)


def test_an_object_is_applied_read_listed_and_deleted(api: Api) -> None:
    first = api.apply({**CONFIG, "data": {"one": "1", "two": "2"}})
    second = api.apply({**CONFIG, "data": {"one": "1"}})

    assert first["data"] == {"one": "1", "two": "2"}
    assert second["data"] == {"one": "1"}, "what is left out is removed"
    found = api.get(HERE)
    assert found is not None
    assert found["data"] == {"one": "1"}
    assert [one["metadata"]["name"] for one in api.all_of("v1", "ConfigMap", labels="a.b/c=d")] == ["c"]
    assert api.all_of("v1", "ConfigMap", labels="a.b/c=other") == []
    assert api.delete(HERE)
    assert not api.delete(HERE), "it was gone already"
    assert api.get(HERE) is None


def test_a_dry_run_changes_nothing(api: Api) -> None:
    assert api.apply({**CONFIG, "data": {"one": "1"}}, dry_run=True)["data"] == {"one": "1"}
    assert api.get(HERE) is None


def test_fields_of_others_are_a_conflict_unless_forced(api: Api, kubernetes: FakeKubernetes) -> None:
    api.apply({**CONFIG, "data": {"one": "1"}})
    kubernetes.write({**CONFIG, "data": {"one": "theirs"}}, "another")

    with pytest.raises(RefusedError, match='conflict with "another"') as refused:
        api.apply({**CONFIG, "data": {"one": "1"}})
    assert (refused.value.status, refused.value.reason) == (409, "Conflict")
    assert api.apply({**CONFIG, "data": {"one": "1"}}, force=True)["data"] == {"one": "1"}


def test_kinds_that_a_cluster_lacks_are_none(api: Api) -> None:
    assert not api.has("monitoring.coreos.com/v1", "PodMonitor")
    assert api.has("ray.io/v1", "RayJob")
    assert api.all_of("monitoring.coreos.com/v1", "PodMonitor") == []
    with pytest.raises(RefusedError, match=r"test: no kind PodMonitor of monitoring.coreos.com/v1"):
        api.apply({"apiVersion": "monitoring.coreos.com/v1", "kind": "PodMonitor", "metadata": {"name": "p"}})


def test_wrong_credentials_are_one_line(kubernetes: FakeKubernetes, api: Api) -> None:
    kubernetes.token = "another"

    with pytest.raises(RefusedError, match=r"^test: GET /version: the credentials of the kubeconfig are refused$"):
        api.version()


def test_a_cluster_that_does_not_answer_is_named_with_its_address(kubernetes: FakeKubernetes, api: Api) -> None:
    kubernetes.close()

    with pytest.raises(KubernetesError, match=rf"^test: {kubernetes.url} does not answer: .*refused"):
        api.version()


def test_the_context_is_named_or_confirmed(api: Api) -> None:
    asked: list[str] = []

    def answer(question: str) -> bool:
        asked.append(question)
        return question.startswith("the kubeconfig's current context is test")

    assert connect(None, None, answer).context == "test"
    assert connect("other", "mine", None).namespace == "mine"
    assert connect("other", None, answer).namespace == "models"
    assert asked == ["the kubeconfig's current context is test; is its namespace models meant?"]
    with pytest.raises(ConfigError, match=r"^--context: 'absent' given; the kubeconfig has other, test$"):
        connect("absent", None, answer)
    with pytest.raises(ConfigError, match=r"^--context: not given; the kubeconfig has other, test, of which test is"):
        connect(None, None, None)
    with pytest.raises(ConfigError, match="not confirmed; nothing is changed"):
        connect(None, None, lambda question: False)


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "absent"))

    with pytest.raises(ConfigError, match=rf"^{tmp_path}/absent: "):
        connect("test", None, None)


def test_what_was_applied_is_read_from_the_object(api: Api, kubernetes: FakeKubernetes) -> None:
    ours = {**CONFIG, "data": {"one": "1"}}
    live = api.apply(ours)
    kubernetes.write({**live, "data": {"one": "1", "theirs": "2"}}, "another")

    found = api.get(HERE)

    assert found is not None
    assert applied(found) == ours, "without what others have added"


def test_items_of_lists_are_told_apart_as_their_keys_say() -> None:
    fields = {
        "f:spec": {
            "f:containers": {'k:{"name":"a"}': {".": {}, "f:image": {}, "f:name": {}}},
            "f:finalizers": {'v:"ours"': {}},
            "f:atomic": {},
        }
    }
    containers = [{"name": "a", "image": "i", "added": 1}, {"name": "injected", "image": "j"}]
    live = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "p",
            "managedFields": [{"manager": "heliostat", "operation": "Apply", "fieldsV1": fields}],
        },
        "spec": {"containers": containers, "finalizers": ["theirs", "ours"], "atomic": [1, 2], "defaulted": True},
    }

    assert applied(live)["spec"] == {
        "containers": [{"name": "a", "image": "i"}],
        "finalizers": ["ours"],
        "atomic": [1, 2],
    }


def test_an_object_of_somebody_else_was_not_applied_by_us(api: Api, kubernetes: FakeKubernetes) -> None:
    kubernetes.write({**CONFIG, "data": {"one": "1"}}, "another")

    found = api.get(HERE)

    assert found is not None
    with pytest.raises(KubernetesError, match=r"^ConfigMap c: was not deployed by `heliostat deploy`$"):
        applied(found)
