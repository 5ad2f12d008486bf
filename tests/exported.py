"""A network as it is published, without a run around it."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

from heliostat.infra.registry import programs
from heliostat.infra.registry.published import WEIGHTS
from heliostat.train.models.architectures.network import Network, write_settings
from heliostat.train.publish_formats import ExportedProgram, Weights


def exported(network: Network, folder: Path) -> tuple[programs.Program, Weights]:
    """What a replica would load of `network`, with the weights that were gathered; `folder` is empty."""
    write_settings(network.settings, folder)
    form = ExportedProgram(network)
    weights = dict(form.gathered(Mock(module=network)))
    form.write(network, weights, folder, folder / "bundle")
    return programs.load(folder / "bundle" / WEIGHTS), weights
