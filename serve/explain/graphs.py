"""Exported programs, run with other values in them than their inputs give: gradients need numbers to start from."""

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
    """One pass through a program's graph, in which some nodes have values that were given."""

    def __init__(self, program: Program, given: Mapping[str, torch.Tensor]) -> None:
        super().__init__(program.graph)
        self.given = given
        self.seen: dict[str, torch.Tensor] = {}
        """Values of the nodes that look something up in a table of embeddings."""

    def run_node(self, node: Node) -> Any:
        """The node's value; pixels that are numbers already are not asked whether they are bytes."""
        if node.name in self.given:
            return self.given[node.name]
        if node.target is _METADATA:
            return None
        found = super().run_node(node)
        if node.target is _EMBEDDING:
            self.seen[node.name] = found
        return found

    def outputs(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the program makes of `inputs`."""
        names = [str(node.target) for node in self.graph.find_nodes(op="placeholder")]
        (found,) = self.run(*(inputs[name] for name in names), enable_io_processing=False)
        return found


def embedding_of(program: Program, what: str) -> str:
    """The node that turns `input_ids` into embeddings; ModelError, which begins with `what`, where it is not just one.

    Beside it there may be embeddings of other things, such as places.
    """
    nodes = program.graph.graph.find_nodes(op="call_function", target=_EMBEDDING)
    found = [node.name for node in nodes if getattr(node.args[1], "name", "") == "input_ids"]
    if len(found) != 1:
        raise ModelError(f"{what}: the program has {len(found)} embeddings of its words; with one it can be explained")
    return found[0]
