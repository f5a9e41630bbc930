"""A backbone as the search sees it: kernels and groups of channels, no weights.

It is made on the meta device in well under a second, so a candidate is priced before anything is
trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hwsearch.bits import LayerBits
from hwsearch.hardware.kernel_templates import Trace
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.prune import ChannelGraph, channel_graph
from hwsearch.nets.trace import trace


@dataclass(frozen=True, kw_only=True)
class Blueprint:
    """Kernels and prunable groups of a dense backbone at one input size."""

    ref: BackboneRef
    trace: Trace
    graph: ChannelGraph

    def describe(
        self, kept: Mapping[str, int], bits: Mapping[str, LayerBits] | None = None
    ) -> NetworkDesc:
        """The fused kernels with these channels kept and these bits; fp32 where none are given."""
        channels = self.graph.out_channels(self.trace.out_channels(), kept)
        network = self.trace.describe(self.ref.name, channels)
        return network if bits is None else network.with_bits(bits)


def make_blueprint(ref: BackboneRef, input_px: int) -> Blueprint:
    """Trace a backbone and find its groups.

    Raises:
        BackboneError: it cannot be built, run at this size, traced or followed.
    """
    model = build(ref, input_px, device="meta")
    traced = trace(model, input_px)
    return Blueprint(ref=ref, trace=traced, graph=channel_graph(model, traced))
