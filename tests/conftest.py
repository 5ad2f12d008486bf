"""How tests share two processes: those that run a Ray for long in one, those of training in the other, the rest between.

Both mostly wait, for other processes; together they take little longer than either.
"""

from __future__ import annotations

import pytest

TRAINING = {"test_faults", "test_prepare", "test_storage_s3", "test_tracking_server", "test_training"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts each integration test into its group; unit tests go wherever there is time."""
    for item in items:
        if item.path.parent.name == "integration":
            item.add_marker(pytest.mark.xdist_group("training" if item.path.stem in TRAINING else "ray"))
