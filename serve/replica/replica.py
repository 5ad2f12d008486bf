"""The Ray Serve deployment class."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from heliostat.infra.config import strict as configuration
from heliostat.infra.log_fields import identify
from heliostat.infra.memory import freeze_heap
from heliostat.infra.storage.measured import observed
from heliostat.infra.storage.store import open_store
from heliostat.serve.access.auth import hash_keys, keys_from_environment
from heliostat.serve.args import AppArgs
from heliostat.serve.experiment.config import Experiment
from heliostat.serve.replica.autoscaling import FIRST_TOKEN_SECONDS
from heliostat.serve.replica.ingress import check_ingress

if TYPE_CHECKING:
    from heliostat.serve.access.control import AccessControl
    from heliostat.serve.access.keyring import Observe
    from heliostat.serve.errors import App


class Replica:
    """One serving process: the HTTP application and the model behind it."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        from heliostat.infra.metrics.catalogue import SERVING
        from heliostat.infra.metrics.export import Exporter
        from heliostat.infra.tracing.tracer import tracer
        from heliostat.serve.experiment.middleware import ExperimentMiddleware
        from heliostat.serve.metrics import ServeMetrics
        from heliostat.serve.replica.certificate import CertificateWatch

        self.args = configuration.build(AppArgs, args)
        identify(model=self.args.name, version=self.args.version)
        check_ingress(self.args.config, os.environ)
        self.traces = tracer()
        self.metrics, self.storage = Exporter(), ExitStack()
        self.storage.enter_context(observed(self.metrics, self.args.storage.kind))
        self.counts = ServeMetrics(self.args.name, self.args.version, self.metrics.add)
        for adapter in ("", *(f"{name}@{one.version}" for name, one in self.args.adapters.items())):
            self.metrics.begin(SERVING, {**self.counts.labels, "adapter": adapter})
        self.counts.objectives(self.args.config.objectives)
        self.access = access_control(self.args, self.counts.keys)
        self.certificate = CertificateWatch(self.args.config, self.counts.certificate)
        self.experiment = ExperimentMiddleware(self.args.name, self.args.config, self.counts)

    async def __serve_build_asgi_app__(self) -> App:
        """Loads the model and returns the ASGI app that Ray Serve mounts at the route."""
        import psutil  # type: ignore[import-untyped]

        from heliostat.serve.http.first_chunk import FirstChunkMiddleware
        from heliostat.serve.http.stream_guard import StreamGuard
        from heliostat.serve.replica.loading import start

        self.service, app = await start(self.args, self.access, self.counts, self.experiment)
        self.guard = StreamGuard()
        freeze_heap()
        self.counts.loaded(time.time() - psutil.Process().create_time())
        return FirstChunkMiddleware(app, self.guard)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Metrics for Ray Serve's autoscaling policy."""
        wait = self.counts.mean_first_token_seconds()
        return {} if wait is None else {FIRST_TOKEN_SECONDS: wait}

    def reconfigure(self, experiment: Mapping[str, Any]) -> None:
        """Starts or ends an experiment; Ray Serve also calls it at startup."""
        self.experiment.configure(configuration.build(Experiment, experiment) if experiment else None)

    def check_health(self) -> None:
        """Raises if the replica must be replaced."""
        self.service.check_health()

    def __del__(self) -> None:
        for part in (
            getattr(self, name, None)
            for name in ("service", "guard", "certificate", "experiment", "storage", "metrics", "access", "traces")
        ):
            if part:
                part.close()


def access_control(args: AppArgs, observe: Observe | None = None) -> AccessControl | None:
    """API keys and usage limits of this endpoint; None if it is open to everyone. See KeyRing for `observe`.

    Raises ConfigError if keys are required and there are none.
    """
    from heliostat.serve.access.control import AccessControl
    from heliostat.serve.access.keyring import KeyRing
    from heliostat.serve.access.sync import UsageSync
    from heliostat.serve.access.usage import UsageCounter

    if args.config.auth == "none":
        return None
    counter, store = UsageCounter(), open_store(args.storage)
    keys = KeyRing(hash_keys(",".join(args.keys)) + keys_from_environment(required=False), store, observe=observe)
    keys_from_environment(required=keys.is_empty)
    return AccessControl(keys, counter, UsageSync(counter, args.name))
