"""Random small networks, a device whose truth is known, and the terms of a kernel by hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache

import numpy as np
from network_builder import NetworkBuilder
from test_predictor import profile

from hwsearch.bits import FP32, LayerBits
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import WEIGHTED_KINDS, KernelDesc, KernelKind, NetworkDesc
from hwsearch.hardware.learned.fit import fit_profile
from hwsearch.hardware.learned.model import Coefficients, KernelRange
from hwsearch.hardware.learned.terms import classify, effects_of, overhead_effects
from hwsearch.hardware.learned.trees import Tree
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import TERMS

PROVENANCE = Provenance(source="simulated", reference="made up for tests", date=date(2024, 1, 2))
BLOCKS = ("dense", "pointwise", "separable", "grouped")


def random_networks(
    count: int,
    *,
    seed: int,
    bits: Sequence[LayerBits] = (FP32,),
    blocks: Sequence[str] = BLOCKS,
) -> list[NetworkDesc]:
    """Small networks of a stem, two to six blocks, a pooling and a linear layer."""
    rng = np.random.default_rng(seed)
    return [_random_network(rng, f"net{n}", bits, blocks) for n in range(count)]


def _random_network(
    rng: np.random.Generator, name: str, bits: Sequence[LayerBits], blocks: Sequence[str]
) -> NetworkDesc:
    build = NetworkBuilder(bits[int(rng.integers(len(bits)))])
    first_px, channels = int(rng.choice([32, 48, 64])), 4 * int(rng.integers(2, 12))
    px = build.conv(3, channels, first_px, window=3, stride=2)
    for _ in range(rng.integers(2, 7)):
        build.bits = bits[int(rng.integers(len(bits)))]
        wider = 4 * int(rng.integers(2, 32))
        stride = int(rng.choice([1, 1, 2])) if px > 4 else 1
        match blocks[int(rng.integers(len(blocks)))]:
            case "dense":
                px = build.conv(channels, wider, px, window=3, stride=stride, residual=stride == 1)
            case "pointwise":
                px = build.conv(channels, wider, px)
            case "separable":
                window = int(rng.choice([3, 5]))
                px = build.conv(
                    channels, channels, px, window=window, stride=stride, groups=channels
                )
                build.conv(channels, wider, px)
            case "grouped":
                px = build.conv(channels, wider, px, window=3, stride=stride, groups=4)
            case "sum":
                build.elementwise(channels, px, extra_input=channels * px**2)
                continue
        channels = wider
    build.pooling(channels, px)
    build.linear(channels, 10)
    return build.network(name, first_px)


def padding(kernel: KernelDesc, block: int, *, by_group: bool = False) -> float:
    """Padded over real MACs of one kernel, without any array."""

    def filled(channels: float, width: int) -> float:
        return math.ceil(channels / width) * width / channels

    if kernel.kind not in WEIGHTED_KINDS:
        return 1.0
    if by_group and kernel.kind is KernelKind.GROUPED:
        return filled(kernel.in_channels / kernel.groups, block) * filled(
            kernel.out_channels / kernel.groups, block
        )
    factor = filled(kernel.out_channels, block)
    if kernel.kind in {KernelKind.CONV, KernelKind.LINEAR}:
        # Stems have kernels for pictures: four channels at least.
        factor *= filled(kernel.in_channels, min(block, 4) if kernel.in_channels <= 4 else block)
    return factor


def plain_terms(target: HardwareProfile, kernel: KernelDesc) -> dict[str, float]:
    """The terms of one kernel in ms, from the rates of the profile without any array.

    The runtime fuses all it can: nothing is computed apart from the kernel.
    """
    assert not target.kernels.fuses_clips_only
    rate = target.kernels.by_kind[kernel.kind][kernel.bits]
    priced = rate.runs_as or kernel.bits
    efficiency = target.kernels.by_kind[kernel.kind][priced].compute_efficiency
    assert efficiency is not None
    peak = target.compute.by_bits[priced]
    gmac_per_s = peak.peak_gmac_per_s * efficiency
    gb_per_s = target.memory.bandwidth_gb_per_s * target.kernels.bandwidth_fraction
    padded_macs = kernel.macs * padding(kernel, peak.channel_block)
    plain_ms = {
        "floor": target.kernels.floor_us / 1e3,
        "compute": kernel.macs / gmac_per_s / 1e6,
        "waste": (padded_macs - kernel.macs) / gmac_per_s / 1e6,
        "input": kernel.input_elements * priced.activation_bits / 8 / gb_per_s / 1e6,
        "output": kernel.output_elements * priced.activation_bits / 8 / gb_per_s / 1e6,
        "weight": kernel.weight_elements * priced.weight_bits / 8 / gb_per_s / 1e6,
        "conversion": 0.0,
        "activation": 0.0,
    }
    return {term: rate.slowdown * value for term, value in plain_ms.items()}


@dataclass(frozen=True, kw_only=True)
class Device:
    """A made-up device: the terms of a profile times factors of its own, and noise.

    Attributes:
        factors: by term, by kernel kind and by bits, each for itself; 1 where there is none.
    """

    target: HardwareProfile
    factors: Mapping[str, float]
    noise: float = 0.0

    @classmethod
    def random(
        cls, target: HardwareProfile, *, seed: int, sigma: float = 0.3, noise: float = 0.0
    ) -> "Device":
        """A device whose factors are lognormal."""
        rng = np.random.default_rng(seed)
        names = [
            "floor", "compute", "waste", "input", "output", "weight", "overhead",
            "conv", "depthwise", "grouped", "linear", "pooling", "W32A32", "W16A16", "W8A8",
        ]  # fmt: skip
        factors = {name: math.exp(sigma * rng.standard_normal()) for name in names}
        return cls(target=target, factors=factors, noise=noise)

    def latency_ms(self, network: NetworkDesc) -> float:
        """The truth, without noise."""
        total_ms = self.target.kernels.network_overhead_us / 1e3 * self._factor("overhead")
        for kernel in network.kernels:
            own = self._factor(kernel.kind.value) * self._factor(str(kernel.bits))
            for term, value in plain_terms(self.target, kernel).items():
                total_ms += value * own * self._factor(term)
        return total_ms

    def measure(
        self, networks: Sequence[NetworkDesc], *, seed: int, energy_w: float | None = None
    ) -> list[Measurement]:
        """Noisy measurements; the energy is the noiseless latency at a power, plus its noise."""
        rng = np.random.default_rng(seed)
        found = []
        for network in networks:
            truth_ms = self.latency_ms(network)
            latency_noise, energy_noise = np.exp(self.noise * rng.standard_normal(2))
            found.append(
                Measurement(
                    network=network,
                    latency_ms=truth_ms * float(latency_noise),
                    energy_mj=None
                    if energy_w is None
                    else energy_w * truth_ms * float(energy_noise),
                )
            )
        return found

    def _factor(self, name: str) -> float:
        return self.factors.get(name, 1.0)


def coefficients(**changes: object) -> Coefficients:
    """Coefficients in whose ranges everything is; the roofline's own factors, two sure samples."""
    variants = ["conv.stem", "conv.pointwise", "conv.spatial", *(kind.value for kind in KernelKind)]
    everything = KernelRange(macs=(0.0, 1e15), elements=(1e-3, 1e15))
    data: dict[str, object] = {
        "prior_scale": 1.0,
        "noise_log": 0.05,
        "measured_range": (1e-6, 1e9),
        "largest_spread_log": 100.0,
        "kernel_ranges": dict.fromkeys(variants, everything),
        "effects": {"all": (0.0, 0.0, 0.0)},
    }
    return Coefficients.model_validate(data | changes)


def leaf(value: float) -> Tree:
    """A tree that says the same of everything."""
    return Tree(feature=(-1,), threshold=(value,))


def sure_effects(networks: Sequence[NetworkDesc], **values: float) -> dict[str, tuple[float, ...]]:
    """All effects of some networks, without spread; 0 where no value is given."""
    rows = classify(profile(), kernel_table(networks))
    names = [
        effect.name for one in rows.classes for term in TERMS for effect in effects_of(term, one)
    ]
    names += [effect.name for effect in overhead_effects()]
    assert set(values) <= set(names)
    return {name: (values.get(name, 0.0),) * 3 for name in names}


@cache
def small_fit(*, energy: bool = True) -> HardwareProfile:
    """A profile fitted to 16 networks of a made-up device, once for all tests."""
    device = Device.random(profile(), seed=3, noise=0.02)
    measured = device.measure(random_networks(16, seed=4), seed=5, energy_w=7.0 if energy else None)
    return fit_profile(profile(), measured, provenance=PROVENANCE)
