"""Pods on a network of their own, as namespaces of this machine: what `ray stop`, SIGTERM and a lost head do to one.

A pod has processes, a network, /dev/shm and /tmp of its own, and its command is its first process, so a signal reaches
it as from a kubelet. Names of Services are lines of /etc/hosts, which all pods read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.guides import ROOT
from tests.waiting import until

APART = ("unshare", "--net", "--pid", "--mount", "--ipc", "--fork", "--kill-child", "--mount-proc")
NETWORK = "192.0.2"
NODE = """set -e
ip link add br0 type bridge; ip addr add {gateway}/24 dev br0; ip link set br0 up; ip link set lo up; echo ready; cat"""
POD = """set -e
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up; ip addr add {address}/24 dev eth0; ip link set eth0 up; ip route add default via {gateway}
mount --bind {hosts} /etc/hosts; mount --bind /dev/null /etc/resolv.conf
mount --rbind /tmp /mnt; mount -t tmpfs none /tmp; mount -t tmpfs none /dev/shm
for place in {visible}; do
    case $place in /tmp/*) mkdir -p $place; mount --rbind /mnt/${{place#/tmp/}} $place;; esac
done
exec "$@" """


@dataclass
class Pod:
    """A pod that runs."""

    address: str
    pid: int
    """Of its first process, as this machine counts."""
    process: subprocess.Popen[bytes]
    log: Path
    environment: dict[str, str]

    def run(self, *command: str, timeout: float = 120) -> str:
        """What a command says in the pod, such as `kubectl exec` gives; AssertionError if it fails."""
        done = subprocess.run(
            [*_enter(self.pid, "--net", "--pid", "--mount", "--ipc"), *command],
            capture_output=True, text=True, timeout=timeout, check=False, env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{self.said()}"
        return done.stdout

    def kill(self) -> None:
        """As when its node is lost: all its processes are gone at once."""
        if self.is_up():
            os.kill(self.pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def terminate(self) -> None:
        """SIGTERM to its first process."""
        os.kill(self.pid, signal.SIGTERM)

    def is_up(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


@dataclass
class Network:
    """Where pods are."""

    pid: int
    folder: Path
    pods: list[Pod] = field(default_factory=list)

    def start(self, name: str, number: int, command: Sequence[str], environment: Mapping[str, str]) -> Pod:
        """Starts a pod at the address that ends with `number`."""
        address, log = f"{NETWORK}.{number}", self.folder / f"{name}.log"
        visible = " ".join(map(str, (self.folder, ROOT, Path(sys.prefix), Path(sys.base_prefix), *_homes(environment))))
        script = POD.format(address=address, gateway=f"{NETWORK}.1", hosts=self.hosts, visible=visible)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        values = {"PATH": path, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), **environment}
        shell = ["bash", "-c", script, "pod", *command]
        with log.open("ab") as output:
            process = subprocess.Popen(
                [*_enter(self.pid, "--net", "--mount"), *APART, *shell],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=values, start_new_session=True,
            )  # fmt: skip
        pod = Pod(address, _first_process(process), process, log, values)
        self.pods.append(pod)
        cable = f"cable{number}"
        self.run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", str(pod.pid))
        self.run("ip", "link", "set", cable, "master", "br0", "up")
        return pod

    def resolve(self, **names: Pod) -> None:
        """Lets names of Services lead to these pods."""
        lines = [f"{pod.address} {name.replace('_', '-')}" for name, pod in names.items()]
        self.hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    @property
    def hosts(self) -> Path:
        return self.folder / "hosts"

    def run(self, *command: str) -> str:
        """What a command says on the node that the pods are on."""
        done = subprocess.run(
            [*_enter(self.pid, "--net", "--mount"), *command], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def popen(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """A command on that node, which goes on beside the test."""
        return subprocess.Popen([*_enter(self.pid, "--net", "--mount"), *command], text=True, **options)


@contextmanager
def network(folder: Path) -> Iterator[Network]:
    """A network without pods; all that run on it are gone afterwards."""
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--fork", "--kill-child"]
    script = ["bash", "-c", NODE.format(gateway=f"{NETWORK}.1")]
    with subprocess.Popen([*command, *script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        made = Network(_child(process.pid), folder)
        made.resolve()
        try:
            yield made
        finally:
            for pod in made.pods:
                pod.kill()
            process.kill()


def _enter(pid: int, *namespaces: str) -> list[str]:
    return ["nsenter", "--target", str(pid), "--user", "--preserve-credentials", *namespaces]


def _homes(environment: Mapping[str, str]) -> list[str]:
    return [environment["HOME"]] if "HOME" in environment else []


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _first_process(process: subprocess.Popen[bytes]) -> int:
    """`nsenter` becomes `unshare`, whose child is the pod's first process."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until(lambda: children.read_text().split(), "the pod has a process", 30)
    return _child(process.pid)
