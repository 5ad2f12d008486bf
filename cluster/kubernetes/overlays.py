"""The overlays of `k8s/`, as far as what is rendered depends on them. A test compares them with the manifests."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Overlay:
    """A kind of cluster."""

    cpus: int
    """Of each worker pod, for training and for serving."""
    gpus: int
    memory_gib: int
    """Of each worker pod for training."""
    most_workers: int | None = None
    """Training pods at most; None where nodes can be added."""
    most_replicas: int | None = None
    """The same for serving pods."""
    least_replicas: int = 1
    """Serving pods that must always be there."""
    registry: str = ""
    """What stands in front of the images' names in the overlay; where it does, images must be given."""

    def in_a_pod(self, cpus: float, gpus: float) -> int:
        """How many workers or replicas that need so much of each a pod holds."""
        by_cpus = math.floor(self.cpus / cpus + 1e-9)
        return min(by_cpus, math.floor(self.gpus / gpus + 1e-9)) if gpus else by_cpus


OVERLAYS = {
    "local": Overlay(cpus=2, gpus=0, memory_gib=5, most_workers=1, most_replicas=1),
    "gpu": Overlay(cpus=6, gpus=1, memory_gib=32),
    "production": Overlay(cpus=2, gpus=0, memory_gib=8, least_replicas=2, registry="registry.example.com/"),
}


def package() -> Path:
    """The folder of this Heliostat, with the manifests in `k8s`."""
    import heliostat

    return Path(next(iter(heliostat.__path__)))
