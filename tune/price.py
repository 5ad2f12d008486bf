"""What an hour of a worker costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from heliostat.infra.accelerators import ACCELERATORS, read_price
from heliostat.infra.errors import ConfigError

if TYPE_CHECKING:
    from heliostat.tune.gang import Crew

CPU = "CPU"
"""In place of an accelerator's name, for an hour of one core."""


@dataclass(frozen=True)
class Price:
    """Of an hour of what workers run on."""

    name: str
    """Of an accelerator, or CPU."""
    usd: float

    def __str__(self) -> str:
        """As `--price` takes it."""
        return f"{self.name}={self.usd:g}"

    @classmethod
    def given(cls, texts: Sequence[str]) -> Price | None:
        """Of `NAME=USD`; None if there is none. Raises ConfigError for an unknown name, or for several."""
        if len(texts) > 1:
            raise ConfigError(f"--price: {', '.join(texts)} given; one is allowed, of what the workers run on")
        names = [CPU, *(device.name for device in ACCELERATORS)]
        return cls(*read_price(texts[0], names)) if texts else None

    def of_worker(self, crew: Crew) -> float:
        """USD for an hour of one worker of a gang; raises ConfigError for the price of what it does not run on."""
        if (self.name == CPU) == bool(crew.gpus):
            runs_on, allowed = ("GPUs", "an accelerator's name") if crew.gpus else ("CPUs", CPU)
            raise ConfigError(f"--price: {self} given, and workers run on {runs_on}; {allowed} is allowed")
        return self.usd * (crew.gpus or crew.cpus)


def usd(amount: float) -> str:
    """An amount of money, as a person reads it."""
    return f"{amount:,.2f} USD" if amount >= 0.1 or not amount else f"{amount:.2g} USD"
