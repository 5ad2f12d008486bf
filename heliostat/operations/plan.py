"""`heliostat plan`: what a run would need, where it fits, how long it would take and what it would cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from heliostat.infra.accelerators import ACCELERATORS, PRICES_OF, Accelerator, read_price
from heliostat.infra.errors import ConfigError
from heliostat.infra.memory import GIB
from heliostat.spec import Spec
from heliostat.train.precision import settled
from heliostat.view.terminal import View

if TYPE_CHECKING:
    from heliostat.train.data.prepared import Prepared
    from heliostat.train.planning.footprint import Footprint


def show_plan(spec: Spec, view: View, prices: Sequence[str], mfu: float) -> None:
    """Prints the plan; needs no Ray, no weights and no accelerator."""
    from heliostat.pipeline.prepare import prepared_data

    devices = priced(prices)
    is_auto, spec = spec.train.precision == "auto", on_devices(spec, has_bf16=True)
    prepared = prepared_data(spec)
    model = footprint_of(spec, prepared)
    trained = f", {model.trainable / 1e6:.1f} million of them trained" if model.trainable < model.parameters else ""
    view.say(f"{spec.model.origin}: {model.parameters / 1e6:.1f} million parameters{trained}")
    if is_auto:
        view.say(f"precision: {spec.train.precision}, as auto is on these accelerators")
    show_memory(spec, view, model)
    show_devices(spec, view, model, devices)
    if prepared is None:
        view.say(f"time and price need to know the data: heliostat prepare {spec.name}, then plan again")
    else:
        show_costs(spec, view, model, prepared, devices, mfu)


def on_devices(spec: Spec, has_bf16: bool) -> Spec:
    """The spec with the precision that `auto` is on devices that compute bfloat16, or on others."""
    return spec.model_copy(update={"train": settled(spec.train, spec.model, has_bf16)})


def footprint_of(spec: Spec, prepared: Prepared | None) -> Footprint:
    """The footprint of the spec's model; raises ConfigError if it must be built and the data are not prepared."""
    from heliostat.train import tasks
    from heliostat.train.models.architectures.network import is_built, read_settings
    from heliostat.train.models.bases import base_folder, base_model
    from heliostat.train.planning.footprint import footprint, network_footprint

    auto_class = tasks.get(spec.task).auto_class
    base = base_model(spec.model, spec.storage)
    if base:
        return footprint(base, auto_class, spec.train)
    if prepared is None:
        raise ConfigError(f"model.{spec.model.origin}: is built to fit the data; heliostat prepare {spec.name} first")
    built = base_folder(spec.model, spec.data, prepared, spec.storage)
    if is_built(built):
        return network_footprint(read_settings(built), len(prepared.labels))
    return footprint(built, auto_class, spec.train)


def priced(prices: Sequence[str]) -> tuple[Accelerator, ...]:
    """The accelerators, with known prices overridden by `NAME=USD`."""
    names = [device.name for device in ACCELERATORS]
    given: dict[str, float] = {}
    for text in prices:
        try:
            name, usd = read_price(text, names)
        except ValueError as error:
            raise ConfigError(f"--price: {text!r} given; {error}") from None
        given[name] = usd
    return tuple(replace(one, usd_per_hour=given.get(one.name, one.usd_per_hour)) for one in ACCELERATORS)


def show_memory(spec: Spec, view: View, model: Footprint) -> None:
    """Prints a worker's memory by component, for each ZeRO stage, with micro-batches of one record of full length."""
    from heliostat.train.planning.plan import STAGES, needs

    workers, length = spec.train.workers.max, spec.tokens_of_a_record
    rows = []
    for stage in STAGES:
        need = needs(model, spec.train, stage, workers, length)
        parts = (need.parameters, need.gradients, need.optimizer, need.activations, need.buffers, need.total)
        rows.append(
            [
                f"{stage} (spec)" if stage == spec.train.zero_stage else str(stage),
                *(f"{part / GIB:.2f}" for part in parts),
            ]
        )
    columns = ("ZeRO stage", "parameters", "gradients", "optimizer", "activations", "buffers", "all")
    view.table(f"Memory of a worker of {workers}, GiB, with one record of {length} tokens in a pass", columns, rows)


def show_devices(spec: Spec, view: View, model: Footprint, devices: Sequence[Accelerator]) -> None:
    """Prints the largest micro-batch for each accelerator and ZeRO stage."""
    from heliostat.train.planning.plan import STAGES, largest_micro_batch

    length = spec.tokens_of_a_record
    rows: list[list[object]] = []
    for device in devices:
        sizes = [largest_micro_batch(model, spec.train, stage, length, device.memory_bytes) for stage in STAGES]
        rows.append([device.name, f"{device.memory_bytes / GIB:.0f}", *(str(size) if size else "-" for size in sizes)])
    title = f"Records of {length} tokens that a pass may hold; - where not one fits"
    view.table(title, ("accelerator", "GiB", *(f"stage {stage}" for stage in STAGES)), rows)


def show_costs(
    spec: Spec, view: View, model: Footprint, prepared: Prepared, devices: Sequence[Accelerator], mfu: float
) -> None:
    """Prints time and price of the run on each accelerator."""
    from heliostat.train.data.rows import Rows
    from heliostat.train.planning.plan import estimate

    rows = Rows(prepared.split("train"), tuple(prepared.labels))
    found = [
        (device, estimate(model, spec.train, rows.lengths, int(rows.targets.sum()), device, mfu)) for device in devices
    ]
    most = ", at most (train.early_stopping)" if spec.train.early_stopping else ""
    view.table(
        f"Training on {len(rows)} records with {spec.train.workers.max} accelerators, MFU {mfu:.0%}{most}",
        ("accelerator", "minutes", "USD"),
        [[device.name, cost.seconds / 60, "-" if cost.usd is None else f"{cost.usd:.2f}"] for device, cost in found],
    )
    view.say(f"prices: on demand, one region of one cloud, {PRICES_OF}; yours by --price NAME=USD an hour")
