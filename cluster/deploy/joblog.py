"""The output of a RayJob, as its submitter prints it, a part at each look."""

from __future__ import annotations

from collections.abc import Callable

from heliostat.cluster.deploy.api import Api, RefusedError


class JobLog:
    """What has been written since the last look. A lost connection loses no line: each has its time."""

    def __init__(self, api: Api, job: str, say: Callable[[str], None]) -> None:
        self._api, self._job, self._say = api, job, say
        self._is_told = False
        self._seen: dict[str, tuple[str, int]] = {}  # pod -> time of its newest line, how many lines have that time

    def __call__(self) -> None:
        """Says the new lines of all submitters; pods that wait to start or are gone have none."""
        for pod in self._api.all_of("v1", "Pod", labels=f"job-name={self._job}"):
            try:
                self._follow(pod["metadata"]["name"])
            except RefusedError as error:
                if error.status == 403 and not self._is_told:
                    self._is_told = True
                    self._say(f"its log may not be read: {error}")
                elif error.is_transient:
                    raise

    def _follow(self, pod: str) -> None:
        last, count = self._seen.get(pod, ("", 0))
        lines = self._api.logs(pod, last or None).splitlines()
        same = 0
        for line in lines:
            at, _, text = line.partition(" ")
            if at < last or (at == last and (same := same + 1) <= count):
                continue
            if at != last:
                last, count, same = at, 0, 0
            count += 1
            same = count
            self._say(text)
        self._seen[pod] = (last, count)
