"""The network of the `images` recipe: what is published of it against the module that was trained, on one thread.

Both take the same random images, in turns; weights are random, which changes no time. What a request waits for is
the pass of 1 image; 8 and 32 are what batches hold under load.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from heliostat.infra.registry.inputs import ImageInputs
from heliostat.spec import load_spec
from heliostat.train.models.architectures.network import Settings, build_network
from tests.benchmarks.record import record
from tests.exported import exported

SIZES = (1, 8, 32)
WARM_UP = 5
PASSES = 60
CIFAR_10 = ImageInputs(height=32, width=32, mode="rgb", mean=(0.5,) * 3, std=(0.2,) * 3)
CLASSES = 10


def medians(models: dict[str, Any], images: int) -> dict[str, float]:
    """Milliseconds of a pass of each, the median of passes in turns."""
    pixels = torch.randint(0, 256, (images, *CIFAR_10.shape), dtype=torch.uint8)
    seconds: dict[str, list[float]] = {name: [] for name in models}
    with torch.inference_mode():
        for _ in range(WARM_UP + PASSES):
            for name, model in models.items():
                started = time.perf_counter()
                model(pixels=pixels)
                seconds[name].append(time.perf_counter() - started)
    return {name: round(1e3 * statistics.median(found[WARM_UP:]), 2) for name, found in seconds.items()}


def main() -> None:
    """Measures and records."""
    torch.set_num_threads(1)
    network = build_network(Settings(model=load_spec("images", ()).model, inputs=CIFAR_10), CLASSES).eval()
    with tempfile.TemporaryDirectory() as folder:
        published, _ = exported(network, Path(folder))
    models = {"trained": network, "published": published}
    found = {str(images): medians(models, images) for images in SIZES}
    ratios = {images: round(one["trained"] / one["published"], 2) for images, one in found.items()}
    record("programs", {"ratio_by_images": ratios, "milliseconds": found})


if __name__ == "__main__":
    main()
