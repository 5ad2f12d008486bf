"""The description of a starter: the sample for a template, and the example call in its README."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Starter:
    """One kind of starter; its commented spec is the file `KIND.yaml` in this folder."""

    about: str
    """The kind of data, in a few words."""
    make: Callable[[Path], None]
    """Writes the sample to an empty folder; seeded, so that it is the same on every machine."""
    call: str
    """Arguments of `curl` after the endpoint's address and the key; `$name` is replaced by the model's name."""
    own: str
    """The lines of the spec to change for one's own data."""
    path: str = "v1/predict"
    """Path of the API below the model's route."""
    explain: str = ""
    """The input of `heliostat explain`, quoted for the shell; empty if the model cannot be explained."""
