"""What an hour of a worker costs."""

from __future__ import annotations

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

    @classmethod
    def read(cls, text: str) -> Price:
        """Of `NAME=USD`; raises ValueError, which says what is allowed, for what is none."""
        return cls(*read_price(text, [CPU, *(device.name for device in ACCELERATORS)]))

    def of_worker(self, crew: Crew) -> float:
        """USD for an hour of one worker of a gang; raises ConfigError for the price of what it does not run on."""
        if (self.name == CPU) == bool(crew.gpus):
            runs_on, allowed = ("GPUs", "an accelerator's name") if crew.gpus else ("CPUs", CPU)
            raise ConfigError(f"tune.price: {self.name} given, and workers run on {runs_on}; {allowed} is allowed")
        return self.usd * (crew.gpus or crew.cpus)


def usd(amount: float) -> str:
    """An amount of money, as a person reads it."""
    return f"{amount:,.2f} USD" if amount >= 0.1 or not amount else f"{amount:.2g} USD"
