"""Scenes in which much goes on, and no alert fires."""

from __future__ import annotations

from tests.unit.infra.alerts.cases.case import up
from tests.unit.infra.alerts.cases.of_cluster import cpus
from tests.unit.infra.alerts.cases.of_serving import (
    answers,
    drift,
    keys,
    queued,
    replicas,
    requests,
    rolled_back,
    waiting,
)
from tests.unit.infra.alerts.cases.of_storage import storage_errors
from tests.unit.infra.alerts.cases.of_training import (
    LOSS,
    OF_RUN,
    SAMPLES,
    SKIPPED,
    STEP_SECONDS,
    STEPS,
    alive,
    trials,
    waits,
)
from tests.unit.infra.alerts.cases.of_watching import failures, nodes

EVERYTHING = {
    "an idle endpoint": {
        **requests(s200="100x60", s500="9x60", s429="9x60", s499="9x60"),
        **answers("request_seconds", "5x60", "100x60"),
        **queued("9x60", "60x60"),
        **waiting("0x60"),
        **rolled_back("0x60"),
        **answers("time_to_first_token_seconds", "5x60", "100x60"),
        **replicas("1x60", "1x60"),
        **keys("keys_read_timestamp_seconds", "0+60x60"),
        **keys("damaged_keys", "0x60"),
        **nodes("1x60", "0x60", "4x60"),
        **up(a="1x60"),
        **cpus("0x60", "0x60"),
        **failures("heliostat-serving", "0x60"),
    },
    "a worker and a replica that start anew": {
        # What the ones before counted stays in Ray's agent; what the new ones count begins at zero.
        **alive(
            19,
            **{STEPS: "0+6x19 114x40", SKIPPED: "7x60", SAMPLES: "0+600x19 11400x40", STEP_SECONDS: "0+60x19 1140x40"},
        ),
        LOSS: "0.5x19 stale",
        LOSS.replace('"a"', '"b"'): "_x22 0.5x38",
        STEPS.replace('"a"', '"b"'): "_x20 0x2 0+6x38",
        SKIPPED.replace('"a"', '"b"'): "_x20 0x40",
        SAMPLES.replace('"a"', '"b"'): "_x20 0x2 0+600x38",
        STEP_SECONDS.replace('"a"', '"b"'): "_x20 0x2 0+60x38",
        # Counters begin at zero, and the count of a histogram with its first number.
        STEP_SECONDS.replace('"0"', '"1"'): "_x20 0x2 60x38",
        "ray_heliostat_train_step_seconds_count" + OF_RUN.replace('"0"', '"1"'): "_x23 6x38",
        waits(1, "communication"): "_x20 0x40",
        **requests(s200="0+60x19 0+60x40", s500="9x19 0x40"),
        **replicas("1x60", "1x19 stale _x2 1x38"),
        **keys("keys_read_timestamp_seconds", "0+60x60"),
        **failures("heliostat-serving", "5x19 0x40"),
        **storage_errors("a", "3x60"),
        **storage_errors("b", "_x20 0x40"),
    },
    "a run and an endpoint that are stopped": {
        **alive(0, **{STEPS: "0+6x60", SKIPPED: "7x60", SAMPLES: "0+600x20 12000x40", STEP_SECONDS: "0+60x20 1200x40"}),
        STEPS: "0+6x20 120x40",
        LOSS: "0.5x20 stale",
        waits(0, "data"): "0+2x20 40x40",
        **requests(s200="0+60x20 1200x40", s500="9x60"),
        **answers("request_seconds", "0+60x20 1200x40", "0+60x20 1200x40"),
        **replicas("1x20 stale", "1x20 stale"),
        **keys("keys_read_timestamp_seconds", "0+60x20 stale"),
        **keys("damaged_keys", "0x20 stale"),
        **drift("age", "1x5 0x15 stale"),
        **trials(failed="3x4 stale", finished="0x4 stale"),
        **cpus("2x20 stale", "2x20 stale"),
        **nodes("1x20 stale", "1x20 stale", "4x20 stale", "4x20 stale"),
        **up(a="1x20 stale", b="1x20 stale"),
    },
}
"""What is no reason for any alert from the fifteenth minute on: before, steps were left out and requests failed."""
