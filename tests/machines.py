"""Machines with SSH, rsync and docker on a network of their own, for Ray's cluster launcher; namespaces of this one.

What a command does on a machine is done by the real bash and the real Ray. Stood in for are the SSH server and client,
rsync and docker (`tests/fake_machine.py`). A container has the programs that its image says, and no others of those.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.guides import ROOT

PROGRAM = Path(__file__).with_name("fake_machine.py")
PACKAGES = {"ssh": "openssh-client", "rsync": "rsync", "docker": "docker.io", "sudo": "sudo", "curl": "curl"}
"""Programs that a container has only where its image has the package."""
APART = ("unshare", "--net", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc")
LAPTOP = "192.0.2.1"


@dataclass(frozen=True)
class Image:
    """What of an image a container shows."""

    entrypoint: Sequence[str]
    cmd: Sequence[str]
    env: Mapping[str, str]
    packages: frozenset[str]
    home: str


@dataclass(frozen=True)
class Laptop:
    """Where commands are typed; the machines are its network."""

    pid: int
    folder: Path

    def run(self, command: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """A line of the shell; its output, errors included."""
        enter = ["nsenter", "--target", str(self.pid), "--user", "--preserve-credentials", "--net", "--mount", "--pid"]
        env = {"HOME": "/home/ubuntu", "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(ROOT)}
        shell = ["bash", "-c", f"cd {self.folder}; {command}"]
        return subprocess.run(
            [*enter, *shell], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip

    def log(self, address: str) -> str:
        """What was run on a machine, and what its commands complained about."""
        return (self.folder / address / "log").read_text()


def missing() -> str | None:
    """Why there can be no machines here."""
    probe = "ip link add br0 type bridge && mount -t overlay -o lowerdir=/usr/local/bin:/usr/bin none /usr/local/bin"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", *APART[1:], "bash", "-c", probe],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return None if done.returncode == 0 else f"no namespaces, bridge or overlay here: {done.stderr.strip()}"


@contextmanager
def machines(folder: Path, addresses: Sequence[str], images: Mapping[str, Image]) -> Iterator[Laptop]:
    """A laptop with a key to machines at `addresses`, which have `images`; all that ran there is gone afterwards."""
    key = secrets.token_hex()
    _lay_out_laptop(folder / LAPTOP, key)
    for address in addresses:
        _lay_out_machine(folder / address, images)
    command = [*APART, *_program("laptop", LAPTOP, str(folder / LAPTOP), *_visible(folder))]
    command[1:1] = ["--user", "--map-root-user"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            laptop = Laptop(_child(process.pid), folder)
            for address in addresses:
                done = laptop.run(_connect(folder, address, key))
                assert done.returncode == 0, done.stdout
            yield laptop
        finally:
            process.kill()


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _connect(folder: Path, address: str, key: str) -> str:
    """The script that starts a machine and plugs it into the laptop's network."""
    words = [LAPTOP, key, str(folder / address), *_visible(folder)]
    start = shlex.join([*APART, *_program("machine", address, *words)])
    cable = f"cable{address.rpartition('.')[2]}"
    return f"""set -e
        setsid {start} >>{folder / address / "log"} 2>&1 </dev/null &
        until pid=$(cat /proc/$!/task/$!/children) && [ "$pid" ]; do sleep 0.05; done
        ip link add {cable} type veth peer name eth0 netns $pid
        ip link set {cable} master br0 up
        timeout 20 bash -c 'until : </dev/tcp/{address}/22; do sleep 0.1; done' 2>/dev/null"""


def _visible(folder: Path) -> list[str]:
    return [str(path) for path in (folder, ROOT, Path(sys.prefix), Path(sys.base_prefix))]


def _program(*words: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(PROGRAM), *words]


def _lay_out_laptop(folder: Path, key: str) -> None:
    _write_programs(folder / "bin", "ssh", "rsync")
    _link_our_programs(folder / "bin")
    ssh = _home(folder, "ubuntu") / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "id_ed25519").write_text(key)
    (ssh / "id_ed25519").chmod(0o600)


def _lay_out_machine(folder: Path, images: Mapping[str, Image]) -> None:
    _write_programs(folder / "bin", "docker", "rsync")
    _home(folder, "ubuntu")
    (folder / "passwd").write_text(f"{Path('/etc/passwd').read_text()}ubuntu:x:0:0::/home/ubuntu:/bin/bash\n")
    described = {}
    for number, (name, image) in enumerate(images.items()):
        inside = folder / f"container-{number}"
        for program, package in PACKAGES.items():
            _write_programs(inside / "bin", *([program] if package in image.packages else ()))
            if package not in image.packages:
                _script(inside / "bin" / program, f"echo '{program}: command not found' >&2; exit 127")
        _link_our_programs(inside / "bin")
        _home(inside, Path(image.home).name)
        described[name] = {**asdict(image), "packages": [], "folder": str(inside), "visible": _visible(folder)}
    (folder / "images.json").write_text(json.dumps(described))


def _home(folder: Path, name: str) -> Path:
    """A user's home, as useradd makes it."""
    home = folder / "homes" / name
    shutil.copytree("/etc/skel", home)
    return home


def _write_programs(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        _script(folder / name, f'exec {shlex.join(_program(name))} "$@"')


def _link_our_programs(folder: Path) -> None:
    """What packages put on PATH, and a Python that has them."""
    for program in Path(sys.prefix, "bin").iterdir():
        if program.name.startswith("python"):
            _script(folder / program.name, f'exec {sys.executable} "$@"')
        elif not (folder / program.name).exists():
            (folder / program.name).symlink_to(program)


def _script(file: Path, text: str) -> None:
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
