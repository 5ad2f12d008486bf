"""What `kubectl kustomize` makes of the base with each component that an overlay may take in, and of the samples."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import yaml

from heliostat.cluster.kubernetes.build import build
from tests.unit.k8s.conftest import K8S, Manifests

COMPONENTS = {
    "head-recovery": ("overlays/production", ("head-recovery",)),
    "redis": ("overlays/local", ("head-recovery", "redis")),
    "postgres": ("base", ("postgres",)),
    "kueue": ("overlays/gpu", ("kueue",)),
    "retraining": ("base", ("retraining",)),
    "retraining-raycronjob": ("overlays/gpu", ("retraining-raycronjob",)),
    "incremental-upgrade": ("overlays/production", ("incremental-upgrade",)),
    "all": (
        "overlays/production",
        ("head-recovery", "redis", "postgres", "kueue", "retraining", "incremental-upgrade"),
    ),
}
"""What each component is tried over, and with which others."""


def with_components(folder: Path, target: str, components: tuple[str, ...]) -> Manifests:
    """A target of the repository with components, as a user's kustomization in `folder` takes them in.

    The second merge of a ConfigMap is what a rendered folder does: references must follow its new name.
    """
    values = {
        "resources": [os.path.relpath(K8S / target, folder)],
        "components": [os.path.relpath(K8S / "components" / name, folder) for name in components],
        "configMapGenerator": [
            {"name": "heliostat-environment", "behavior": "merge", "literals": ["HELIOSTAT_LOG=json"]}
        ],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(values))
    return Manifests(target, build(folder))


@pytest.fixture(scope="session", params=COMPONENTS)
def manifests(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifests:
    """Each component in turn."""
    return with_components(tmp_path_factory.mktemp("component"), *COMPONENTS[request.param])


def over(name: str, folder: Path) -> Manifests:
    """One component, for tests of its own."""
    return with_components(folder, *COMPONENTS[name])
