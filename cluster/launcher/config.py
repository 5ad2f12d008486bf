"""`cluster.launcher` of a spec: machines that Ray's cluster launcher starts."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from heliostat.cluster.kubernetes.workload import check_image
from heliostat.infra.config.strict import StrictModel
from heliostat.infra.config.types import Positive

Provider = Literal["local", "aws", "gcp", "azure"]
Label = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$")]
"""What all clouds take in a name: a-z, 0-9 and dashes, 30 at most, the first a letter, the last no dash."""
Address = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.:-]*$")]
Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^\S+$")]


class PoolConfig(StrictModel):
    """Machines of one kind, which come when work asks for them and go when they are idle."""

    machine: Text
    """The cloud's name for the kind, such as `g6.2xlarge`."""
    cpus: Positive
    """CPUs of one machine: Ray counts with what stands here."""
    gpus: Annotated[int, Field(ge=0)] = 0
    """GPUs of one machine."""
    min: Annotated[int, Field(ge=0)] = 0
    """Machines that are always there. Of `spot-first` these are on demand: spot machines may be taken away."""
    max: Positive
    """At most so many of one price. All pools together never have more machines than the sum of their `max`."""
    capacity: Literal["spot-first", "spot", "on-demand"] = "spot-first"
    """`spot-first`: on demand while the cloud has refused a spot machine of the pool, for half an hour from then on."""
    disk_gb: Annotated[int, Field(ge=50)] = 200
    """Of the disk, which has the container's image, prepared data and checkpoints until they are uploaded."""

    @field_validator("max")
    @classmethod
    def _holds_the_minimum(cls, most: int, info: ValidationInfo) -> int:
        if most < (least := info.data.get("min", 0)):
            raise ValueError(f"min is {least}, so {least} or more is needed")
        return most


class GcpPoolConfig(PoolConfig):
    """A pool on Google's cloud, where accelerators are a part of some machines and an addition to others."""

    accelerator: Text | None = None
    """Such as `nvidia-tesla-t4` for machines of the N1 family; left out for those that have theirs (A2, A3, G2)."""


class LocalConfig(StrictModel):
    """Machines of one's own, all used from the start."""

    head: Address
    workers: Annotated[tuple[Address, ...], Field(min_length=1)]
    ssh_private_key: Text = "~/.ssh/id_ed25519"
    """File of the key that opens all of them, where `ray up` is typed."""

    @field_validator("workers")
    @classmethod
    def _each_once(cls, workers: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        addresses = [info.data.get("head"), *workers]
        if twice := sorted({str(one) for one in addresses if addresses.count(one) > 1}):
            raise ValueError(f"each machine once is needed, the head's too; twice: {', '.join(twice)}")
        return workers


class CloudConfig(StrictModel):
    """What the clouds have in common."""

    head_machine: Text
    """Kind of the head, which runs no work of ours."""
    head_disk_gb: Annotated[int, Field(ge=50)] = 150
    pools: Annotated[dict[Label, PoolConfig], Field(min_length=1)]
    """Name -> machines of that kind."""


class AwsConfig(CloudConfig):
    """EC2. Ray makes a key pair, and no role and no security group: its own would be open to the world."""

    region: Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")]
    machine_image: Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")]
    """With Docker and a driver for CUDA 13."""
    subnets: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^subnet-[0-9a-f]+$")], ...], Field(min_length=1)
    ]
    """Tried in turn: several zones have a spot machine more often than one."""
    security_groups: Annotated[
        tuple[Annotated[str, StringConstraints(pattern=r"^sg-[0-9a-f]+$")], ...], Field(min_length=1)
    ]
    """They let in each other's machines, and SSH to the head from where `ray up` is typed."""
    head_profile: Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:instance-profile/\S+$")]
    """Instance profile that may start and end instances, and pass on the workers' role."""
    worker_profile: Annotated[str, StringConstraints(pattern=r"^arn:aws[a-z-]*:iam::\d{12}:instance-profile/\S+$")]
    """Instance profile that may use the bucket."""
    public_head: bool = False
    """`ray up` reaches the head at its public address; the subnets give one to all machines then."""


class GcpConfig(CloudConfig):
    """Compute Engine."""

    region: Annotated[str, StringConstraints(pattern=r"^[a-z]+-[a-z]+\d+$")]
    zone: Annotated[str, StringConstraints(pattern=r"^[a-z]+-[a-z]+\d+-[a-z]$")]
    """One zone: Ray's provider knows no more."""
    project: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{4,28}[a-z0-9]$")]
    machine_image: Text
    """`projects/PROJECT/global/images/NAME`, with Docker and a driver for CUDA 13."""
    subnetwork: Annotated[str, StringConstraints(pattern=r"^projects/[^/\s]+/regions/[^/\s]+/subnetworks/[^/\s]+$")]
    """Its firewall lets in SSH from where `ray up` is typed only; Cloud NAT lets machines fetch images."""
    worker_account: Annotated[str, StringConstraints(pattern=r"^[^@\s]+@[^@\s]+\.iam\.gserviceaccount\.com$")]
    """Service account of the workers."""
    public_head: bool = False
    """The head, and no other machine, has a public address."""
    pools: Annotated[dict[Label, GcpPoolConfig], Field(min_length=1)]  # type: ignore[assignment]
    """Name -> machines of that kind."""

    @field_validator("zone")
    @classmethod
    def _lies_in_the_region(cls, zone: str, info: ValidationInfo) -> str:
        if (region := info.data.get("region")) and not zone.startswith(f"{region}-"):
            raise ValueError(f"a zone of {region} is needed")
        return zone

    @field_validator("machine_image")
    @classmethod
    def _is_one_image(cls, image: str) -> str:
        if not re.fullmatch(r"projects/[^/\s]+/global/images/[^/\s]+", image):
            raise ValueError(
                "projects/PROJECT/global/images/NAME is allowed, no family: that is another image tomorrow"
            )
        return image


class AzureConfig(CloudConfig):
    """Virtual machines of Azure, none with a public address: Ray's template would let in SSH from everywhere."""

    location: Annotated[str, StringConstraints(pattern=r"^[a-z]+[a-z0-9]*$")]
    subscription: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")]
    resource_group: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.()-]{1,89}[A-Za-z0-9_()-]$")]
    """Ray makes it, with a network, and a managed identity that may do all in it."""
    machine_image: Text
    """`PUBLISHER:OFFER:SKU:VERSION` or the ID of an image of one's own, with Docker and a driver for CUDA 13."""
    subnet: Annotated[str, StringConstraints(pattern=r"^\d+(\.\d+){3}/\d+$")] = "10.64.0.0/16"
    """Addresses of the machines; those of other networks that are to reach them must differ."""

    @field_validator("machine_image")
    @classmethod
    def _is_one_image(cls, image: str) -> str:
        parts = image.split(":")
        by_name = len(parts) == 4 and all(parts) and parts[3] != "latest"
        if not (by_name or image.startswith("/subscriptions/")):
            raise ValueError(
                "PUBLISHER:OFFER:SKU:VERSION is allowed, no version latest, or /subscriptions/… of an image"
            )
        return image


class LauncherConfig(StrictModel):
    """Machines that `ray up` starts with a file that `heliostat render launcher` writes."""

    name: Label = "heliostat"
    """Of the cluster: two of one name in an account are taken for one."""
    image: str
    """The image of the target `cluster`, by NAME:TAG or NAME@sha256:DIGEST."""
    idle_minutes: Annotated[int, Field(ge=1, le=1440)] = 10
    """How long a machine above a pool's `min` stays without work."""
    ssh_user: Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]*$")] = "ubuntu"
    """Has the UID 1000 on each machine, as the container's user does."""
    ssh_proxy_command: str | None = None
    """How `ssh` reaches the head where it has no public address, such as `ssh -W %h:%p bastion.example.com`."""
    local: LocalConfig | None = None
    aws: AwsConfig | None = None
    gcp: GcpConfig | None = None
    azure: AzureConfig | None = None

    @field_validator("image")
    @classmethod
    def _is_pinned(cls, image: str) -> str:
        check_image("cluster.launcher.image", image)
        return image
