"""Small families, what is told to a watcher, and the host's rates without any fit."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.calibrate.pool import STACK, Blueprints, Family, PoolNet, draw_pool
from hwsearch.calibrate.recipe import Recipe
from hwsearch.files import read_model
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    Family(backbone="test_resnet", input_px=(32, 48)),
    Family(backbone=STACK, arguments='{"block": "separable", "width": 16}', input_px=(32,)),
    Family(backbone=STACK, arguments='{"block": "grouped", "width": 16}', input_px=(32,)),
    Family(backbone=STACK, arguments='{"block": "plain", "width": 16}', input_px=(32,)),
)


@dataclass
class Told:
    """A watcher that remembers."""

    phases: list[str] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def progress(self, share: float, text: str) -> None:
        assert text
        self.shares.append(share)

    def note(self, text: str) -> None:
        self.notes.append(text)


def bare_host() -> HardwareProfile:
    """Rates that nobody measured, and no fit."""
    return read_model(ROOT / "benchmarks" / "predictor" / "host_prior.yaml", HardwareProfile)


@cache
def small_pool(count: int = 60) -> tuple[PoolNet, ...]:
    return tuple(
        draw_pool(
            count, widths=(INT8,), granularity=8, seed=3, blueprints=Blueprints(), families=SMALL
        )
    )


def stack_recipe(bits: LayerBits = FP32, **changes: object) -> Recipe:
    """Three stages of one 3x3 convolution: a stem, three layers, a classifier."""
    plain: dict[str, object] = {
        "backbone": STACK,
        "arguments": '{"block": "plain", "depth": 1, "width": 16}',
        "classes": 10,
        "input_px": 32,
        "kept_channels": (16, 16, 32, 64),
        "layer_bits": (bits,) * 5,
    }
    return Recipe(**{**plain, **changes})  # type: ignore[arg-type]


def as_predicted(
    profile: HardwareProfile, nets: tuple[PoolNet, ...], slower: float = 1.0
) -> list[Measurement]:
    """Measurements of a machine that does what a profile says, by a factor."""
    costs = CostPredictor(profile).predict_all([net.network for net in nets])
    return [
        Measurement(network=net.network, latency_ms=slower * cost.latency_ms.value)
        for net, cost in zip(nets, costs, strict=True)
    ]
