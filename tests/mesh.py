"""Hosts with a cable between each two, so that one link can be slow and the others are not; namespaces of this machine.

Each host has a network, a name, /tmp and /dev/shm of its own. All that runs there is gone after the block.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

APART = ("unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
THROTTLE = "tbf burst 64kb latency 400ms rate"
_LIVE = "mount --bind {hosts} /etc/hosts; mount --bind {folder} /tmp; mount -t tmpfs none /dev/shm; hostname {name}"


@dataclass(frozen=True)
class Mesh:
    """Hosts by number, from 1."""

    pids: Mapping[int, int]
    """A process on each, as this machine numbers it."""
    variables: Mapping[str, str]

    def run(self, host: int, command: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """A command on a host; its output, errors included."""
        inside = ["nsenter", "--target", str(self.pids[host]), "--user", "--preserve-credentials"]
        inside += ["--net", "--mount", "--pid", "--uts"]
        return subprocess.run(
            [*inside, *command], env={**os.environ, **self.variables}, cwd="/", stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def slow(self, one: int, other: int, rate: str) -> None:
        """Makes the cable between two hosts as slow as `rate`, such as `20mbit`, both ways."""
        for here, there in ((one, other), (other, one)):
            words = ["tc", "qdisc", "add", "dev", f"to{there}", "root", *THROTTLE.split(), rate]
            done = self.run(here, words, timeout=30)
            assert done.returncode == 0, done.stdout

    def cut(self, one: int, other: int) -> None:
        """Takes the cable between two hosts away."""
        done = self.run(one, ["ip", "link", "del", f"to{other}"], timeout=30)
        assert done.returncode == 0, done.stdout


def address(host: int) -> str:
    """Where the others find a host."""
    return f"198.51.100.{host}"


def missing() -> str | None:
    """Why there can be no such hosts here."""
    probe = f"ip link add to1 type veth peer name to2 && tc qdisc add dev to1 root {THROTTLE} 20mbit"
    done = subprocess.run([*APART, "bash", "-c", probe], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"no namespaces, veth or tbf here: {done.stderr.strip()}"


@contextmanager
def mesh(folder: Path, count: int, variables: Mapping[str, str]) -> Iterator[Mesh]:
    """So many hosts, whose commands see `variables` besides the environment."""
    (folder / "hosts").write_text(
        "127.0.0.1 localhost\n" + "".join(f"{address(n)} host-{n}\n" for n in range(1, count + 1))
    )
    command = [*APART, "bash", "-ec", _script(folder, range(1, count + 1))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            inside = [int(word) for word in process.stdout.readline().split()]
            assert len(inside) == count, "the hosts were not made"
            yield Mesh(dict(enumerate(_outside(process.pid, inside), 1)), variables)
        finally:
            process.kill()


def _script(folder: Path, hosts: range) -> str:
    """Makes hosts and cables, says the hosts' processes, and waits for the end of the test."""
    lines = ["pids="]
    for host in hosts:
        (folder / str(host)).mkdir()
        own = _LIVE.format(folder=folder / str(host), hosts=folder / "hosts", name=f"host-{host}")
        lines += [f"unshare --net --mount --uts bash -ec '{own}; touch /tmp/up; exec sleep infinity' </dev/null >&2 &"]
        lines += [f'pid{host}=$!; pids="$pids $!"; until [ -e {folder}/{host}/up ]; do kill -0 $!; sleep 0.1; done']
        lines += [f"nsenter --target $pid{host} --net ip link set lo up"]
    for one, other in combinations(hosts, 2):
        lines += [f"ip link add to{other} netns $pid{one} type veth peer name to{one} netns $pid{other}"]
    for here in hosts:
        for there in hosts:
            if here != there:
                enter = f"nsenter --target $pid{here} --net ip"
                lines += [f"{enter} addr add {address(here)}/32 dev to{there}; {enter} link set to{there} up"]
                lines += [f"{enter} route add {address(there)}/32 dev to{there} src {address(here)}"]
    return "\n".join([*lines, "echo $pids", "read -r || true"])


def _outside(pid: int, inside: Sequence[int]) -> list[int]:
    """What this machine calls processes that a namespace below `pid` calls `inside`."""
    first = int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
    found = {}
    for child in Path(f"/proc/{first}/task/{first}/children").read_text().split():
        [line] = [one for one in Path(f"/proc/{child}/status").read_text().splitlines() if one.startswith("NSpid:")]
        found[int(line.split()[-1])] = int(child)
    return [found[one] for one in inside]
