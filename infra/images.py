"""Decodes image files into arrays of pixels, in the same way for training data and for requests.

Supports PNG, JPEG, BMP, WebP and GIF with 8 bits per channel. Ambiguous images are refused: animations, transparent
pixels, CMYK, and 16 bits per channel. An image is rotated according to its EXIF orientation; its colour profile is
ignored.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

from heliostat.infra.errors import DataError

PNG = "data:image/png;base64,"
"""Prefix of a `data:` URL of a PNG file."""
MAX_PIXELS = 1 << 25
"""About 5,800 x 5,800 pixels, or 100 MB: a file of a few kilobytes can claim more pixels than fit into memory."""
CheckSize = Callable[[int, int], None]
Mode = Literal["rgb", "grey", "own"]
"""Three channels, one, or as many as the file has: one if it is black and white or grey, else three."""

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF")
SIGNATURE_BYTES = 12
"""How much of a file `begins_like_an_image` needs."""
_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA")
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transformation that undoes each EXIF orientation other than the upright one (CIPA DC-008, tag 0x0112)."""
_ORIENTATION = 0x0112


def decode(data: bytes, mode: Mode, what: str, *, check_size: CheckSize | None = None) -> np.ndarray:
    """The image file `data` as uint8 [height, width, channels].

    `check_size` raises DataError for a width and height, not rotated yet, that are refused; it is called before a pixel
    is decoded. Raises DataError, whose message begins with `what`, if the file is refused by it, is not an image, is
    damaged, is ambiguous or has more than MAX_PIXELS.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check(image, data)
            if check_size:
                check_size(*image.size)
            image.load()
            return in_mode(_upright(_opaque(image, data)), mode)
    except DataError as error:
        raise DataError(f"{what}: {error}") from None
    except Image.DecompressionBombError:
        raise DataError(f"{what}: far too many pixels; {MAX_PIXELS:,} are allowed") from None
    except UnidentifiedImageError:
        raise DataError(f"{what}: no image; PNG, JPEG, BMP, WebP or GIF is needed") from None
    except Exception as error:  # each decoder raises its own errors for invalid bytes
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{what}: damaged image: {reason[:200]}") from None


def begins_like_an_image(start: bytes) -> bool:
    """Whether a file that begins with these SIGNATURE_BYTES is in a format that `decode` supports."""
    signatures = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a")
    webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    bmp = start[:2] == b"BM" and start[6:10] == bytes(4)  # two letters alone could begin a text
    return start.startswith(signatures) or webp or bmp


def in_mode(pixels: np.ndarray, mode: Mode) -> np.ndarray:
    """Converts `pixels`, uint8 [height, width, 1 or 3], to `mode`; grey is ITU-R BT.601's luma."""
    channels = pixels.shape[2]
    if mode == "rgb" and channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if mode == "grey" and channels == 3:
        return np.array(Image.fromarray(pixels).convert("L"))[:, :, None]
    return pixels


def is_coloured(pixels: np.ndarray) -> bool:
    """Whether the channels of `pixels`, uint8 [height, width, 1 or 3], differ in any pixel."""
    return bool((pixels != pixels[:, :, :1]).any())


def resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes `pixels`, uint8 [.., .., 1 or 3], to uint8 [height, width, 1 or 3]: bilinear, with antialiasing."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    found = np.array(image.resize((width, height), Image.Resampling.BILINEAR))
    return found.reshape(height, width, pixels.shape[2])


def png(pixels: np.ndarray) -> bytes:
    """`pixels`, uint8 [height, width, 1 or 3], as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def grid(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images of one size, uint8 [height, width, channels], tiled in a square grid; black where there is none."""
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height, width, channels = images[0].shape
    found = np.zeros((rows, columns, height, width, channels), dtype=np.uint8)
    for at, image in enumerate(images):
        found[divmod(at, columns)] = image
    return found.swapaxes(1, 2).reshape(rows * height, columns * width, channels)


def data_url(pixels: np.ndarray) -> str:
    """The image as a `data:` URL of a PNG file."""
    return f"{PNG}{base64.b64encode(png(pixels)).decode()}"


def _check(image: Image.Image, data: bytes) -> None:
    """Raises DataError if the header alone shows that the image cannot be used."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels; {MAX_PIXELS:,} in all are allowed")
    # The further images in a JPEG (MPO) are previews and gain maps; the first is the image (CIPA DC-007).
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise DataError("an animation; one picture is needed")
    if image.format == "PNG" and data[24:25] == b"\x10":  # bit depth in the header; the decoder silently drops 8 bits
        raise DataError("16 bits a channel; 8 are needed")
    if image.mode not in _GREY + _COLOUR:
        raise DataError(f"{image.mode} pixels; grey, RGB or a palette is needed")


def _opaque(image: Image.Image, data: bytes) -> Image.Image:
    """The image as `L` or `RGB`; raises DataError if a pixel is not opaque."""
    transparent = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(transparent, int):
        image.info["transparency"] = transparent * 255 // (2 ** data[24] - 1)  # the decoder scales only the pixels
    if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255):
        raise DataError("transparent pixels; opaque ones are needed")
    return image.convert("L" if image.mode in _GREY else "RGB")


def _upright(image: Image.Image) -> np.ndarray:
    turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    pixels = np.array(image if turn is None else image.transpose(turn))
    return pixels.reshape(*pixels.shape[:2], -1)
