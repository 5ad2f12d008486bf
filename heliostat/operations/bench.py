"""`heliostat bench`: puts load on an endpoint and shows the result as a table, a plot and JSON."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from heliostat import __version__
from heliostat.infra.config.strict import apply_overrides, build
from heliostat.infra.errors import ConfigError, ResourceError
from heliostat.serve.bench.config import BenchConfig
from heliostat.serve.bench.load import drive
from heliostat.serve.bench.summary import Summary, Times, latencies, summarise
from heliostat.serve.bench.verdict import Verdict, verdicts
from heliostat.serve.objectives import Objectives
from heliostat.view.terminal import View

WORDS = (
    "the film a story of people who meet one summer and never quite say what they mean slow warm funny sad long night "
    "music city old house river young actor plot scene light camera book friend war love money time year good bad end"
)


def bench(
    url: str,
    overrides: Iterable[str],
    key: str | None,
    texts: Path | None,
    out: Path | None,
    objectives: Objectives | None = None,
) -> None:
    """Puts load on the endpoint at `url` and prints the results; also writes them to `out` as JSON.

    Raises ConfigError for a wrong option or file, ResourceError if nothing answers, no request succeeds or one of the
    `objectives` is missed.
    """
    config = build(BenchConfig, apply_overrides({"url": url}, overrides), source="bench")
    asked = read_texts(texts) if texts else drawn(config)
    view = View()
    with view.progress("bench") as advance:
        target, samples, seconds = asyncio.run(
            drive(config, key, asked, lambda done: advance("asking", done, config.requests))
        )
    found = summarise(samples, seconds)
    judged = verdicts(samples, objectives) if objectives else []
    if out:
        made = {"version": __version__, "target": target.url, "model": target.model, "config": config.model_dump()}
        kept = {"objectives": [asdict(one) for one in judged]} if objectives else {}
        out.write_text(json.dumps({**made, **kept, **asdict(found)}, indent=2) + "\n", encoding="utf-8")
    load = f"{config.rate:g} requests/s" if config.rate else f"{config.concurrency} at a time"
    view.table(f"{target.url}, {found.requests} requests, {load}", *table(found))
    for error, count in found.errors.items():
        view.say(f"{count} of {found.requests} requests failed: {error}")
    if found.latency is None:
        raise ResourceError(f"{target.url}: no request was answered well")
    view.curve("latency, ms", "percentile", *latencies(samples))
    if judged:
        report_verdicts(judged, target.url, view)


def report_verdicts(judged: Sequence[Verdict], url: str, view: View) -> None:
    """Prints what was promised and measured; raises ResourceError that names the objectives that were missed."""
    rows: list[list[object]] = [
        [
            one.objective,
            one.promised,
            "nothing measured" if one.measured is None else one.measured,
            "kept" if one.is_kept else "missed",
        ]
        for one in judged
    ]
    view.table("serve.objectives", ["objective", "promised", "measured", ""], rows)
    missed = [one.objective for one in judged if not one.is_kept]
    if missed:
        raise ResourceError(f"{url}: serve.objectives missed: {', '.join(missed)}")


def read_texts(file: Path) -> list[str]:
    """The non-blank lines of a file; raises ConfigError if there are none."""
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--texts: {file} cannot be read ({error}); a text file with a text in each line can"
        ) from error
    if not lines:
        raise ConfigError(f"--texts: {file} has no text; one in each line is needed")
    return lines


def drawn(config: BenchConfig) -> list[str]:
    """A random text of `config.words` words for each request; they differ from the start, so that no cache answers."""
    draw = random.Random(config.seed)
    return [" ".join(draw.choices(WORDS.split(), k=config.words)) for _ in range(config.requests)]


def table(found: Summary) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of the results table."""
    rows: list[list[object]] = [["good answers/s", found.requests_per_second, "", "", "", ""]]
    if found.tokens_per_second:
        rows.append(["tokens/s", found.tokens_per_second, "", "", "", ""])
    times: dict[str, Times | None] = {
        "latency, ms": found.latency,
        "first token, ms": found.first_token,
        "between tokens, ms": found.inter_token,
    }
    rows += [[name, one.mean, one.p50, one.p90, one.p99, one.max] for name, one in times.items() if one]
    return ["", "mean", "p50", "p90", "p99", "max"], rows
