"""Cases of rules about training and searches."""

from __future__ import annotations

from tests.unit.infra.alerts.cases.case import RUN, Case, Series

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
        "HeliostatTrialsFail", "another one was stopped", "8m",
        trials(failed="0 2x20", finished="0x20", stopped="0 0 1x20"),
    ),
    Case(
        "HeliostatTrialsFail", "another one was paused by the scheduler", "8m",
        trials(failed="0 2x20", finished="0x20", stopped="0x20", paused="0 0 1x20"),
    ),
    Case("HeliostatTrialsFail", "one failed so far", "8m", trials(failed="0 1x20", finished="0x20", stopped="0x20")),
)  # fmt: skip
