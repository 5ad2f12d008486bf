"""Following a job: leaving it does not end it, and says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from heliostat.cluster import jobs
from heliostat.operations.submit import follow
from heliostat.view.terminal import View


def test_ctrl_c_says_that_the_job_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def log(*_: str) -> Iterator[str]:
        yield "step 1\n"
        raise KeyboardInterrupt

    monkeypatch.setattr(jobs, "logs", log)
    with pytest.raises(KeyboardInterrupt) as caught:
        follow("raysubmit_1", "http://head:8265", View())
    line = "job raysubmit_1 goes on at http://head:8265; end: ray job stop --address http://head:8265 raysubmit_1"
    assert str(caught.value) == line
