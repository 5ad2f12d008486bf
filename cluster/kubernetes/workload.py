"""One model as Kubernetes runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from heliostat.cluster.kubernetes.kuberay.jobs import NAME_CHARACTERS
from heliostat.cluster.kubernetes.kuberay.rule import DNS_1035
from heliostat.infra.errors import ConfigError

SPEC_FILE = "/etc/heliostat/spec.yaml"
"""Where pods find the spec."""


@dataclass(frozen=True)
class Pods:
    """Worker pods of a Ray cluster, between which its autoscaler chooses."""

    least: int
    most: int


@dataclass(frozen=True)
class Workload:
    """What is trained and served."""

    name: str
    """Of the RayService."""
    run: str
    """Of the RayJob, and of the run where it is one."""
    spec: str
    """YAML, with all overrides in it."""
    command: tuple[str, ...]
    """What the RayJob runs: arguments of `heliostat`, with the spec's file, overrides and options."""
    settings: Mapping[str, str]
    """Environment of all Ray pods, over the overlay's."""
    images: Mapping[str, str]
    """Of `train` and `serve`; the overlay's own where left out."""
    workers: Pods
    memory_gib: int | None
    """Of each worker pod for training; the overlay's where None."""
    endpoint: Endpoint | None
    """None where nothing is served."""


@dataclass(frozen=True)
class Endpoint:
    """What a RayService serves, and on how many pods."""

    config: str
    """`serveConfigV2`."""
    replicas: Pods
    drain_seconds: int
    """How long a pod that is to end waits for its longest answer."""


def check_name(key: str, name: str) -> None:
    """Raises ConfigError for a name that Kubernetes or KubeRay refuses, which would show in an object's status only."""
    if len(name) > NAME_CHARACTERS or not re.fullmatch(DNS_1035, name):
        raise ConfigError(
            f"{key}: {name!r} given; on Kubernetes a-z, 0-9 and dashes are allowed, {NAME_CHARACTERS} at most, the"
            " first a letter, the last no dash"
        )


def check_image(option: str, image: str) -> None:
    """Raises ConfigError for an image that may be another one tomorrow."""
    if not is_pinned(image):
        raise ConfigError(f"{option}: {image} given; NAME:TAG is allowed, with no tag `latest`, or NAME@sha256:DIGEST")


def is_pinned(image: str) -> bool:
    """Whether an image has a digest, or a tag other than `latest`."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return bool(re.fullmatch(r"sha256:[0-9a-f]{64}", digest)) if digest else tag not in ("", "latest")
