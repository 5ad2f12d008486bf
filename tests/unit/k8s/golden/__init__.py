"""What a small spec is rendered to, committed so that a reviewer sees what a change does to manifests.

`python -m tests.unit.k8s.golden` renews it.
"""

from __future__ import annotations

from pathlib import Path

from heliostat.cluster.kubernetes import kustomization
from heliostat.cluster.kubernetes.build import built
from heliostat.cluster.kubernetes.overlays import package
from heliostat.cluster.kubernetes.plain import plain
from heliostat.operations.render import workload
from heliostat.serve.args import AppArgs
from heliostat.spec import load_spec

FILE = Path(__file__).with_name("manifests.yaml")
RENEW = "python -m tests.unit.k8s.golden"
SPEC = ["name=mood", "storage.url=s3://bucket", "data.limit=600", "train.epochs=1", "serve.replicas.max=2"]


def golden() -> str:
    """The plain manifests of the recipe `sentiment` under another name, over `local`; without the long dashboards."""
    spec = load_spec("sentiment", SPEC)
    served = AppArgs(
        name="mood", url="s3://bucket/models/mood/mood-1", digest="ab" * 32, version="1",
        config=spec.serve, storage=spec.storage,
    )  # fmt: skip
    objects = built(kustomization.files(workload(spec, "local", None, {}, served), "local", package()))
    return plain(one for one in objects if one["metadata"]["labels"]["app.kubernetes.io/component"] != "monitoring")
