from __future__ import annotations

import httpx
import pytest
from fastapi import Request

from heliostat.serve.errors import RequestError
from heliostat.serve.http.multipart import FORM, media_type, read_form

HEADER = "multipart/form-data; boundary=b0undary"
LONG_HEAD = "a part's head has more than 4096 bytes or 16 parameters"


def request(content_type: str | None) -> Request:
    headers = [] if content_type is None else [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})


def part(name: str, content: bytes) -> bytes:
    return b'--b0undary\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n' % (name.encode(), content)


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [(HEADER, True), ("MULTIPART/FORM-DATA", True), ("application/json", False), (None, False), ("", False)],
)
def test_a_form_says_that_it_is_one(content_type: str | None, expected: bool) -> None:
    assert (media_type(request(content_type)) == FORM) == expected


@pytest.mark.parametrize(
    "content", [b"", b"\r\n", b"\r", b"--", b"\r\n--b0undar", bytes(range(256)) * 300, b"\r\n\r\n"]
)
def test_files_come_out_as_a_client_sent_them(content: bytes) -> None:
    files = [("image", ("a.png", content)), ("image", ("b.png", b"second"))]
    sent = httpx.Request("POST", "http://test", files=files, data={"top_k": "2", "model": "tïny"})
    found = read_form(request(sent.headers["content-type"]), sent.read(), several=["image"])
    assert found == {"image": [content, b"second"], "top_k": "2", "model": "tïny"}


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (part("image", b"x"), "multipart/form-data", "its Content-Type has no boundary"),
        (part("image", b"x"), HEADER, "its last boundary is missing"),
        (b"", HEADER, "its last boundary is missing"),
        (b"--other--", HEADER, "its last boundary is missing"),
        (b"--b0undary\r\n\r\nx\r\n--b0undary--", HEADER, "a part has no name"),
        (b'--b0undary\r\nContent-Disposition: form-data; name="a"\r\n--b0undary--', HEADER, "a part has no name"),
        (part("a", b"") * 1001 + b"--b0undary--", HEADER, "more than 1000 parts"),
        (part('a"; x="' + ";" * 17, b"") + b"--b0undary--", HEADER, LONG_HEAD),
        (part("a" * 4096, b"") + b"--b0undary--", HEADER, LONG_HEAD),
        (b"", HEADER + ";" * 17, "its Content-Type has more than 16 parameters"),
    ],
)
def test_a_body_that_is_no_form_is_a_400(body: bytes, content_type: str, message: str) -> None:
    with pytest.raises(RequestError) as caught:
        read_form(request(content_type), body)
    assert caught.value.message == f"body: no valid form: {message}"
    assert (caught.value.status, caught.value.code) == (400, "invalid_form")


def test_a_field_that_is_given_twice_is_a_422() -> None:
    with pytest.raises(RequestError) as caught:
        read_form(request(HEADER), part("top_k", b"1") + part("top_k", b"2") + b"--b0undary--")
    assert (caught.value.status, caught.value.param) == (422, "top_k")
