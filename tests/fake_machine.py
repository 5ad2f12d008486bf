"""The programs of a machine that Ray's cluster launcher uses: an SSH server and client, rsync, docker.

A program, not a module of tests: `python fake_machine.py ssh …`. A machine is a set of Linux namespaces, a container
another set within it: each has processes, /tmp, /dev/shm and programs in /usr/local/bin of its own, as
`tests/machines.py` lays them out. rsync copies whole files only, and knows no filters.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, TextIO

STATE = Path("/dev/shm/containers")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PORT = 22


def main() -> int:
    """Runs the program that the first argument names."""
    name, *words = sys.argv[1:]
    programs = {
        "ssh": ssh,
        "rsync": rsync,
        "docker": docker,
        "laptop": laptop,
        "machine": machine,
        "container": container,
    }
    return programs[name](words)


def laptop(words: list[str]) -> int:
    """The middle of the network: `laptop ADDRESS FOLDER VISIBLE…`."""
    address, folder, *visible = words
    set_up(Path(folder), *visible)
    ip("link add br0 type bridge", f"addr add {address}/24 dev br0", "link set br0 up", "link set lo up")
    say("ready")
    sys.stdin.read()  # ends with the test, however that ends, and the machines with it
    return 0


def machine(words: list[str]) -> int:
    """Has an SSH server for who has the key: `machine ADDRESS GATEWAY KEY FOLDER VISIBLE…`."""
    address, gateway, key, folder, *visible = words
    set_up(Path(folder), *visible)
    while subprocess.run(["ip", "link", "show", "eth0"], capture_output=True, check=False).returncode:
        time.sleep(0.05)
    ip(f"addr add {address}/24 dev eth0", "link set lo up", "link set eth0 up", f"route add default via {gateway}")
    os.environ |= {"HOME": "/home/ubuntu", "PATH": PATH, "IMAGES": str(Path(folder) / "images.json")}
    with socket.create_server((address, PORT), backlog=16) as server:
        while True:
            connection, _ = server.accept()
            Thread(target=answer, args=(connection, key, Path(folder)), daemon=True).start()


def ip(*commands: str) -> None:
    for command in commands:
        subprocess.run(["ip", *command.split()], check=True)


def answer(connection: socket.socket, key: str, folder: Path) -> None:
    """Runs one command with the connection as its standard input; sends its exit status and its output."""
    with connection, connection.makefile("rb", buffering=0) as given, tempfile.TemporaryFile() as output:
        if not (line := read_line(given)):
            return  # somebody who only looks whether there is a server
        asked, status = json.loads(line), 255
        if asked["key"] == key:
            with open(folder / "log", "ab") as log:
                log.write(f"$ {asked['command']}\n".encode())
                log.flush()
                given_to = connection.fileno()
                shell = ["bash", "-c", asked["command"]]
                status = subprocess.run(shell, stdin=given_to, stdout=output, stderr=log, check=False).returncode
        output.seek(0)
        connection.sendall(struct.pack("!i", status) + output.read())
        connection.shutdown(socket.SHUT_RDWR)  # what the command left running has the connection too


def read_line(stream: Any) -> bytes:
    line = b""
    while byte := stream.read(1):
        line += byte
        if byte == b"\n":
            break
    return line


def ssh(words: list[str]) -> int:
    """`ssh [-tt] -i KEY -o … USER@HOST COMMAND…`; without a terminal, standard input goes along."""
    parser = argparse.ArgumentParser("ssh")
    parser.add_argument("-t", action="count")
    parser.add_argument("-i", dest="key", type=Path, required=True)
    parser.add_argument("-o", action="append")
    parser.add_argument("target")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    with socket.create_connection((given.target.rpartition("@")[2], PORT), timeout=10) as connection:
        connection.settimeout(None)
        asked = {"key": given.key.expanduser().read_text(), "command": " ".join(given.command)}
        connection.sendall(json.dumps(asked).encode() + b"\n" + (b"" if given.t else sys.stdin.buffer.read()))
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answered:
            (status,) = struct.unpack("!i", answered.read(4))
            sys.stdout.buffer.write(answered.read())
    return int(status)


def rsync(words: list[str]) -> int:
    """`rsync --rsh COMMAND -avz FILE HOST:FILE`, and the server that it starts at the other end."""
    if words[0] == "--server":
        return receive(Path(words[1]), int(words[2]))
    parser = argparse.ArgumentParser("rsync")
    parser.add_argument("-e", "--rsh", required=True)
    parser.add_argument("-avz", action="store_true")
    parser.add_argument("--exclude", "--filter", action="append")
    parser.add_argument("source", type=Path)
    parser.add_argument("target")
    given = parser.parse_args(words)
    host, _, file = given.target.partition(":")
    mode = stat.S_IMODE(given.source.stat().st_mode)
    command = [*shlex.split(given.rsh), host, "rsync", "--server", file, str(mode)]
    with open(given.source, "rb") as content:
        return subprocess.run(command, stdin=content, check=False).returncode


def receive(file: Path, mode: int) -> int:
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(sys.stdin.buffer.read())
    part.chmod(mode)
    part.replace(file)
    return 0


def docker(words: list[str]) -> int:
    """The commands of docker that Ray's launcher gives."""
    command, *rest = words
    commands = {"run": run, "exec": execute, "stop": stop, "inspect": inspect, "image": image, "pull": image}
    if command == "info":
        say("map[runc:{runc []}]")
        return 0
    return commands[command](rest)


def images() -> dict[str, dict[str, Any]]:
    return dict(json.loads(Path(os.environ["IMAGES"]).read_text()))


def image(words: list[str]) -> int:
    """`docker pull IMAGE`, `docker image inspect IMAGE`: fails for one that nobody has built."""
    return 0 if words[-1] in images() else 1


def inspect(words: list[str]) -> int:
    """`docker inspect -f FORMAT NAME`: of a container or an image."""
    _, template, name = words
    state = STATE / name
    known: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {"image": name, "mounts": []}
    if not state.exists() and name not in images():
        say(f"Error: No such object: {name}", sys.stderr)
        return 1
    environment = [f"{key}={value}" for key, value in images()[known["image"]]["env"].items()]
    answers = {
        "{{.State.Running}}": str(state.exists() and alive(known["pid"])).lower(),
        "{{.Config.Image}}": known["image"],
        "{{json .Mounts}}": json.dumps([{"Destination": mount.partition(":")[2]} for mount in known["mounts"]]),
        "{{json .Config.Env}}": json.dumps(environment),
    }
    say(answers[template])
    return 0


def run(words: list[str]) -> int:
    """`docker run -d … IMAGE COMMAND`: in namespaces of its own, with the image's entry point before the command."""
    parser = argparse.ArgumentParser("docker run")
    for flag in ("--rm", "-d", "-it"):
        parser.add_argument(flag, action="store_true")
    for name in ("--name", "--ulimit", "--shm-size", "--net"):
        parser.add_argument(name)
    parser.add_argument("-v", dest="mounts", action="append", default=[])
    parser.add_argument("-e", dest="env", action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args(words)
    built = images()[given.image]
    env = {"PATH": PATH, "HOME": built["home"], **built["env"], **dict(one.split("=", 1) for one in given.env)}
    inside = {"command": [*built["entrypoint"], *(given.command or built["cmd"])], "mounts": given.mounts, **built}
    apart = ["unshare", "--mount", "--pid", "--ipc", "--fork", "--kill-child", "--mount-proc"]
    program = [sys.executable, __file__, "container", json.dumps(inside)]
    log = open(Path.home() / given.name, "ab")  # noqa: SIM115
    started = subprocess.Popen(
        [*apart, *program], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
    )
    while not (children := Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()):
        time.sleep(0.01)
    STATE.mkdir(parents=True, exist_ok=True)
    state = {"pid": int(children[0]), "image": given.image, "env": env, "mounts": given.mounts}
    (STATE / given.name).write_text(json.dumps(state))
    while alive(state["pid"]) and is_ours(state["pid"]):
        time.sleep(0.02)
    return 0


def is_ours(pid: int) -> bool:
    """Whether a container is still being laid out, and runs this program."""
    with suppress(OSError):
        return __file__.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False


def container(words: list[str]) -> int:
    """Lays out what the container sees, and becomes its command, with a terminal that nobody types at."""
    (given,) = map(json.loads, words)
    mounts = [mount.partition(":")[::2] for mount in given["mounts"]]
    kept = [(Path(source).read_bytes(), target) for source, target in mounts]
    home = Path(given["home"])
    set_up(Path(given["folder"]), *given["visible"])
    for content, target in kept:  # docker binds the very file; a copy reads the same
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        Path(target).write_bytes(content)
        Path(target).chmod(0o600)
    os.chdir(home)
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    os.dup2(reading, 0)
    os.execvp(given["command"][0], given["command"])


def execute(words: list[str]) -> int:
    """`docker exec [-i] [-t] NAME COMMAND…`: in the container, with its environment and without its entry point."""
    while words[0].startswith("-"):
        words = words[1:]
    name, *command = words
    state = json.loads((STATE / name).read_text()) if (STATE / name).exists() else None
    if state is None or not alive(state["pid"]):
        say(f"Error response from daemon: container {name} is not running", sys.stderr)
        return 1
    enter = ["nsenter", "--target", str(state["pid"]), "--mount", "--pid", "--ipc"]
    inside = ["sh", "-c", 'cd && exec "$@"', "sh", *command]
    return subprocess.run([*enter, *inside], env=state["env"], check=False).returncode


def stop(words: list[str]) -> int:
    """`docker stop NAME`."""
    state = STATE / words[0]
    if not state.exists():
        return 1
    pid = json.loads(state.read_text())["pid"]
    state.unlink()
    if alive(pid):
        os.kill(pid, signal.SIGKILL)
    return 0


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def set_up(folder: Path, *visible: str) -> None:
    """Puts `folder`'s programs and homes in place, and an empty /tmp in which only the paths of `visible` are left."""
    for name, place in (("bin", "/usr/local/bin"), ("homes", "/home")):
        subprocess.run(["umount", "--lazy", place], capture_output=True, check=False)  # the machine's, in a container
        mount("-t", "overlay", "-o", f"lowerdir={folder / name}:{place}", "none", place)
    for home in (folder / "homes").iterdir():
        mount("--bind", str(home), f"/home/{home.name}")
    if (folder / "passwd").exists():
        mount("--bind", str(folder / "passwd"), "/etc/passwd")
    mount("--rbind", "/tmp", "/mnt")
    for place in ("/tmp", "/dev/shm"):
        mount("-t", "tmpfs", "none", place)
    for path in sorted({str(folder), *visible}):
        if path.startswith("/tmp/") and not Path(path).exists():
            Path(path).mkdir(parents=True)
            mount("--rbind", f"/mnt/{path.removeprefix('/tmp/')}", path)


def say(text: str, stream: TextIO = sys.stdout) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    sys.exit(main())
