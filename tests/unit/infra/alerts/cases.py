"""For each alert, what Prometheus scrapes once a minute when it fires, and when it is quiet though something goes on.

Series are in promtool's notation: `0+2x30` rises by 2 from 0 thirty times, `_` is a scrape without it, and `stale` is
what Prometheus stores when it is gone. An alert fires for the labels and with the summary that a case names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Series = dict[str, str]
Scene = dict[str, Any]


@dataclass(frozen=True)
class Case:
    alert: str
    says: str
    at: str
    series: Series
    labels: dict[str, str] | None = None
    """Of the alert that fires; None where it is quiet."""
    summary: str = ""


RUN = {"model": "m", "run": "r1"}
MODEL = {"model": "m"}
REPLICAS = {"application": "m", "deployment": "Replica"}
GPU = {"Hostname": "gpu-node", "gpu": "1"}
MEMORY = "GPU 1 of gpu-node has memory errors that it cannot correct"
NODE = {"job": "ray", "NodeAddress": "10.0.0.2"}
LOSS = 'ray_heliostat_train_loss{model="m",run="r1",rank="0",WorkerId="a"}'
OF_RUN = '{model="m",run="r1",rank="0",WorkerId="a"}'
STEPS = f"ray_heliostat_train_steps_total{OF_RUN}"
SKIPPED = f"ray_heliostat_train_skipped_steps_total{OF_RUN}"
SAMPLES = f"ray_heliostat_train_samples_total{OF_RUN}"
STEP_SECONDS = f"ray_heliostat_train_step_seconds_total{OF_RUN}"


def alive(minutes: int, **series: str) -> Series:
    """A run that has a loss for so many minutes."""
    return {LOSS: f"0.5x{minutes}", **series}


def workers(**by_rank: str) -> Series:
    """How many workers there are, as each rank says; `r1` on node 10.0.0.1, `r1_2` on 10.0.0.2."""
    found = {}
    for name, values in by_rank.items():
        rank, _, node = name[1:].partition("_")
        labels = f'model="m",run="r1",rank="{rank}",NodeAddress="10.0.0.{node or 1}",WorkerId="{name}"'
        found[f"ray_heliostat_train_workers{{{labels}}}"] = values
    return found


def waits(rank: int, cause: str) -> str:
    return f'ray_heliostat_train_wait_seconds_total{{model="m",run="r1",rank="{rank}",cause="{cause}"}}'


def ranks(*own: float) -> Series:
    """Ranks that take 6 steps of 10 s each a minute, of which they compute so many seconds."""
    found: Series = {LOSS: "0.5x60"}
    for rank, seconds in enumerate(own):
        labels = f'{{model="m",run="r1",rank="{rank}"}}'
        found[f"ray_heliostat_train_step_seconds_total{labels}"] = "0+60x60"
        found[f"ray_heliostat_train_step_seconds_count{labels}"] = "0+6x60"
        found[waits(rank, "communication")] = f"0+{60 - 6 * seconds:g}x60"
    return found


def trials(**by_state: str) -> Series:
    """Trials of a search by state."""
    return {
        f'ray_heliostat_tune_trials{{model="m",search="s1",state="{state}",WorkerId="a"}}': values
        for state, values in by_state.items()
    }


def requests(**by_status: str) -> Series:
    """Requests of one replica that promises three nines; `s200` are those answered with 200."""
    return {
        'ray_heliostat_objective_availability_ratio{model="m",version="1"}': "0.999x400",
        **{
            f'ray_heliostat_requests_total{{model="m",version="1",adapter="",status="{status[1:]}"}}': values
            for status, values in by_status.items()
        },
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


def node(metric: str, values: str) -> Series:
    return {f'ray_node_{metric}{{job="ray",ip="10.0.0.2"}}': values}


def of_ray(metric: str, labels: str, values: str) -> Series:
    return {f'ray_{metric}{{job="ray",NodeAddress="10.0.0.2",{labels}}}': values}


def cpus(first: str, second: str) -> Series:
    """CPUs in use on two nodes."""
    labels = 'job="ray",Name="CPU",State="USED"'
    return {
        f'ray_resources{{{labels},NodeAddress="10.0.0.1"}}': first,
        f'ray_resources{{{labels},NodeAddress="10.0.0.2"}}': second,
    }


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


def dcgm(field: str, values: str) -> Series:
    """A field of two GPUs of a node, as NVIDIA's exporter names them; the other GPU has none."""
    labels = 'Hostname="gpu-node",modelName="H200"'
    return {
        f'DCGM_FI_DEV_{field}{{gpu="0",{labels},UUID="a"}}': "0x60",
        f'DCGM_FI_DEV_{field}{{gpu="1",{labels},UUID="b"}}': values,
    }


def gpus(taken: str, *used: str) -> Series:
    """GPUs of a node that are taken, and how much of the time each is used, in percent."""
    found = {
        f'ray_node_gpus_utilization{{job="ray",ip="10.0.0.2",GpuIndex="{at}"}}': one for at, one in enumerate(used)
    }
    return {**found, **of_ray("resources", 'Name="GPU",State="USED"', taken)}


def up(**targets: str) -> Series:
    return {f'up{{job="ray",instance="{name}:8080"}}': values for name, values in targets.items()}


def nodes(active: str, idle: str, *scraped: str) -> Series:
    found = {f'ray_node_cpu_count{{job="ray",ip="10.0.0.{number}"}}': values for number, values in enumerate(scraped)}
    return {
        **found,
        'ray_cluster_active_nodes{job="ray",node_type="head"}': active,
        'ray_cluster_idle_nodes{job="ray",node_type="worker"}': idle,
    }


def failures(group: str, values: str) -> Series:
    labels = f'instance="p",rule_group="rules.yaml;{group}"'
    return {f"prometheus_rule_evaluation_failures_total{{{labels}}}": values}


CASES = (
    Case(
        "HeliostatTrainingStalled", "steps stop while the worker lives", "40m",
        alive(60, **{STEPS: "0+6x20 120x40"}),
        RUN, "Run r1 of m has neither taken a step nor evaluated a record for 10 minutes",
    ),
    Case(
        "HeliostatTrainingStalled", "a step takes eight minutes", "60m",
        alive(60, **{STEPS: "0x7 1x7 2x7 3x7 4x7 5x7 6x7 7x7"}),
    ),
    Case(
        "HeliostatTrainingStalled", "a validation takes half an hour", "40m",
        alive(60, **{STEPS: "0+6x20 120x40", f"ray_heliostat_train_evaluated_total{OF_RUN}": "0x20 0+100x40"}),
    ),
    Case(
        "HeliostatTrainingWorkerSilent", "one of two stops, and its gauges go", "25m",
        workers(r0="2x60", r1="2x20 stale"),
        {**RUN, "rank": "1", "NodeAddress": "10.0.0.1"},
        "Rank 1 of run r1 of m, on node 10.0.0.1, has been silent for over a minute, and the others wait for it",
    ),
    Case(
        "HeliostatTrainingWorkerSilent", "the run goes on without it", "25m",
        workers(r0="2x20 1x40", r1="2x20 stale"),
    ),
    Case(
        "HeliostatTrainingWorkerSilent", "it goes on elsewhere", "25m",
        workers(r0="2x60", r1="2x20 stale", r1_2="_x21 2x40"),
    ),
    Case("HeliostatTrainingWorkerSilent", "all have ended", "25m", workers(r0="2x20 stale", r1="2x20 stale")),
    Case("HeliostatTrainingStalled", "the run has ended", "40m", {LOSS: "0.5x20 stale", STEPS: "0+6x20 120x40"}),
    Case(
        "HeliostatTrainingStepsSkipped", "the first one of a worker that was seen at zero", "15m",
        alive(20, **{SKIPPED: "0x13 1x7"}),
        RUN, "Run r1 of m left out steps whose loss or gradients were no numbers",
    ),
    Case(
        "HeliostatTrainingStepsSkipped", "the first one, with which the series is born", "15m",
        {LOSS: "_x13 0.5x7", SKIPPED: "_x13 1x7"},
        RUN, "Run r1 of m left out steps whose loss or gradients were no numbers",
    ),
    Case("HeliostatTrainingStepsSkipped", "the last one was long ago", "30m", alive(60, **{SKIPPED: "0x3 1x57"})),
    Case(
        "HeliostatTrainingStepsSkipped", "Prometheus was away and finds a run that ended before", "40m",
        {SKIPPED: "1x10 stale _x25 1x20"},
    ),
    Case(
        "HeliostatTrainingThroughputHalved", "from 60 to 20 records a second", "80m",
        alive(90, **{SAMPLES: "0+3600x60 217200+1200x30"}),
        RUN, "Run r1 of m trains on 20 records/s, less than half of its mean in the last hour",
    ),
    Case(
        "HeliostatTrainingThroughputHalved", "a third slower", "80m",
        alive(90, **{SAMPLES: "0+3600x60 218400+2400x30"}),
    ),
    Case(
        "HeliostatTrainingStraggler", "rank 2 computes while the others wait for it", "30m", ranks(2, 2, 8, 2),
        {**RUN, "rank": "2"}, "Rank 2 of run r1 of m takes 4 times as long for a step as the median of the ranks",
    ),
    Case("HeliostatTrainingStraggler", "ranks that compute about as long", "30m", ranks(4, 5, 5, 4)),
    Case(
        "HeliostatTrainingWaitsForData", "two fifths of each minute", "30m",
        alive(60, **{STEP_SECONDS: "0+60x60", waits(0, "data"): "0+24x60"}),
        RUN, "Run r1 of m waits for data 40% of the time",
    ),
    Case(
        "HeliostatTrainingWaitsForData", "a tenth of each minute, and more for others", "30m",
        alive(60, **{STEP_SECONDS: "0+60x60", waits(0, "data"): "0+6x60", waits(0, "communication"): "0+40x60"}),
    ),
    Case(
        "HeliostatTrialsFail", "three failed at once, and the search ended", "8m",
        trials(failed="0 3 3 stale", finished="0x2 stale", stopped="0x2 stale", running="1 1 0 stale"),
        {"model": "m", "search": "s1"},
        "The first 3 trials of search s1 of m failed, and no other ended",
    ),
    Case(
        "HeliostatTrialsFail", "another one was stopped by the scheduler", "8m",
        trials(failed="0 2x20", finished="0x20", stopped="0 0 1x20"),
    ),
    Case("HeliostatTrialsFail", "one failed so far", "8m", trials(failed="0 1x20", finished="0x20", stopped="0x20")),
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
        "HeliostatDrift", "one column of a version, on both replicas", "20m",
        {**drift("age", "0x5 1x25", "0x6 1x24"), **drift("colour", "0x30")},
        {**MODEL, "version": "1", "column": "age"}, "age of m@1 is no longer what it was in training",
    ),
    Case("HeliostatDrift", "too few rows", "20m", drift("age", "0x30")),
    Case("HeliostatDrift", "the version that had drifted is gone", "40m", drift("age", "1x20 stale")),
    Case(
        "HeliostatNodeMemoryFull", "nineteen parts of twenty", "20m",
        {**node("mem_used", "95x30"), **node("mem_total", "100x30")},
        {"job": "ray", "ip": "10.0.0.2"}, "Node 10.0.0.2 uses 95% of its memory; at 95% Ray ends processes",
    ),
    Case("HeliostatNodeMemoryFull", "half", "20m", {**node("mem_used", "50x30"), **node("mem_total", "100x30")}),
    Case(
        "HeliostatNodeDiskFull", "96 %", "20m", node("disk_utilization_percentage", "96.2x30"),
        {"job": "ray", "ip": "10.0.0.2"}, "The disk of node 10.0.0.2 is 96% full",
    ),
    Case("HeliostatNodeDiskFull", "80 %", "20m", node("disk_utilization_percentage", "80x30")),
    Case(
        "HeliostatObjectStoreSpills", "a gibibyte stays on disk", "20m",
        of_ray("object_store_memory", 'Location="SPILLED"', "1073741824x30"),
        NODE, "Node 10.0.0.2 has 1GiB of Ray's objects on disk",
    ),
    Case(
        "HeliostatObjectStoreSpills", "objects are in memory", "20m",
        {
            **of_ray("object_store_memory", 'Location="MMAP_SHM"', "1e9x30"),
            **of_ray("object_store_memory", 'Location="SPILLED"', "0x30"),
        },
    ),
    Case(
        "HeliostatNoNodeFits", "two tasks", "20m",
        of_ray("scheduler_unscheduleable_tasks", 'Reason="Infeasible"', "2x30"),
        {"job": "ray"}, "2 tasks, actors or placement groups in ray ask for more than any node has",
    ),
    Case(
        "HeliostatNoNodeFits", "a placement group", "20m",
        of_ray("gcs_placement_group_count", 'State="Infeasible"', "1x30"),
        {"job": "ray"}, "1 tasks, actors or placement groups in ray ask for more than any node has",
    ),
    Case(
        "HeliostatNoNodeFits", "all wait for their turn", "20m",
        {
            **of_ray("scheduler_unscheduleable_tasks", 'Reason="WaitingForResources"', "9x30"),
            **of_ray("gcs_placement_group_count", 'State="Pending"', "3x30"),
        },
    ),
    Case(
        "HeliostatNodeLost", "a node that worked", "15m", cpus("1x30", "4x10 stale"),
        NODE, "Node 10.0.0.2 of ray is gone, with work on 4 CPUs",
    ),
    Case(
        "HeliostatGpuHot", "one is", "20m", dcgm("GPU_TEMP", "91x60"), GPU, "GPU 1 of gpu-node is at 91 °C"
    ),
    Case("HeliostatGpuHot", "warm", "20m", dcgm("GPU_TEMP", "84x60")),
    Case("HeliostatGpuMemoryErrors", "a double-bit error", "15m", dcgm("ECC_DBE_VOL_TOTAL", "2x12 3x48"), GPU, MEMORY),
    Case(
        "HeliostatGpuMemoryErrors", "a row is remapped", "15m", dcgm("UNCORRECTABLE_REMAPPED_ROWS", "0x12 1x48"), GPU,
        MEMORY,
    ),
    Case("HeliostatGpuMemoryErrors", "no spare row is left", "15m", dcgm("ROW_REMAP_FAILURE", "1x60"), GPU, MEMORY),
    Case("HeliostatGpuMemoryErrors", "long ago", "40m", dcgm("UNCORRECTABLE_REMAPPED_ROWS", "0x12 1x48")),
    Case(
        "HeliostatGpuThrottled", "again and again", "30m", dcgm("THERMAL_VIOLATION", "0+1000x60"), GPU,
        "GPU 1 of gpu-node has slowed itself down because of its temperature",
    ),
    Case("HeliostatGpuThrottled", "once", "40m", dcgm("THERMAL_VIOLATION", "0x10 9000x50")),
    Case(
        "HeliostatGpuIdle", "taken, and nothing runs", "55m", gpus("2x60", "0x60", "1x60"), NODE,
        "2 GPUs of node 10.0.0.2 are taken, and none there was used above 5% in 30 minutes",
    ),
    Case("HeliostatGpuIdle", "one of two works now and then", "55m", gpus("2x60", "0x60", "0x20 90 0x40")),
    Case("HeliostatGpuIdle", "nobody took them", "55m", gpus("0x60", "0x60", "0x60")),
    Case("HeliostatNodeLost", "a node that was idle is scaled down", "15m", cpus("1x30", "4x5 0x5 stale")),
    Case("HeliostatNodeLost", "the cluster is stopped", "15m", cpus("1x10 stale", "4x10 stale")),
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
    Case(
        "HeliostatTargetDown", "one of two", "15m", up(a="1x30", b="1x10 0x20"),
        {"job": "ray", "instance": "b:8080"}, "b:8080 of ray cannot be scraped",
    ),
    Case("HeliostatTargetDown", "a node has left", "15m", up(a="1x30", b="1x10 stale")),
    Case(
        "HeliostatTargetDown", "the exporter", "15m",
        {'up{job="heliostat-exporter",instance="e:9095"}': "1x5 0x20"},
        {"job": "heliostat-exporter", "instance": "e:9095"},
        "e:9095 of heliostat-exporter cannot be scraped",
    ),
    Case(
        "HeliostatTargetsMissing", "three nodes, of which one is scraped", "15m", nodes("1x30", "2x30", "4x30"),
        {"job": "ray"}, "2 nodes of ray are not scraped",
    ),
    Case(
        "HeliostatTargetsMissing", "each node is scraped", "15m",
        nodes("1x30", "1x30", "4x30", "4x30"),
    ),
    Case(
        "HeliostatRulesFail", "one rule of ours", "15m", failures("heliostat-serving", "0x12 1x20"),
        {"instance": "p", "rule_group": "rules.yaml;heliostat-serving"},
        "Prometheus p cannot evaluate rules.yaml;heliostat-serving",
    ),
    Case("HeliostatRulesFail", "a rule of somebody else", "15m", failures("others", "0+1x30")),
    Case("HeliostatWatchdog", "always", "1m", {}, {}, "Always fires: where it is missing, alerts are lost"),
)  # fmt: skip

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
