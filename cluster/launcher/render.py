"""The file that `ray up` takes. Pure: the same settings give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

import yaml

from heliostat.cluster.launcher import aws, azure, gcp
from heliostat.cluster.launcher.config import LauncherConfig, LocalConfig, Provider
from heliostat.cluster.launcher.nodes import most_workers
from heliostat.infra.errors import ConfigError

PROVIDERS: tuple[str, ...] = get_args(Provider)
SCORER = "heliostat.cluster.launcher.spot.score"
VARIABLES = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "3.0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_metrics_report_interval_ms": "5000",
}
"""Of Ray on each node: those of `k8s/base/environment.env` that the image does not set."""
TOKEN = "~/.ray/auth_token"
HAS_THE_TOKEN = (
    f'test -r {TOKEN} || {{ echo "the container cannot read the token: the SSH user needs UID 1000"; exit 1; }}'
)
HEADER = """\
# {title}; docs/clusters.md says more:
#
#   ray get-auth-token --generate >/dev/null     # once: the token, in ~/.ray/auth_token
#   ray up {path}
#   ray dashboard {path}      # forwards http://localhost:8265 through SSH; leave it running
#   heliostat submit train SPEC{autoscales} --address http://localhost:8265
#   ray down {path}
#
# Written by `heliostat render launcher`: change `cluster.launcher` of the spec and render again.
"""
TITLES = {
    "local": "A Ray cluster on machines of your own that SSH reaches, with Docker and rsync on each",
    "aws": "A Ray cluster on EC2 that grows with its work and shrinks again",
    "gcp": "A Ray cluster on Compute Engine that grows with its work and shrinks again",
    "azure": "A Ray cluster on Azure that grows with its work and shrinks again",
}


class Part(NamedTuple):
    """Keys that stand together, below a comment."""

    comment: str
    values: Mapping[str, Any]


class Machines(NamedTuple):
    """What a provider adds to what all files have."""

    most: int
    provider: Mapping[str, Any]
    types: Mapping[str, Any]
    """Empty where Ray makes its own of the machines that are there."""
    initialization: list[str]


def text(launcher: LauncherConfig, provider: str, path: str) -> str:
    """The file for `provider`, one of PROVIDERS, that will lie at `path`, as its comments call it.

    Raises ConfigError where the section has nothing for the provider.
    """
    header = HEADER.format(
        title=TITLES[provider], path=path, autoscales="" if provider == "local" else " cluster.autoscales=true"
    )
    return header + "\n".join(_written(part) for part in parts(launcher, provider))


def parts(launcher: LauncherConfig, provider: str) -> list[Part]:
    """The keys of the file, in its order."""
    machines = _machines(launcher, provider)
    return [
        Part(
            "",
            {
                "cluster_name": launcher.name,
                "max_workers": machines.most,
                "upscaling_speed": 1.0,
                "idle_timeout_minutes": launcher.idle_minutes,
            },
        ),
        Part("", {"provider": machines.provider, "auth": _auth(launcher, provider)}),
        Part(_docker_comment(provider), {"docker": _docker(launcher, provider)}),
        *_types(machines),
        Part(
            "Ray mounts it into the containers. Every node needs the same token, and so does who submits.",
            {"file_mounts": {TOKEN: TOKEN}},
        ),
        Part(
            "",
            {
                "cluster_synced_files": [],
                "file_mounts_sync_continuously": False,
                "rsync_exclude": ["**/.git", "**/.git/**"],
                "rsync_filter": [".gitignore"],
                "initialization_commands": machines.initialization,
            },
        ),
        Part(
            "In the container, whose user has the UID 1000. Files that Ray copies belong to the machine's SSH user.",
            {"setup_commands": [HAS_THE_TOKEN], "head_setup_commands": [], "worker_setup_commands": []},
        ),
        Part(_start_comment(provider), _starts(provider)),
    ]


def _machines(launcher: LauncherConfig, provider: str) -> Machines:
    section = getattr(launcher, provider)
    if section is None:
        given = [name for name in PROVIDERS if getattr(launcher, name) is not None]
        raise ConfigError(
            f"cluster.launcher.{provider}: missing, and docs/clouds.md says what it holds; given: "
            f"{', '.join(given) or 'no provider'}"
        )
    if isinstance(section, LocalConfig):
        where = {"type": "local", "head_ip": section.head, "worker_ips": list(section.workers)}
        return Machines(len(section.workers), where, {}, [])
    cloud: Any = {"aws": aws, "gcp": gcp, "azure": azure}[provider]
    return Machines(most_workers(section), cloud.provider(section), cloud.types(section), cloud.INITIALIZATION)


def _auth(launcher: LauncherConfig, provider: str) -> dict[str, str]:
    key = {"ssh_private_key": launcher.local.ssh_private_key} if launcher.local and provider == "local" else {}
    proxy = {"ssh_proxy_command": launcher.ssh_proxy_command} if launcher.ssh_proxy_command else {}
    return {"ssh_user": launcher.ssh_user, **key, **proxy}


def _docker(launcher: LauncherConfig, provider: str) -> dict[str, Any]:
    return {
        "image": launcher.image,
        "container_name": "heliostat",
        "pull_before_run": provider != "local",
        "run_options": ["--ulimit nofile=65536:65536"],
    }


def _docker_comment(provider: str) -> str:
    return "An image that is on the machines already is not pulled." if provider == "local" else ""


def _types(machines: Machines) -> list[Part]:
    comment = (
        "No work is put beside the head's own processes. Spot machines may be taken away: a run goes on from its last\n"
        "complete checkpoint."
    )
    types = {"head_node_type": "head", "available_node_types": machines.types}
    return [Part(comment, types)] if machines.types else []


def _start_comment(provider: str) -> str:
    newer = (
        "counts the head as one of the workers where all machines are of one kind, and leaves the last one out"
        if provider == "local"
        else "asks for spot machines again and again where the cloud has none"
    )
    return (
        "The dashboard listens on the head's loopback only: SSH reaches it, nobody else. Ray's autoscaler v2\n"
        f"{newer}; v1 does not."
    )


def _starts(provider: str) -> dict[str, list[str]]:
    autoscaler = {"RAY_enable_autoscaler_v2": "0"}
    if provider != "local":
        autoscaler["RAY_AUTOSCALER_UTILIZATION_SCORER"] = SCORER
    head = "ray start --head --port=6379 --dashboard-host=127.0.0.1 --disable-usage-stats"
    return {
        "head_start_ray_commands": [
            "ray stop",
            f"{_export(autoscaler)}; {head} --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            "ray stop",
            f"{_export({})}; ray start --address=$RAY_HEAD_IP:6379 --disable-usage-stats",
        ],
    }


def _export(more: Mapping[str, str]) -> str:
    variables = {"RAY_AUTH_MODE": "token", **more, **VARIABLES}
    return "export " + " ".join(f"{name}={value}" for name, value in variables.items())


class _Dumper(yaml.SafeDumper):
    """Writes what appears twice twice, and items of lists below their key."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=False)


def _written(part: Part) -> str:
    comment = "".join(f"# {line}\n" for line in part.comment.splitlines())
    return comment + yaml.dump(part.values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
