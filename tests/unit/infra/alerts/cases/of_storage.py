"""Cases of rules about storage, and the runs in it."""

from __future__ import annotations

from tests.unit.infra.alerts.cases.case import RUN, Case, Series, up


def storage_errors(process: str, values: str) -> Series:
    labels = f'job="ray",storage="s3",operation="write",WorkerId="{process}"'
    return {f"ray_heliostat_storage_errors_total{{{labels}}}": values}


def run_of_storage(**values: str) -> Series:
    """What the exporter tells of a run that is under way."""
    found = {f'heliostat_run_{name}{{model="m",run="r1"}}': one for name, one in values.items()}
    return {'heliostat_run_state{model="m",run="r1",state="running"}': "1x120", **found}


def finished(series: Series) -> Series:
    return {name.replace('"running"', '"finished"'): values for name, values in series.items()}


LATE = run_of_storage(checkpoint_timestamp_seconds="600x120", checkpoint_interval_seconds="300x120")


RESTARTED = run_of_storage(drivers="1x50 2x10 3x10 4x50")


CASES = (
    Case(
        "HeliostatStorageErrors", "one in a process that was seen at zero", "15m",
        {**storage_errors("a", "0x12 1x20"), **storage_errors("b", "0x40")},
        {"job": "ray", "storage": "s3", "operation": "write"},
        "write on s3 storage failed in ray, after all retries",
    ),
    Case(
        "HeliostatStorageErrors", "the first of a process, with which its series is born", "15m",
        {**up(a="1x40"), **storage_errors("a", "_x13 1x7")},
        {"job": "ray", "storage": "s3", "operation": "write"},
        "write on s3 storage failed in ray, after all retries",
    ),
    Case("HeliostatStorageErrors", "the last one was long ago", "30m", storage_errors("a", "0x3 1x57")),
    Case(
        "HeliostatStorageErrors", "Prometheus was away and finds what failed before", "40m",
        {**up(a="1x10 stale _x25 1x20"), **storage_errors("a", "1x10 stale _x25 1x20")},
    ),
    Case(
        "HeliostatStorageUnreadable", "no look succeeds", "15m",
        {'heliostat_exporter_up{source="storage"}': "1x5 0x20", 'heliostat_exporter_up{source="registry"}': "1x30"},
        {"source": "storage"},
        "The storage cannot be looked at, or takes too long",
    ),
    Case(
        "HeliostatStorageUnreadable", "one look failed", "15m",
        {'heliostat_exporter_up{source="storage"}': "1x12 0x2 1x20"},
    ),
    Case(
        "HeliostatCheckpointOld", "three intervals and five minutes after the last", "35m", LATE, RUN,
        "The newest checkpoint of run r1 of m is 25m 0s old, over 3 times what lay between the two before",
    ),
    Case("HeliostatCheckpointOld", "two intervals after the last", "20m", LATE),
    Case("HeliostatCheckpointOld", "a run that has finished", "35m", finished(LATE)),
    Case(
        "HeliostatRunKeepsRestarting", "three drivers in an hour", "75m", RESTARTED, RUN,
        "Run r1 of m was started 3 times in the last hour",
    ),
    Case("HeliostatRunKeepsRestarting", "two drivers in an hour", "65m", RESTARTED),
    Case("HeliostatRunKeepsRestarting", "a run that has finished", "75m", finished(RESTARTED)),
)  # fmt: skip
