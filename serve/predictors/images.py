"""Image inputs: base64 in JSON, files in a form, or an image as the body; decoded to the model's input size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Request
from pydantic import ConfigDict, Field

from heliostat.infra.errors import DataError
from heliostat.infra.registry.inputs import ImageInputs, image_bytes
from heliostat.serve.errors import invalid
from heliostat.serve.http.limits import parse_form, read_body
from heliostat.serve.http.multipart import FORM, media_type, read_form
from heliostat.serve.predictors.inputs import MAX_INPUTS, InputProcessor, ModelInput, Options, PredictRequest

if TYPE_CHECKING:
    import numpy as np
    import torch

ALONE = "image/"
"""Media type prefix of a body that is a single image file."""
Image = Annotated[str, Field(min_length=1, description="An image file in base64, or a `data:` URL of one.")]


class ImageRequest(PredictRequest):
    """One image, or a list of images."""

    one = "image"

    image: Image | None = None
    images: Annotated[list[Image], Field(min_length=1, max_length=MAX_INPUTS)] | None = None


class ImageForm(Options):
    """One or more image files."""

    model_config = ConfigDict(strict=False)

    image: Annotated[list[bytes], Field(min_length=1, max_length=MAX_INPUTS)]

    @property
    def inputs(self) -> list[tuple[str, bytes]]:
        """Field name and content of each file."""
        if len(self.image) == 1:
            return [("image", self.image[0])]
        return [(f"image.{at}", data) for at, data in enumerate(self.image)]


class Images(InputProcessor["ImageRequest | ImageForm", "np.ndarray"]):
    """Parses requests with images."""

    def __init__(self, inputs: ImageInputs) -> None:
        super().__init__(ImageRequest)
        self.form = ImageForm
        self.inputs = inputs

    @property
    def body(self) -> dict[str, Any]:
        """The route's `openapi_extra`: JSON, a form or an image."""
        body = super().body
        file = {"type": "string", "format": "binary"}
        body["requestBody"]["content"] |= {FORM: {"schema": _form_schema()}, f"{ALONE}*": {"schema": file}}
        return body

    @property
    def blank(self) -> np.ndarray:
        """A black image, for the trial passes."""
        import numpy as np

        return np.zeros(self.inputs.shape, dtype=np.uint8)

    async def read(self, request: Request, limit_bytes: int) -> ImageRequest | ImageForm:
        """The parsed request; raises RequestError if it is not valid."""
        kind = media_type(request)
        if kind == FORM:
            fields = read_form(request, await read_body(request, limit_bytes), several=("image",))
        elif kind.startswith(ALONE):
            fields = {"image": [await read_body(request, limit_bytes)]}
        else:
            return await super().read(request, limit_bytes)
        return parse_form(self.form, fields)

    async def items(self, asked: ImageRequest | ImageForm) -> list[ModelInput[np.ndarray]]:
        """Each image, uint8 [height, width, channels]; raises RequestError 422 for the first invalid one.

        Images are decoded one by one, so that work stops when the request is cancelled.
        """
        return [ModelInput(field, await self.in_thread(self._pixels, field, image)) for field, image in asked.inputs]

    def collate(self, batch: Sequence[np.ndarray]) -> dict[str, torch.Tensor]:
        """The model's input: uint8 [images, height, width, channels]."""
        import numpy as np
        import torch

        return {"pixels": torch.from_numpy(np.stack(batch))}

    def _pixels(self, field: str, image: str | bytes) -> np.ndarray:
        try:
            data = image_bytes(image, field) if isinstance(image, str) else image
            return self.inputs.pixels(data, field)
        except DataError as error:
            raise invalid(field, str(error)) from None


def _form_schema() -> dict[str, Any]:
    files = {"type": "array", "minItems": 1, "maxItems": MAX_INPUTS, "items": {"type": "string", "format": "binary"}}
    return {
        "type": "object",
        "properties": {"image": files, "top_k": {"type": "integer", "minimum": 1}, "model": {"type": "string"}},
        "required": ["image"],
        "additionalProperties": False,
    }
