"""Downloads over connections that break: what is kept, what is asked for again, and what is never taken."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from heliostat.infra.errors import StorageError
from heliostat.train.data.sources import downloads
from heliostat.train.data.sources.downloads import download
from tests.unit.train.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 40


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setattr(downloads, "PAUSE_SECONDS", 0.0)
    with serving(CONTENT) as files:
        yield files


def integrity(content: bytes = CONTENT, kind: str = "sha512") -> str:
    return f"{kind}-{base64.b64encode(hashlib.new(kind, content).digest()).decode()}"


def failure(server: FileServer, file: Path, expected: str = "") -> str:
    with pytest.raises(StorageError) as caught:
        download(server.url, file, expected or integrity())
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(server.url, "URL")


def test_a_file_comes_whole(server: FileServer, tmp_path: Path) -> None:
    download(server.url, tmp_path / "file", integrity())
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert server.asked == [""]


def test_a_broken_connection_goes_on_where_it_broke(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [1000, 0, 5000]
    download(server.url, tmp_path / "file", integrity())
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["", "bytes=1000-", "bytes=1000-", "bytes=6000-"]


def test_attempts_that_bring_something_are_not_counted(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [100] * (3 * downloads.ATTEMPTS)
    download(server.url, tmp_path / "file", integrity())
    assert len(server.asked) == 3 * downloads.ATTEMPTS + 1


def test_what_came_is_kept_for_the_next_call(server: FileServer, tmp_path: Path) -> None:
    server.cuts = [7000, *[0] * downloads.ATTEMPTS]
    message = failure(server, tmp_path / "file")
    assert message == (
        "URL: 3240 bytes are missing, after 5 attempts in a row; the 0.0 MB that came are kept for the next time"
    )
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:7000]
    server.cuts, server.asked = [], []
    download(server.url, tmp_path / "file", integrity())
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == ["bytes=7000-"]


def test_a_part_that_is_whole_is_taken_as_it_is(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "file", integrity())
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_a_part_of_another_file_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    for other in (b"x" * 100, b"x" * (len(CONTENT) + 9)):
        (tmp_path / "file.part").write_bytes(other)
        download(server.url, tmp_path / "file", integrity())
        assert (tmp_path / "file").read_bytes() == CONTENT


def test_a_server_without_ranges_starts_over(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    server.cuts = [1000]
    download(server.url, tmp_path / "file", integrity())
    assert (tmp_path / "file").read_bytes() == CONTENT


def test_bytes_that_differ_are_refused_and_not_kept(server: FileServer, tmp_path: Path) -> None:
    message = failure(server, tmp_path / "file", integrity(b"other"))
    assert message.startswith("URL: its bytes do not have the checksum sha512-")
    assert list(tmp_path.iterdir()) == []


def test_the_strongest_checksum_counts(server: FileServer, tmp_path: Path) -> None:
    both = f"{integrity(b'other', 'sha1')} {integrity()}"
    download(server.url, tmp_path / "file", both)
    download(server.url, tmp_path / "old", integrity(kind="sha1"))
    assert "checksum" in failure(server, tmp_path / "new", f"{integrity(kind='sha1')} {integrity(b'other')}")
    assert "'md5-x' is no checksum that is known; sha512" in failure(server, tmp_path / "new", "md5-x")


def test_servers_that_are_busy_are_asked_again_and_refusals_are_final(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [503, 429, 500]
    download(server.url, tmp_path / "file", integrity())
    assert len(server.asked) == 4
    server.statuses, server.asked = [404], []
    assert failure(server, tmp_path / "other") == "URL: HTTP Error 404: Not Found"
    assert len(server.asked) == 1
    for status in (401, 403):
        server.statuses = [status]
        with pytest.raises(PermissionError, match=str(status)):
            download(server.url, tmp_path / "other", integrity())


def test_only_http_is_asked(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    with pytest.raises(StorageError, match="an address with http:// or https:// is needed"):
        download((tmp_path / "secret").as_uri(), tmp_path / "file", integrity(b"x"))
