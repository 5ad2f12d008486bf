"""A real S3 server on this machine: SeaweedFS, from the package registry."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from heliostat.cluster.folders import free_ports

KEYS = {"AWS_ACCESS_KEY_ID": "heliostat-test", "AWS_SECRET_ACCESS_KEY": "heliostat-test-secret"}
BUCKET = "heliostat"


@contextmanager
def seaweedfs(folder: Path) -> Iterator[dict[str, str]]:
    """Runs SeaweedFS on `folder` with an empty bucket, in about 0.5 GB of memory; yields the environment for boto3."""
    port, *others = free_ports(9)
    endpoint_url = f"http://127.0.0.1:{port}"
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(_weed(folder, port, others), stdout=log, stderr=log, cwd=folder)
        try:
            make_bucket(endpoint_url, process, folder / "weed.log")
            yield {**KEYS, "AWS_ENDPOINT_URL_S3": endpoint_url, "AWS_REGION": "us-east-1"}
        finally:
            process.kill()  # a polite stop takes 15 s, and the data are thrown away
            process.wait()


def _weed(folder: Path, port: int, others: list[int]) -> list[str]:
    """The command that starts master, volume, filer and S3 in one process, on the loopback only."""
    keys = {"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": KEYS["AWS_SECRET_ACCESS_KEY"]}
    identities = [{"name": "test", "credentials": [keys], "actions": ["Admin", "Read", "Write", "List"]}]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    names = ["s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"]
    names += ["filer.port", "filer.port.grpc", "volume.port.public"]
    options = {
        **dict(zip(names, others, strict=True)),
        "s3.port": port,
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.config": folder / "s3.json",
        "s3.localSocket": folder / "s3.sock",
        "s3.autoCreateBucket": "false",
        "filer.localSocket": folder / "filer.sock",
        "master.volumeSizeLimitMB": 256,
        "master.telemetry": "false",
        "volume.max": 100,
        "volume.preStopSeconds": 0,
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
    }
    program = Path(sys.executable).with_name("weed")
    return [str(program), "server", "-s3", "-filer", *(f"-{name}={value}" for name, value in options.items())]


def make_bucket(endpoint_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Makes the bucket as soon as the server takes it: seconds after its start."""
    key, secret = KEYS.values()
    session = boto3.session.Session(key, secret, region_name="us-east-1")
    client = session.client("s3", endpoint_url=endpoint_url)
    until = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"x")  # makes the first volume
            client.delete_object(Bucket=BUCKET, Key="ready")
            return
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "BucketAlreadyOwnedByYou":
                continue
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"SeaweedFS does not come up:\n{log.read_text()[-4000:]}") from error
            time.sleep(0.2)
