"""The `cluster` section of a spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from heliostat.cluster.launcher.config import LauncherConfig
from heliostat.infra.config.strict import StrictModel


class ClusterConfig(StrictModel):
    """Where work runs: a Ray cluster that is there already, or one on this machine."""

    address: str | None = None
    """Ray address; `RAY_ADDRESS` where left out, and a local Ray where neither is given."""
    num_cpus: Annotated[int, Field(gt=0)] | None = None
    """CPUs of a local Ray; the machine's own number where left out."""
    num_gpus: Annotated[int, Field(ge=0)] | None = None
    """GPUs of a local Ray; those that are found where left out."""
    autoscales: bool = False
    """The cluster at `address` adds nodes by itself: asking for more than it has now is no mistake."""
    pod_memory_gib: Annotated[int, Field(gt=0)] | None = None
    """Memory of a worker pod for training, where manifests are rendered; the overlay's where left out."""
    launcher: LauncherConfig | None = None
    """Machines for a cluster of its own, by `heliostat render launcher` and Ray's `ray up`."""
