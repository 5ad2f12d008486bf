"""What a person sees in the terminal: progress while a stage works, a table when it is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.results import Trained
    from heliostat.serve.deploy.launch import Endpoint
    from heliostat.train.data.prepared import Prepared
    from heliostat.tune.search import Search

Advance = Callable[[str, int, int], None]
"""What is being done, how much of it is done, of how much (0 where unknown)."""
ANY_WIDTH = 10_000
"""Columns of a file, which wraps nothing."""
SHOWN_METRICS = 5
MOST_WORDS = 3
"""Classes up to which the confusion matrix says beside each what it is."""
"""Of a validation, in the terminal; MLflow has all."""


class View:
    """The terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _standard_output()

    def say(self, text: str) -> None:
        """One line."""
        self.console.print(text, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; cells that are numbers stand right."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for index, column in enumerate(columns):
            numeric = all(isinstance(row[index], int | float) for row in rows)
            table.add_column(column, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(number(cell) if isinstance(cell, float) else str(cell) for cell in row))
        self.console.print(title, style="bold", soft_wrap=True, markup=False)
        self.console.print(table)

    @contextmanager
    def progress(self, title: str) -> Iterator[Advance]:
        """A bar for a stage whose steps are counted, or a spinner where they are not."""
        with self._bar() as bar:
            task = bar.add_task(title, total=None)

            def advance(stage: str, done: int, total: int) -> None:
                bar.update(task, description=f"{title}: {stage}", completed=done, total=total or None)

            yield advance

    @contextmanager
    def training(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """A bar for the steps of a run, and a line for each validation."""
        with self._bar() as bar:
            task = bar.add_task("train: starting workers", total=None)

            def on_event(event: Mapping[str, Any]) -> None:
                if event["kind"] == "step":
                    rates = f"{event['samples_per_second']:.1f} samples/s, {event['tokens_per_second']:.0f} tokens/s"
                    text = f"train: loss {event['loss']:.4f}, {rates} a worker, MFU {event['mfu']:.0%}"
                    bar.update(task, description=text, completed=event["step"], total=event["steps"])
                elif event["kind"] == "report":
                    shown = list(event["metrics"].items())[:SHOWN_METRICS]
                    numbers = ", ".join(f"{name} {number(value)}" for name, value in shown)
                    bar.console.print(f"  step {event['step']}: validation {numbers}", soft_wrap=True)
                elif event["kind"] == "memory":
                    size = event["micro_batch_size"]
                    text = f"  worker {event['rank']}: out of memory with {size} records in a pass"
                    bar.console.print(f"{text}; the run goes on with {size // 2}", soft_wrap=True)

            yield on_event

    @contextmanager
    def trials(self, total: int) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """A bar for the trials of a search, and a line for each that ends."""
        with self._bar() as bar:
            task = bar.add_task("tune: starting workers", total=100 * total)
            over: set[str] = set()
            latest: dict[str, int] = {}

            def on_trial(event: Mapping[str, Any]) -> None:
                identity, result = event["id"], event["result"]
                latest[identity] = 100 if event["over"] else result.get("progress", 0)
                tried = ", ".join(f"{key} {number(value)}" for key, value in event["values"].items())
                bar.update(task, description=f"tune: {tried}", completed=sum(latest.values()))
                if event["over"] and identity not in over:
                    over.add(identity)
                    bar.console.print(f"  trial {len(over)} of {total}: {tried}", soft_wrap=True)

            yield on_trial

    def _bar(self) -> Progress:
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        return Progress(*columns, console=self.console, transient=True)

    def prepared(self, prepared: Prepared) -> None:
        """Counts after cleaning."""
        title = f"Data {prepared.fingerprint}" + (" (reused: nothing has changed)" if prepared.reused else "")
        self.table(title, ["records", "count"], [[name.replace("_", " "), n] for name, n in prepared.counts.items()])
        if prepared.labels:
            self.say(f"labels: {', '.join(prepared.labels)}")

    def searched(self, search: Search) -> None:
        """The trials, best first."""
        keys = list(search.trials[0].values)
        rows = [
            [
                trial.id,
                *(trial.values.get(key, "") for key in keys),
                trial.metrics.get(search.metric, "-"),
                f"{trial.progress} %",
                round(trial.seconds, 1),
                trial.error or trial.outcome,
            ]
            for trial in search.trials
        ]
        self.table("Trials, best first", ["trial", *keys, search.metric, "ran", "seconds", "outcome"], rows)

    def trained(self, trained: Trained) -> None:
        """Loss curve, test metrics, confusion matrix, published version, and where the report is."""
        self.loss_curve(trained.curves.get("train/loss", {}))
        self.say(f"run {trained.run_id} in MLflow: {trained.tracking_url}")
        self.metrics(f"Test split, version {trained.model.version}", trained.result["metrics"])
        self.confusion(trained.result["confusion"], trained.result["labels"])
        self.version(trained.model, trained.result["size_bytes"])
        self.report(trained.report)

    def evaluated(self, model: ModelVersion, found: Mapping[str, Any], report: str | None) -> None:
        """Metrics, confusion matrix, and where the report is."""
        self.metrics(f"Test split, {model.name} version {model.version}", found["metrics"])
        self.confusion(found["confusion"], found["labels"])
        self.report(report)

    def report(self, place: str | None) -> None:
        """Where a report is; nothing where there is none."""
        if place:
            self.say(f"Report, with the worst records: {place}")

    def metrics(self, title: str, metrics: Mapping[str, float]) -> None:
        """One row for each metric."""
        self.table(title, ["metric", "value"], [[name, value] for name, value in metrics.items()])

    def confusion(self, confusion: Sequence[Sequence[int]] | None, labels: Sequence[str]) -> None:
        """Rows are the true classes, columns the predicted ones."""
        if not confusion:
            return
        if len(labels) > MOST_WORDS:
            title, true, predicted = "Confusion matrix: true classes are rows, predicted ones columns", "", ""
        else:
            title, true, predicted = "Confusion matrix", "true ", "predicted "
        rows = [[f"{true}{label}", *row] for label, row in zip(labels, confusion, strict=True)]
        self.table(title, ["", *(f"{predicted}{label}" for label in labels)], rows)

    def version(self, model: ModelVersion, size_bytes: int) -> None:
        """Where a published version is, and how to tell its files from others."""
        rows: list[list[object]] = [
            ["version", model.version],
            ["aliases", ", ".join(model.aliases) or "-"],
            ["files", model.url],
            ["size", f"{size_bytes / 1e6:.1f} MB"],
            ["manifest SHA-256", model.digest],
        ]
        self.table(f"Published {model.name}", ["", ""], [[name, str(value)] for name, value in rows])

    def versions(self, models: Sequence[ModelVersion]) -> None:
        """All published versions."""
        rows = [
            [
                model.name,
                model.version,
                ", ".join(model.aliases) or "-",
                f"{model.created:%Y-%m-%d %H:%M}",
                ", ".join(f"{name} {number(value)}" for name, value in list(model.metrics.items())[:3]),
            ]
            for model in models
        ]
        self.table("Published models", ["name", "version", "aliases", "created (UTC)", "test metrics"], rows)

    def serving(self, endpoint: Endpoint, call: str) -> None:
        """Where the endpoint is and how to ask it; brackets in the call are its own, no markup."""
        self.say(f"{endpoint.name} version {endpoint.version} answers at {endpoint.url}")
        self.console.print(f"  {call}", soft_wrap=True, markup=False)

    def loss_curve(self, losses: Mapping[int, float]) -> None:
        """The training loss by step, smoothed, drawn in the terminal; steps without a number are left out."""
        from heliostat.train.evaluation.report.curves import finite, smoothed

        points = finite(losses)
        self.curve("training loss", "step", [step for step, _ in points], smoothed([loss for _, loss in points]))

    def curve(self, title: str, along: str, places: Sequence[float], values: Sequence[float]) -> None:
        """`values` over `places`, drawn in the terminal; nothing where there are fewer than two."""
        if len(places) < 2:
            return
        import plotext
        from rich.text import Text

        plotext.clear_figure()
        plotext.plot_size(min(100, self.console.width - 1), 15)
        plotext.theme("clear")
        plotext.plot(places, values, marker="braille")
        plotext.title(title)
        plotext.xticks(sorted({places[0], places[len(places) // 2], places[-1]}))
        plotext.xlabel(along)
        self.console.print(Text(plotext.uncolorize(plotext.build())), soft_wrap=True)


def _standard_output() -> Console:
    """Standard output; no line is broken where that is a file or a pipe."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = ANY_WIDTH
    return console


def number(value: object) -> str:
    """A number with four digits that matter; other values as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
