"""Ray sessions for the duration of a command, with the resources that its spec needs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from heliostat.spec import Spec


@contextmanager
def session(spec: Spec) -> Iterator[None]:
    """Starts or joins Ray with resources for the spec's workers; removes everything of Heliostat's at the end."""
    from heliostat.cluster.session.session import session as ray_session

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    least = spec.train.workers.min
    gpus = least if spec.train.use_gpu is True else 0
    with ray_session(spec.cluster, cpus=least * spec.train.cpus_per_worker, gpus=gpus):
        yield


@contextmanager
def serving_session(spec: Spec) -> Iterator[None]:
    """Starts or joins Ray with resources for the spec's smallest number of replicas."""
    from heliostat.cluster.session.session import session as ray_session

    least, serve = spec.serve.replicas.first, spec.serve
    cpus, gpus = least * serve.cpus_per_replica, least * serve.gpus_per_replica
    with ray_session(spec.cluster, cpus=cpus, gpus=gpus, key="serve.replicas.min"):
        yield
