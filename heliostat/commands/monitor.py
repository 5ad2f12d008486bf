"""`heliostat monitor`: Prometheus, Alertmanager and the dashboards on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from heliostat.infra.errors import ResourceError

if TYPE_CHECKING:
    from heliostat.cluster.monitor.parts import Part
    from heliostat.view.terminal import View

app = typer.Typer(
    no_args_is_help=True,
    help="Prometheus, Alertmanager and dashboards on this machine, watching Ray: up, status, down.",
)


@app.command("up")
def up(
    spec: Annotated[str | None, typer.Argument(help="A spec, whose storage the exporter tells of.")] = None,
    storage: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix or a folder that the exporter tells of, instead of a spec.")
    ] = None,
    prometheus_port: Annotated[int | None, typer.Option(min=1, max=65535, help="9090 where left out.")] = None,
    alertmanager_port: Annotated[int | None, typer.Option(min=1, max=65535, help="9093 where left out.")] = None,
    grafana_port: Annotated[int | None, typer.Option(min=1, max=65535, help="3000 where left out.")] = None,
    exporter_port: Annotated[int | None, typer.Option(min=1, max=65535, help="9095 where left out.")] = None,
    page_port: Annotated[int | None, typer.Option(min=1, max=65535, help="3100 where left out.")] = None,
    alertmanager_config: Annotated[
        str | None, typer.Option(help="A file of your own, which says where alerts are sent; nowhere where left out.")
    ] = None,
    rules: Annotated[list[str] | None, typer.Option(help="A file with rules of your own, beside Heliostat's.")] = None,
    grafana: Annotated[
        bool | None, typer.Option("--grafana/--no-grafana", help="Start Grafana where it is installed.")
    ] = None,
) -> None:
    """Start them in the background, on the loopback; what runs already goes on."""
    from heliostat.cluster.monitor.monitor import up
    from heliostat.cluster.monitor.settings import Settings
    from heliostat.cluster.scrape import shipped_folder
    from heliostat.commands.common import storage_of
    from heliostat.view.terminal import View

    view = View()
    watched = storage_of(spec, storage) if spec or storage else None
    options = Settings(
        prometheus_port=prometheus_port, alertmanager_port=alertmanager_port, grafana_port=grafana_port,
        exporter_port=exporter_port, page_port=page_port, alertmanager_config=alertmanager_config,
        rules=list(rules) if rules else None, grafana=grafana, storage=watched.url if watched else None,
        endpoint_url=watched.endpoint_url if watched else None,
    )  # fmt: skip
    found, started = up(options)
    rows = [[one.name, one.url, one.pid, "started" if one.name in started else f"since {one.started}"] for one in found]
    view.table("Monitor", ["part", "address", "process", ""], rows)
    addresses = {one.name: one.url for one in found}
    view.say(f"alerts: {addresses['alertmanager']}; rules and targets: {addresses['prometheus']}/alerts")
    view.say(f"dashboards: {addresses['page']}/d/heliostat")
    if "grafana" in addresses:
        view.say(f"dashboards in Grafana: {addresses['grafana']}/d/heliostat")
    else:
        view.say(f"dashboards for a Grafana, which is not started here: {shipped_folder('grafana')}")
    view.say("look: heliostat monitor status; end: heliostat monitor down")


@app.command("status")
def status() -> None:
    """Each part, its targets and the alerts that fire; exit code 1 if a part does not run."""
    from heliostat.cluster.monitor.status import status
    from heliostat.view.terminal import View

    view, found = View(), status()
    columns = ["part", "state", "address", "process", "since"]
    rows = [
        [one.name, one.state, *((one.part.url, str(one.part.pid), one.part.started) if one.part else ("-", "-", "-"))]
        for one in found
    ]
    view.table("Monitor", columns, rows)
    for one in found:
        if one.name == "prometheus" and one.part and one.state == "runs":
            _show_seen(one.part, view)
    if any(one.state != "runs" for one in found):
        raise ResourceError("monitor: not all of it runs; heliostat monitor up starts what is missing")


def _show_seen(prometheus: Part, view: View) -> None:
    from heliostat.cluster.monitor.status import seen

    try:
        now = seen(prometheus)
    except (OSError, ValueError) as error:
        raise ResourceError(f"monitor: Prometheus at {prometheus.url} does not answer: {error}") from error
    view.say(f"targets up: {now.targets_up} of {now.targets}; alerts firing: {len(now.firing)}")
    for line in now.down:
        view.say(f"down: {line}")
    if now.firing:
        rows = [
            [one["labels"].get("alertname"), one["labels"].get("severity", ""), one["annotations"].get("summary", "")]
            for one in now.firing
        ]
        view.table("Alerts", ["alert", "severity", "summary"], rows)


@app.command("down")
def down() -> None:
    """End them; their data and logs stay."""
    from heliostat.cluster.monitor.monitor import down
    from heliostat.cluster.monitor.settings import folder

    ended = down()
    typer.echo(f"ended {', '.join(ended)}; data and logs stay in {folder()}" if ended else "no monitor is running")
