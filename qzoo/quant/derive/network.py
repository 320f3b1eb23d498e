"""The network that a graph describes, with the modules and the state dict of the one that it was traced from."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import fx, nn

from qzoo.quant.derive.rewrite import LeftInFloat, owner_of

_STATE = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


class Origin(NamedTuple):
    """Where an operator of the graph comes from: the path of the module that calls it, and the lines that led there."""

    module: str
    stack_trace: str


class DerivedNetwork(nn.Module):
    """Computes what a graph says with the modules of a network, unused ones included: paths and state dict are its.

    `left_in_float` is what no quantizer will be put on, and why. `computed` names the weights in its state dict that
    the other network computes from its own in every call, and that are parameters here. `origins` are those of the
    operators, by the names that their results have in the graph's code.
    """

    def __init__(
        self, network: nn.Module, graph: fx.Graph, left_in_float: tuple[LeftInFloat, ...], computed: frozenset[str]
    ) -> None:
        super().__init__()
        for name in _STATE:
            self.__dict__[name] = vars(network)[name]
        self.training = network.training
        self.left_in_float, self.computed = left_in_float, computed
        self.origins = {node.name: Origin(owner_of(node), node.stack_trace or "") for node in graph.nodes}
        self._code = type(fx.GraphModule(network, graph)).forward

    def forward(self, input: Any) -> Any:  # noqa: A002, ANN401 - as the network it was traced from
        """What the network gives."""
        return self._code(self, input)
