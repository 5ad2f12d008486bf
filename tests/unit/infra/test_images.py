"""Decoding images: what each kind of file becomes, and what is said of those that are refused."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from heliostat.infra.errors import DataError
from heliostat.infra.images import MAX_PIXELS, decode, grid, in_mode, resized

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
PIXELS = np.array([[RED, GREEN, BLUE], [BLUE, WHITE, RED]], dtype=np.uint8)
GREY = np.arange(6, dtype=np.uint8).reshape(2, 3) * 50


def encoded(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, transparent: int | None = None) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    grey = b"" if transparent is None else chunk(b"tRNS", struct.pack(">H", transparent))
    body = chunk(b"IHDR", header) + grey + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def failure(data: bytes) -> str:
    with pytest.raises(DataError) as caught:
        decode(data, "rgb", "images[0]")
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("images[0]: ")
    return str(caught.value).removeprefix("images[0]: ")


@pytest.mark.parametrize("format_", ["PNG", "BMP", "GIF", "WEBP"])
def test_files_without_loss_become_their_pixels(format_: str) -> None:
    options = {"lossless": True} if format_ == "WEBP" else {}
    found = decode(encoded(Image.fromarray(PIXELS), format_, **options), "rgb", "x")
    assert found.dtype == np.uint8
    assert found.flags.writeable
    assert found.tolist() == PIXELS.tolist()


def test_a_jpeg_is_close_to_its_pixels() -> None:
    smooth = np.full((16, 24, 3), (200, 100, 50), dtype=np.uint8)
    found = decode(encoded(Image.fromarray(smooth), "JPEG", quality=95), "rgb", "x")
    assert found.shape == (16, 24, 3)
    assert np.abs(found.astype(int) - smooth).max() < 6


def test_grey_and_colour_become_what_is_asked_for() -> None:
    grey, colour = encoded(Image.fromarray(GREY)), encoded(Image.fromarray(PIXELS))
    assert decode(grey, "own", "x").tolist() == GREY[:, :, None].tolist()
    assert decode(grey, "grey", "x").shape == (2, 3, 1)
    assert decode(grey, "rgb", "x").tolist() == np.stack([GREY] * 3, axis=2).tolist()
    assert decode(colour, "own", "x").shape == (2, 3, 3)
    luma = (PIXELS.astype(int) @ [299, 587, 114]) / 1000
    assert np.abs(decode(colour, "grey", "x")[:, :, 0] - luma).max() <= 1
    assert in_mode(PIXELS, "grey").tolist() == decode(colour, "grey", "x").tolist()


def test_black_and_white_palettes_and_opaque_alpha_are_converted() -> None:
    image = Image.fromarray(PIXELS)
    assert (
        decode(encoded(Image.fromarray(GREY > 120)), "own", "x").tolist() == ((GREY > 120) * 255)[:, :, None].tolist()
    )
    for mode in ("P", "RGBA"):
        palette = image.quantize(4) if mode == "P" else image.convert(mode)
        assert decode(encoded(palette), "own", "x").tolist() == PIXELS.tolist()
    assert decode(encoded(Image.fromarray(GREY).convert("LA")), "own", "x").tolist() == GREY[:, :, None].tolist()


def test_transparent_pixels_are_refused() -> None:
    image = Image.fromarray(PIXELS).convert("RGBA")
    image.putpixel((0, 0), (255, 0, 0, 254))
    assert failure(encoded(image)) == "transparent pixels; opaque ones are needed"
    palette = Image.fromarray(PIXELS).quantize(4)
    assert "transparent" in failure(encoded(palette, transparency=palette.getpixel((0, 0))))
    assert "transparent" in failure(encoded(Image.fromarray(PIXELS), transparency=RED))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_grey_that_stands_for_transparent_is_found_at_each_depth(depth: int) -> None:
    most = 2**depth - 1
    white = b"\0\xff"  # one row, of as many pixels as a byte holds
    file = partial(png, 8 // depth, 1, depth, 0, white)
    assert failure(file(transparent=most)) == "transparent pixels; opaque ones are needed"
    assert decode(file(transparent=most - 1), "own", "x").ravel().tolist() == [255] * (8 // depth)


def test_an_image_is_turned_as_its_camera_was_held() -> None:
    exif = Image.Exif()
    expected = {1: PIXELS, 3: PIXELS[::-1, ::-1], 6: np.rot90(PIXELS, -1), 8: np.rot90(PIXELS)}
    expected |= {2: PIXELS[:, ::-1], 4: PIXELS[::-1], 5: PIXELS.swapaxes(0, 1)}
    expected[7] = PIXELS[::-1, ::-1].swapaxes(0, 1)
    for orientation, pixels in expected.items():
        exif[0x0112] = orientation
        assert decode(encoded(Image.fromarray(PIXELS), exif=exif), "rgb", "x").tolist() == pixels.tolist()


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP"])
def test_animations_are_refused(format_: str) -> None:
    frames = [Image.fromarray(PIXELS), Image.fromarray(PIXELS[::-1].copy())]
    data = encoded(frames[0], format_, save_all=True, append_images=frames[1:])
    assert failure(data) == "an animation; one picture is needed"


def test_of_a_jpeg_with_previews_the_first_picture_counts() -> None:
    frames = [Image.new("RGB", (8, 8), RED), Image.new("RGB", (4, 4), BLUE)]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert decode(data, "rgb", "x").shape == (8, 8, 3)
    assert decode(data, "rgb", "x")[4, 4, 0] > 200


def test_what_would_lose_half_of_its_bits_or_has_four_inks_is_refused() -> None:
    assert failure(png(2, 1, 16, 2, bytes(13))) == "16 bits a channel; 8 are needed"
    assert failure(png(2, 1, 16, 0, bytes(5))) == "16 bits a channel; 8 are needed"
    inks = encoded(Image.fromarray(PIXELS).convert("CMYK"), "JPEG")
    assert failure(inks) == "CMYK pixels; grey, RGB or a palette is needed"


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"%PDF-1.7", b"<svg/>", encoded(Image.fromarray(GREY), "TIFF")])
def test_what_is_no_image_of_these_kinds_is_refused(data: bytes) -> None:
    assert failure(data) == "no image; PNG, JPEG, BMP, WebP or GIF is needed"


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "BMP", "GIF", "WEBP"])
def test_a_file_that_is_cut_off_is_refused(format_: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), format_)
    for share in (0.9, 0.5):
        assert failure(data[: int(len(data) * share)]).startswith(("damaged image: ", "no image; "))


def test_a_flipped_byte_is_found() -> None:
    data = bytearray(encoded(Image.fromarray(PIXELS)))
    data[data.index(b"IDAT") + 6] ^= 0xFF
    assert failure(bytes(data)).startswith("damaged image: ")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize(
    ("side", "message"),
    [
        (6_000, f"6000 x 6000 pixels; {MAX_PIXELS:,} in all are allowed"),
        (10_000, f"10000 x 10000 pixels; {MAX_PIXELS:,} in all are allowed"),
        (50_000, f"far too many pixels; {MAX_PIXELS:,} are allowed"),
    ],
)
def test_an_image_of_too_many_pixels_is_refused_by_its_header(
    side: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(image: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", load)
    assert failure(png(side, side, 8, 0, b"")) == message


def test_resizing_keeps_channels_and_means() -> None:
    grey = np.tile(np.array([[0, 200]], dtype=np.uint8), (8, 4))[:, :, None]
    assert resized(grey, 4, 4).shape == (4, 4, 1)
    assert np.abs(resized(grey, 4, 4).astype(int) - 100).max() < 30
    assert resized(PIXELS, 5, 7).shape == (5, 7, 3)
    assert resized(PIXELS, 2, 3).tolist() == PIXELS.tolist()


def test_a_grid_has_about_as_many_rows_as_columns() -> None:
    image = np.ones((2, 5, 1), dtype=np.uint8)
    assert [grid([image] * count).shape[:2] for count in (1, 2, 3, 5, 9, 64)] == [
        (2, 5), (2, 10), (4, 10), (4, 15), (6, 15), (16, 40),
    ]  # fmt: skip
