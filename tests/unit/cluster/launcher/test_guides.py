"""The sections that the guides show are ones that the spec takes, and that a file is rendered from."""

from __future__ import annotations

import pytest
import yaml

from heliostat.cluster.config import ClusterConfig
from heliostat.cluster.launcher.render import PROVIDERS, text
from tests.guides import FENCED, ROOT


@pytest.mark.parametrize("guide", ["clusters.md", "clouds.md"])
def test_a_section_that_a_guide_shows_is_rendered(guide: str) -> None:
    blocks = [block for language, block in FENCED.findall((ROOT / "docs" / guide).read_text()) if language == "yaml"]
    shown = [ClusterConfig.model_validate(yaml.safe_load(block)["cluster"]).launcher for block in blocks]
    assert shown
    for launcher in shown:
        assert launcher
        [provider] = [name for name in PROVIDERS if getattr(launcher, name)]
        assert yaml.safe_load(text(launcher, provider, "x.yaml"))["provider"]


def test_each_provider_is_shown() -> None:
    shown = "".join((ROOT / "docs" / guide).read_text() for guide in ("clusters.md", "clouds.md"))
    assert all(f"render launcher my-spec.yaml --provider {provider}" in shown for provider in PROVIDERS)
