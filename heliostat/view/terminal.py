"""Terminal output: progress while a stage works, a table when it is done."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from heliostat.view.progress import progress_bar

if TYPE_CHECKING:
    from heliostat.infra.registry.registry import ModelVersion
    from heliostat.results import TrainingResult
    from heliostat.serve.deploy.launch import Endpoint
    from heliostat.train.data.prepared import Prepared

Advance = Callable[[str, int, int], None]
"""Arguments: the current stage, the amount done, and the total (0 if unknown)."""
ANY_WIDTH = 10_000
"""Width for files and pipes, large enough that nothing is wrapped."""
SHOWN_METRICS = 5
"""Metrics of a validation that are printed; MLflow has all."""
MOST_WORDS = 3
"""Largest number of classes for which the confusion matrix labels rows and columns with `true` and `predicted`."""


class View:
    """Terminal output of commands."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or _standard_output()

    def say(self, text: str) -> None:
        """Prints one line."""
        self.console.print(text, soft_wrap=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Prints a table; numeric columns are right-aligned."""
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
        """Shows a bar for a stage with a known number of steps, or else a spinner."""
        with progress_bar(self.console) as bar:
            bar.show(title)

            def advance(stage: str, done: int, total: int) -> None:
                bar.show(f"{title}: {stage}", done, total or None)

            yield advance

    @contextmanager
    def training(self) -> Iterator[Callable[[Mapping[str, Any]], None]]:
        """Shows a bar for the steps of a run, and prints a line for each validation."""
        with progress_bar(self.console) as bar:
            bar.show("train: starting workers")

            def on_event(event: Mapping[str, Any]) -> None:
                if event["kind"] == "step":
                    rates = f"{event['samples_per_second']:.1f} samples/s, {event['tokens_per_second']:.0f} tokens/s"
                    text = f"train: loss {event['loss']:.4f}, {rates} a worker, MFU {event['mfu']:.0%}"
                    bar.show(text, event["step"], event["steps"])
                elif event["kind"] == "report":
                    shown = list(event["metrics"].items())[:SHOWN_METRICS]
                    numbers = ", ".join(f"{name} {number(value)}" for name, value in shown)
                    bar.say(f"  step {event['step']}: validation {numbers}")
                elif event["kind"] == "precision" and event["message"]:
                    bar.say(f"  {event['message']}")
                elif event["kind"] == "early_stop":
                    bar.say(f"  stopped early {event['message']}")
                elif event["kind"] == "memory":
                    size = event["micro_batch_size"]
                    text = f"  worker {event['rank']}: out of memory with {size} records in a pass"
                    bar.say(f"{text}; the run goes on with {size // 2}")

            yield on_event

    def prepared(self, prepared: Prepared) -> None:
        """Prints the record counts of prepared data."""
        title = f"Data {prepared.fingerprint}" + (" (reused: nothing has changed)" if prepared.reused else "")
        counts: list[list[object]] = [[name.replace("_", " "), n] for name, n in prepared.counts.items()]
        if "unknown_tokens" in prepared.counts:
            counts.append(["share of unknown tokens", f"{prepared.unknown_share:.2%}"])
        self.table(title, ["records", "count"], counts)
        if prepared.labels:
            self.say(f"labels: {', '.join(prepared.labels)}")

    def trained(self, trained: TrainingResult) -> None:
        """Prints loss curve, test metrics, confusion matrix, published version, and the report's location."""
        self.loss_curve(trained.curves.get("train/loss", {}))
        self.say(f"run {trained.run_id} in MLflow: {trained.tracking_url}")
        self.metrics(f"Test split, version {trained.model.number}", trained.result["metrics"])
        self.confusion(trained.result["confusion"], trained.result["labels"])
        self.version(trained.model, trained.result["size_bytes"])
        self.report(trained.report)

    def evaluated(self, model: ModelVersion, found: Mapping[str, Any]) -> None:
        """Prints metrics and confusion matrix."""
        self.metrics(f"Test split, {model.name} version {model.version}", found["metrics"])
        self.confusion(found["confusion"], found["labels"])

    def report(self, place: str | None) -> None:
        """Prints the location of a report, if there is one."""
        if place:
            self.say(f"Report, with the worst records: {place}")

    def metrics(self, title: str, metrics: Mapping[str, float]) -> None:
        """Prints one row per metric."""
        self.table(title, ["metric", "value"], [[name, value] for name, value in metrics.items()])

    def confusion(self, confusion: Sequence[Sequence[int]] | None, labels: Sequence[str]) -> None:
        """Prints a confusion matrix: rows are the true classes, columns the predicted ones."""
        if not confusion:
            return
        if len(labels) > MOST_WORDS:
            title, true, predicted = "Confusion matrix: true classes are rows, predicted ones columns", "", ""
        else:
            title, true, predicted = "Confusion matrix", "true ", "predicted "
        rows = [[f"{true}{label}", *row] for label, row in zip(labels, confusion, strict=True)]
        self.table(title, ["", *(f"{predicted}{label}" for label in labels)], rows)

    def version(self, model: ModelVersion, size_bytes: int) -> None:
        """Prints the location of a published version, and the checksum of its files."""
        rows: list[list[object]] = [
            ["version", model.number],
            ["aliases", ", ".join(model.aliases) or "-"],
            ["files", model.url],
            ["size", f"{size_bytes / 1e6:.1f} MB"],
            ["manifest SHA-256", model.digest],
        ]
        self.table(f"Published {model.name}", ["", ""], [[name, str(value)] for name, value in rows])

    def versions(self, models: Sequence[ModelVersion]) -> None:
        """Prints all published versions."""
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
        """Prints the endpoint's address and an example call; brackets in the call are not Rich markup."""
        self.say(f"{endpoint.name} version {endpoint.version} answers at {endpoint.url}")
        self.console.print(f"  {call}", soft_wrap=True, markup=False)

    def loss_curve(self, losses: Mapping[int, float]) -> None:
        """Plots the training loss by step, smoothed; steps with a non-finite loss are left out."""
        from heliostat.train.evaluation.report.curves import finite, smoothed

        points = finite(losses)
        self.curve("training loss", "step", [step for step, _ in points], smoothed([loss for _, loss in points]))

    def curve(self, title: str, along: str, places: Sequence[float], values: Sequence[float]) -> None:
        """Plots `values` over `places`; prints nothing if there are fewer than two."""
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
    """Standard output; lines are not wrapped if it is a file or a pipe.

    Text is printed as it is: labels and paths may contain what Rich takes for markup (`[/x]`) or emoji (`:cat:`).
    """
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = ANY_WIDTH
    return console


def number(value: object) -> str:
    """A float with four significant digits; other values as they are."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
