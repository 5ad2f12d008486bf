"""Runs exported programs with some intermediate values replaced, to compute gradients with respect to these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Interpreter, Node

from heliostat.infra.errors import ModelError
from heliostat.infra.registry.programs import Program

_EMBEDDING = torch.ops.aten.embedding.default
_METADATA = torch.ops.aten._assert_tensor_metadata.default


class Run(Interpreter):
    """One run of a program's graph in which some nodes have given values."""

    def __init__(self, program: Program, given: Mapping[str, torch.Tensor]) -> None:
        super().__init__(program.graph)
        self.given = given
        self.seen: dict[str, torch.Tensor] = {}
        """Outputs of the embedding nodes."""

    def run_node(self, node: Node) -> Any:
        """The node's value. Metadata checks are skipped, because pixels may be float here instead of bytes."""
        if node.name in self.given:
            return self.given[node.name]
        if node.target is _METADATA:
            return None
        found = super().run_node(node)
        if node.target is _EMBEDDING:
            self.seen[node.name] = found
        return found

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The program's output for `inputs`."""
        names = [str(node.target) for node in self.graph.find_nodes(op="placeholder")]
        (found,) = self.run(*(inputs[name] for name in names), enable_io_processing=False)
        return found


def embedding_of(program: Program, what: str) -> str:
    """Name of the node that embeds `input_ids`; raises ModelError, beginning with `what`, if there is not exactly one.

    Other embeddings, such as of positions, are allowed.
    """
    nodes = program.graph.graph.find_nodes(op="call_function", target=_EMBEDDING)
    found = [node.name for node in nodes if getattr(node.args[1], "name", "") == "input_ids"]
    if len(found) != 1:
        raise ModelError(f"{what}: the program has {len(found)} embeddings of its words; with one it can be explained")
    return found[0]
