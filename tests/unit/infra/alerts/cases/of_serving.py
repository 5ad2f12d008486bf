"""Cases of rules about endpoints."""

from __future__ import annotations

from tests.unit.infra.alerts.cases.case import Case, Series, up

MODEL = {"model": "m"}


REPLICAS = {"application": "m", "deployment": "Replica"}


def requests(**by_status: str) -> Series:
    """Requests of one replica that promises three nines; `s200` are those answered with 200."""
    return {
        'ray_heliostat_objective_availability_ratio{model="m",version="1"}': "0.999x400",
        **{
            f'ray_heliostat_requests_total{{model="m",version="1",adapter="",status="{status[1:]}"}}': values
            for status, values in by_status.items()
        },
    }


def ingress(**by_status: str) -> Series:
    """Requests to the application of that model as HAProxy answered them."""
    labels = 'application="m",route="/m",method="POST",job="ray"'
    return {
        f'ray_serve_num_http_requests_total{{{labels},status_code="{status[1:]}"}}': values
        for status, values in by_status.items()
    }


def waiting(values: str) -> Series:
    """Sequences that wait in the engine of a replica."""
    return {'ray_heliostat_sequences{model="m",version="1",state="waiting"}': values}


def queued(seconds: str, count: str) -> Series:
    """Seconds that inputs waited for their turn, and their number."""
    name, labels = "ray_heliostat_request_phase_seconds", '{model="m",version="1",phase="queue"}'
    return {f"{name}_total{labels}": seconds, f"{name}_count{labels}": count}


def rolled_back(values: str) -> Series:
    return {'ray_heliostat_experiment_rollbacks_total{model="m",version="1",WorkerId="a"}': values}


def answers(metric: str, fast: str, all: str) -> Series:
    """A histogram of what takes at most a second, as is promised of 95 %, and of all, which takes at most five."""
    objective = {"request_seconds": "latency", "time_to_first_token_seconds": "first_token"}[metric]
    promise = f'ray_heliostat_objective_seconds{{model="m",version="1",objective="{objective}",quantile="p95"}}'
    labels = 'model="m",version="1",adapter=""'
    name = f"ray_heliostat_{metric}"
    buckets = {"1.0": fast, "5.0": all, "+Inf": all}
    found = {f'{name}_bucket{{{labels},le="{bound}"}}': values for bound, values in buckets.items()}
    return {**found, f"{name}_count{{{labels}}}": all, promise: "1x60"}


def without_promise(series: Series) -> Series:
    return {name: values for name, values in series.items() if "objective" not in name}


def replicas(wanted: str, *healthy: str) -> Series:
    labels = 'application="m",deployment="Replica"'
    found = {f"ray_serve_autoscaling_target_replicas{{{labels}}}": wanted}
    for number, values in enumerate(healthy):
        found[f'ray_serve_deployment_replica_healthy{{{labels},replica="{number}"}}'] = values
    return found


def keys(metric: str, values: str) -> Series:
    return {f'ray_heliostat_{metric}{{model="m",version="1"}}': values}


def drift(column: str, *replicas: str) -> Series:
    labels = f'model="m",version="1",column="{column}"'
    return {f'ray_heliostat_drift_detected{{{labels},WorkerId="{at}"}}': one for at, one in enumerate(replicas)}


DAY = 86_400


def certificate(worker: str, ends: str) -> Series:
    """When the certificate ends that a replica of the model sees, in seconds since the test's beginning."""
    name = "ray_heliostat_certificate_expiry_timestamp_seconds"
    return {f'{name}{{model="m",version="1",WorkerId="{worker}"}}': ends}


CASES = (
    Case(
        "HeliostatErrorBudgetBurnsFast", "one of ten fails since eleven minutes", "72m",
        requests(s200="0+90x120", s500="0x60 0+10x60"),
        MODEL, "m failed 1.996% of the requests of the last 1h, over 14.4 times what its objective allows "
        "(serve.objectives.availability)",
    ),
    Case(
        "HeliostatErrorBudgetBurnsFast", "it is over: the last five minutes were well", "80m",
        requests(s200="0+90x120", s500="0x50 0+10x20 200x50"),
    ),
    Case("HeliostatErrorBudgetBurnsFast", "clients leave", "70m", requests(s200="0+90x120", s499="0+90x120")),
    Case(
        "HeliostatErrorBudgetBurnsFast", "one error of the few requests at night", "70m",
        requests(s200="0+1x120", s500="0x65 1x50"),
    ),
    Case(
        "HeliostatErrorBudgetBurnsFast", "one of ten is lost before a replica has it", "72m",
        {**requests(s200="0+90x120"), **ingress(s200="0+90x120", s502="_x60 0+10x60")},
        MODEL, "m failed 2.174% of the requests of the last 1h, over 14.4 times what its objective allows "
        "(serve.objectives.availability)",
    ),
    Case(
        "HeliostatRequestsLost", "the first ones that the ingress answers itself", "13m",
        {**up(ray="1x30"), **requests(s200="0+90x30"), **ingress(s200="0+90x30", s502="_x12 7x20")},
        {"application": "m"}, "7 requests to m were lost in the last five minutes: the ingress answered them with an "
        "error, and no replica did",
    ),
    Case(
        "HeliostatRequestsLost", "replicas fail, and the ingress sees it", "20m",
        {**requests(s200="0+90x30", s500="0+9x30"), **ingress(s200="0+90x30", s500="0+9x30")},
    ),
    Case("HeliostatRequestsLost", "lost long ago", "30m", {**requests(s200="0+90x60"), **ingress(s502="0x12 9x60")}),
    Case("HeliostatRequestsLost", "they were lost before Prometheus began", "4m", ingress(s502="9x60")),
    Case(
        "HeliostatErrorBudgetBurnsSlow", "one of a hundred fails, for hours", "300m",
        requests(s200="0+99x400", s500="0+1x400"),
        MODEL, "m failed 1% of the requests of the last 6h, over 6 times what its objective allows "
        "(serve.objectives.availability)",
    ),
    Case(
        "HeliostatErrorBudgetBurnsSlow", "one of a thousand fails", "300m",
        requests(s200="0+999x400", s500="0+1x400"),
    ),
    Case(
        "HeliostatLatencyHigh", "one of ten takes longer than a second", "20m",
        answers("request_seconds", "0+90x30", "0+100x30"),
        {**MODEL, "quantile": "p95"},
        "p95 of the latency of m is 3s, above its objective (serve.objectives.latency_seconds)",
    ),
    Case("HeliostatLatencyHigh", "one of a hundred does", "20m", answers("request_seconds", "0+99x30", "0+100x30")),
    Case(
        "HeliostatLatencyHigh", "nothing is promised", "20m",
        without_promise(answers("request_seconds", "0+90x30", "0+100x30")),
    ),
    Case(
        "HeliostatFirstTokenSlow", "one of ten begins late", "20m",
        answers("time_to_first_token_seconds", "0+90x30", "0+100x30"),
        {**MODEL, "quantile": "p95"},
        "p95 of the time to first token of m is 3s, above its objective (serve.objectives.first_token_seconds)",
    ),
    Case(
        "HeliostatFirstTokenSlow", "all begin at once", "20m",
        answers("time_to_first_token_seconds", "0+100x30", "0+100x30"),
    ),
    Case(
        "HeliostatEndpointWithoutReplicas", "both are gone", "20m", replicas("2x30", "1x10 stale", "1x10 0x20"),
        REPLICAS, "m has no healthy replica of 2 wanted",
    ),
    Case("HeliostatEndpointWithoutReplicas", "one of two is there", "20m", replicas("2x30", "1x30", "1x10 stale")),
    Case("HeliostatEndpointWithoutReplicas", "scaled to zero", "20m", replicas("1x10 0x20", "1x10 stale")),
    Case("HeliostatEndpointWithoutReplicas", "deleted", "20m", replicas("1x10 stale", "1x10 stale")),
    Case(
        "HeliostatReplicasMissing", "one of three does not come back", "30m",
        replicas("3x40", "1x40", "1x40", "1x10 stale"),
        REPLICAS, "m has 1 healthy replicas fewer than wanted",
    ),
    Case("HeliostatReplicasMissing", "a new one takes four minutes", "20m", replicas("1x10 2x20", "1x30", "_x14 1x16")),
    Case(
        "HeliostatRequestsRejected", "a tenth", "20m", requests(s200="0+90x30", s429="0+10x30"),
        MODEL, "m refuses 10% of its requests with 429",
    ),
    Case("HeliostatRequestsRejected", "one of a hundred", "20m", requests(s200="0+99x30", s429="0+1x30")),
    Case(
        "HeliostatQueueGrows", "ten sequences more wait each minute", "20m", waiting("0x5 1+10x40"),
        MODEL, "m is asked more than it answers: its queue has been growing for ten minutes",
    ),
    Case(
        "HeliostatQueueGrows", "inputs wait longer each minute", "30m",
        queued("0 6 18 36 60 90 126 168 216 270 330 396 468 546 630 720 816 918 1026 1140 1260 1386 1518 1656 1800 1950"
               " 2106 2268 2436 2610 2790 2976", "0+60x31"),
        MODEL, "m is asked more than it answers: its queue has been growing for ten minutes",
    ),
    Case("HeliostatQueueGrows", "many wait, and no more than before", "40m", waiting("50 53 48 52x40")),
    Case("HeliostatQueueGrows", "a burst that is answered", "15m", waiting("0x10 40 20 5 0x40")),
    Case("HeliostatQueueGrows", "a replica that starts under load", "8m", waiting("_x2 1+10x40")),
    Case(
        "HeliostatCandidateRolledBack", "one replica heard of it", "20m", rolled_back("0x10 1x80"),
        MODEL, "The candidate of m was worse than the version in production and has been taken away",
    ),
    Case("HeliostatCandidateRolledBack", "it was an hour ago", "80m", rolled_back("0x10 1x80")),
    Case(
        "HeliostatKeysNotRead", "since ten minutes", "20m", keys("keys_read_timestamp_seconds", "0+60x10 600x20"),
        {**MODEL, "version": "1"}, "m@1 read its API keys 10m 0s ago",
    ),
    Case("HeliostatKeysNotRead", "each minute", "20m", keys("keys_read_timestamp_seconds", "0+60x30")),
    Case(
        "HeliostatKeysDamaged", "two", "20m", keys("damaged_keys", "2x30"),
        MODEL, "2 API keys of m are damaged and open nothing",
    ),
    Case("HeliostatKeysDamaged", "mended", "20m", keys("damaged_keys", "2x10 0x20")),
    Case(
        "HeliostatCertificateEnds", "in two days, on the node that was not told of the new one", "20m",
        {**certificate("a", f"{2 * DAY}x30"), **certificate("b", f"{90 * DAY}x30")},
        MODEL, "The certificate of the address of m ends in 1d 23h 40m 0s",
    ),
    Case(
        "HeliostatCertificateEnds", "it has ended", "20m", certificate("a", "0x30"),
        MODEL, "The certificate of the address of m ends in -20m 0s",
    ),
    Case("HeliostatCertificateEnds", "renewed in time", "20m", certificate("a", f"{2 * DAY}x5 {90 * DAY}x25")),
    Case(
        "HeliostatColdStarts", "four times in an hour", "58m", {**replicas(" ".join(["1x4 0x8"] * 4), "1x60")},
        {"application": "m", "deployment": "Replica"},
        "m went to zero replicas 4 times within an hour; whoever asked next waited",
    ),
    Case("HeliostatColdStarts", "once, and it was rolled out twice", "58m", replicas("1x10 0x20 2x10 1x20", "1x60")),
    Case(
        "HeliostatDrift", "one column of a version, on both replicas", "20m",
        {**drift("age", "0x5 1x25", "0x6 1x24"), **drift("colour", "0x30")},
        {**MODEL, "version": "1", "column": "age"}, "age of m@1 is no longer what it was in training",
    ),
    Case("HeliostatDrift", "too few rows", "20m", drift("age", "0x30")),
    Case("HeliostatDrift", "the version that had drifted is gone", "40m", drift("age", "1x20 stale")),
)  # fmt: skip
