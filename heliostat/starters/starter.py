"""What a starter is: the sample that goes with a template, and how its README has the model asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Starter:
    """One kind; its commented spec is the file `KIND.yaml` beside this one."""

    about: str
    """What the data are, in a few words."""
    make: Callable[[Path], None]
    """Fills an empty folder with the sample: from a seed, the same on every machine."""
    call: str
    """What `curl` is given after the endpoint's address and the key; `$name` in it becomes the model's name."""
    own: str
    """Which lines of the spec to change for data of one's own."""
    path: str = "v1/predict"
    """Below the model's route."""
    explain: str = ""
    """The input of `heliostat explain`, for the shell; empty where there is nothing to explain."""
