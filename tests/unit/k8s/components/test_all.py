"""What goes for all manifests goes for components too: the tests of the files above, over each component."""

from __future__ import annotations

from tests.unit.k8s.components.conftest import COMPONENTS
from tests.unit.k8s.conftest import K8S
from tests.unit.k8s.test_apply import (  # noqa: F401
    test_a_second_apply_finds_worker_groups_as_they_are_written,
    test_policies_hold_no_list_that_the_server_drops,
    test_quantities_are_text_in_canonical_form,
)
from tests.unit.k8s.test_commands import test_commands_call_programs_that_their_images_have  # noqa: F401
from tests.unit.k8s.test_kuberay import (  # noqa: F401
    schemas,
    test_every_cluster_asks_for_a_token_and_runs_our_ray,
    test_kuberay_takes_every_object_and_knows_every_field,
)
from tests.unit.k8s.test_manifests import (  # noqa: F401
    test_config_maps_that_pods_read_are_there,
    test_every_container_has_resources,
    test_every_pod_is_closed_by_default,
    test_every_server_has_probes_and_time_to_stop,
    test_images_are_pinned,
    test_no_container_of_ours_may_ask_kubernetes_for_anything,
    test_no_policy_lets_everyone_in,
    test_no_secret_is_in_the_manifests,
    test_objects_are_what_kubernetes_knows,
    test_objects_name_no_namespace_and_say_what_they_belong_to,
    test_pods_keep_to_the_restricted_standard,
    test_services_find_pods,
    test_who_reaches_what_from_other_namespaces,
)

IN_OVERLAYS = {"gpu", "monitoring"}
"""Components that are tried with the overlays that have them."""


def test_each_component_is_tried() -> None:
    there = {folder.name for folder in (K8S / "components").iterdir()}
    assert there == IN_OVERLAYS | (COMPONENTS.keys() - {"all"})
