"""A snapshot of the training state in memory: copied while training pauses, written to disk while it continues."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from heliostat.infra.errors import StorageError

Snapshot = dict[str, Any]
"""The files that DeepSpeed would write: path -> state, its tensors copied to the host."""


@contextmanager
def taken(engine: Any) -> Iterator[Snapshot]:
    """Collects what `engine.save_checkpoint` would write inside the block into a Snapshot."""
    files: Snapshot = {}
    writer, copies = engine.checkpoint_engine, _Copies()
    writer.save = lambda state_dict, path: files.update({str(path): copies.of(state_dict)})
    try:
        yield files
    finally:
        del writer.save
        copies.finish()


def write(snapshot: Snapshot) -> None:
    """Writes each file of the snapshot and frees it; raises StorageError if writing fails."""
    while snapshot:
        path, state = snapshot.popitem()
        try:
            torch.save(state, path)
        except (OSError, RuntimeError) as error:
            raise StorageError(f"{path}: cannot be written: {error}") from error


class _Copies:
    """Copies tensors, each once: tensors that share memory, such as tied embeddings, also share the copy."""

    def __init__(self) -> None:
        self._made: dict[Any, torch.Tensor] = {}

    def of(self, item: Any) -> Any:
        """`item` with its tensors replaced by copies, in mappings, lists and tuples of any depth."""
        if isinstance(item, torch.Tensor):
            key = (item.device, item.data_ptr(), item.dtype, item.shape, item.stride())
            if key not in self._made:
                self._made[key] = _on_host(item.detach())
            return self._made[key]
        if isinstance(item, Mapping):
            made: Any = copy.copy(item)
            made.update({key: self.of(value) for key, value in item.items()})
            return made
        if type(item) in (list, tuple):
            return type(item)(self.of(value) for value in item)
        return item

    def finish(self) -> None:
        """Waits for copies from an accelerator to complete."""
        if any(device.type == "cuda" for device, *_ in self._made):
            torch.cuda.synchronize()


def _on_host(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.device.type != "cuda":
        return tensor.to("cpu", copy=True)
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)
