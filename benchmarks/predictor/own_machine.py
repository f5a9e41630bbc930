"""The correction of the host's profile on this machine: errors, admission and bits.

::

    python benchmarks/predictor/own_machine.py [--seeds 2] [--quick]

The networks that a run of the tiny space times before its search are timed here as it does, and
then networks that it does not know: of each backbone and input size, pruned at random in each
stage, in fp32, in int8, in bits at random, and in the cheapest bits by the profile alone and by the
corrected one. Three tables: how far predictions lie off below and above 0.1 ms, with all backbones
timed and with one left out at a time; which networks are admitted to a budget and hold it; and what
the cheapest bits took. Intervals are those of 90 %.
"""

import argparse
import math
import random
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from scores import CONFIDENCE, Forecast, coverage_percent
from table_output import Options, Row, show

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.calibrate.make import write_network
from hwsearch.hardware.cost import Prediction
from hwsearch.hardware.kernel_table import Floats
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.measure.protocol import measure
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.recalibration import Recalibration, TimedNetwork, recalibrate
from hwsearch.hardware.targets import load_profile
from hwsearch.nets.blueprint import Blueprint
from hwsearch.space.knobs import SAVINGS, dense
from hwsearch.space.search_space import SearchSpace, load_space
from hwsearch.study.asked.settings import RunSettings
from hwsearch.study.candidates.pricing_context import PricingContext
from hwsearch.study.own_machine import Network, timed_networks

_ROOT: Final = Path(__file__).resolve().parents[2]
#: Where the errors of the one factor change their sign.
SMALL_MS: Final = 0.1
BUDGETS_MS: Final = (0.045, 0.055, 0.07, 0.09, 0.12, 0.3)
#: Rounds of the networks that predictions are held against.
_ROUNDS: Final = 20
#: Variants that every backbone was timed in when one factor was learned.
_OF_ONE_FACTOR: Final = ("dense fp32", "dense int8", "half cheapest")


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A network that was timed.

    Attributes:
        kind: its bits, or which variant of the timed ones it is.
        draw: networks of one number have the same channels.
    """

    backbone: str
    input_px: int
    kind: str
    draw: int
    network: NetworkDesc
    latency_ms: float


#: From the timed networks and those that are asked for to predictions.
Method = Callable[[Sequence[Measured], Sequence[Measured]], list[Prediction]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=2, help="draws of networks (default 2)")
    parser.add_argument("--quick", action="store_true", help="a small part, to see that it runs")
    parser.add_argument(
        "--out", type=Path, default=_ROOT / "results" / "published", help="folder of the CSV files"
    )
    given = parser.parse_args()
    options = Options(data=given.out, seeds=given.seeds, quick=given.quick, out=given.out)
    space = load_space("tiny")
    if given.quick:
        space = space.model_copy(update={"backbones": space.backbones[1:3]})
    pricing = _pricing(space)
    timed = time_known(pricing)
    known = _learned(pricing.predictor, timed)
    print(known.told(pricing.profile.name), "\n")
    unknown = time_unknown(pricing, known, draws=1 if given.quick else 2 * given.seeds)
    conditions = f"tiny-onnxruntime-{options.size}"
    methods = methods_of(pricing.predictor)
    show(errors(methods, timed, unknown), options, "own-machine", conditions)
    show(admissions(methods, timed, unknown), options, "own-machine-admission", conditions)
    show(cheapest_bits(unknown), options, "own-machine-bits", conditions)
    show(_listed(methods, timed, unknown), options, "own-machine-networks", conditions)


def _pricing(space: SearchSpace) -> PricingContext:
    settings = RunSettings(
        target="host", budget_texts=("0.3ms",), objectives=("latency",), space=space
    )
    return PricingContext(settings, load_profile("host"), classes=10)


# -- what is timed ---------------------------------------------------------------------------------


def time_known(pricing: PricingContext) -> list[Measured]:
    """The networks that a run times before its search, and those that one factor was learned on."""
    plans = [("before the search", network) for _, network in timed_networks(pricing)]
    px = min(pricing.settings.space.input_px)
    ratios = pricing.settings.space.pruning.ratios
    for backbone in pricing.settings.space.backbones:
        knobs = dense(backbone.name, px)
        blueprint = pricing.backbones.blueprint(knobs)
        half = replace(knobs, prune=(ratios[len(ratios) // 2],) * 4)
        for kind, asked in zip(_OF_ONE_FACTOR, (knobs, knobs, half), strict=True):
            kept = pricing.plain_channels(asked)
            layers = blueprint.describe(kept).weighted
            bits = {
                "dense fp32": dict.fromkeys((one.name for one in layers), FP32),
                "dense int8": dict.fromkeys((one.name for one in layers), INT8),
                "half cheapest": pricing.bit_costs.allocate(blueprint.describe(kept), 1.0),
            }[kind]
            plans.append((kind, (blueprint, kept, bits)))
    return _time(pricing, [(kind, number, one) for number, (kind, one) in enumerate(plans)], 10)


def time_unknown(pricing: PricingContext, known: Recalibration, *, draws: int) -> list[Measured]:
    """Networks of every backbone and size, pruned at random, each in several bits."""
    rng = random.Random(0)
    corrected = replace(
        pricing.bit_costs,
        predictor=CostPredictor(pricing.profile, pricing.settings.confidence, known),
    )
    plans: list[tuple[str, int, Network]] = []
    space = pricing.settings.space
    for backbone in space.backbones:
        for px in space.input_px:
            for _ in range(draws):
                prune = tuple(rng.choice(space.pruning.ratios) for _ in range(4))
                knobs = replace(dense(backbone.name, px), prune=prune)
                blueprint, kept = pricing.backbones.blueprint(knobs), pricing.plain_channels(knobs)
                network = blueprint.describe(kept)
                names = [layer.name for layer in network.weighted]
                share, saving = rng.random(), rng.choice(SAVINGS[1:])
                several: dict[str, dict[str, LayerBits]] = {
                    "fp32": dict.fromkeys(names, FP32),
                    "int8": dict.fromkeys(names, INT8),
                    "mixed": {n: INT8 if rng.random() < share else FP32 for n in names},
                    "saving": corrected.allocate(network, saving, protected=(names[0], names[-1])),
                    "cheapest, profile alone": pricing.bit_costs.allocate(network, 1.0),
                    "cheapest, corrected": corrected.allocate(network, 1.0),
                }
                draw = len(plans)
                plans += [(kind, draw, (blueprint, kept, bits)) for kind, bits in several.items()]
    return _time(pricing, plans, _ROUNDS)


def _time(
    pricing: PricingContext, plans: Sequence[tuple[str, int, Network]], rounds: int
) -> list[Measured]:
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="hwsearch-") as folder:
        # Bits that two allocations agree on make one network, which is timed once.
        first: dict[NetworkDesc, str] = {}
        names = []
        for number, (_, _, (blueprint, kept, bits)) in enumerate(plans):
            name = first.setdefault(blueprint.describe(kept, bits), str(number))
            names.append(name)
            if name == str(number):
                files[name] = Path(folder) / f"{number}.onnx"
                _write(pricing, blueprint, kept, bits, files[name])
        report = measure(files, LocalPlace(), rounds=rounds)
    took = {net.name: net.latency_ms for net in report.nets}
    return [
        Measured(
            backbone=blueprint.ref.name,
            input_px=blueprint.trace.input_px,
            kind=kind,
            draw=draw,
            network=blueprint.describe(kept, bits),
            latency_ms=took[name],
        )
        for name, (kind, draw, (blueprint, kept, bits)) in zip(names, plans, strict=True)
    ]


def _write(
    pricing: PricingContext,
    blueprint: Blueprint,
    kept: Mapping[str, int],
    bits: Mapping[str, LayerBits],
    path: Path,
) -> None:
    write_network(blueprint, kept, bits, path, scheme=pricing.profile.activation_quantization)


# -- what is compared ------------------------------------------------------------------------------


def methods_of(predictor: CostPredictor) -> dict[str, Method]:
    """The profile alone, with one factor as runs had it before, and with a factor for each part."""

    def alone(_: Sequence[Measured], asked: Sequence[Measured]) -> list[Prediction]:
        return [cost.latency_ms for cost in predictor.predict_all([one.network for one in asked])]

    def one_factor(timed: Sequence[Measured], asked: Sequence[Measured]) -> list[Prediction]:
        return with_one_factor(
            alone(timed, timed), [one.latency_ms for one in timed], alone(timed, asked)
        )

    def before(timed: Sequence[Measured], asked: Sequence[Measured]) -> list[Prediction]:
        return one_factor([one for one in timed if one.kind in _OF_ONE_FACTOR], asked)

    def same(timed: Sequence[Measured], asked: Sequence[Measured]) -> list[Prediction]:
        return one_factor(_before_search(timed), asked)

    def parts(timed: Sequence[Measured], asked: Sequence[Measured]) -> list[Prediction]:
        corrected = CostPredictor(predictor.profile, CONFIDENCE, _learned(predictor, timed))
        return [cost.latency_ms for cost in corrected.predict_all([one.network for one in asked])]

    return {
        "profile alone": alone,
        "one factor, 3 networks each": before,
        "one factor, 5 networks each": same,
        "a factor for each part, 5 networks each": parts,
    }


def with_one_factor(
    known: Sequence[Prediction], measured_ms: Sequence[float], asked: Sequence[Prediction]
) -> list[Prediction]:
    """Predictions times one factor, as runs of version 0.1.0 corrected them (machine sigma 1)."""
    count = len(known)
    ratios = np.log(np.array(measured_ms) / np.array([one.value for one in known]))
    said = sum(one.sigma_log**2 for one in known) / count
    own = (4.0 * said + float(((ratios - ratios.mean()) ** 2).sum())) / (4.0 + count - 1)
    shared = 1 / (1 + count / own)
    factor = math.exp(shared * count * float(ratios.mean()) / own)
    share = math.sqrt(own + shared) / math.sqrt(said)
    return [
        Prediction.lognormal(
            median=factor * one.value, sigma_log=share * one.sigma_log, confidence=one.confidence
        )
        for one in asked
    ]


def _before_search(timed: Sequence[Measured]) -> list[Measured]:
    return [one for one in timed if one.kind not in _OF_ONE_FACTOR]


def _learned(predictor: CostPredictor, timed: Sequence[Measured]) -> Recalibration:
    several = {str(number): one for number, one in enumerate(_before_search(timed))}
    known: list[TimedNetwork] = predictor.predict_timed(
        {name: one.network for name, one in several.items()},
        {name: one.latency_ms for name, one in several.items()},
    )
    spread = predictor.profile.interval.latency_sigma_log
    return recalibrate(known, machine_sigma_log=spread)


# -- tables ----------------------------------------------------------------------------------------


def errors(
    methods: Mapping[str, Method], timed: Sequence[Measured], asked: Sequence[Measured]
) -> list[Row]:
    """Errors in the logarithm, below and above 0.1 ms, and of the small ones by bits."""
    asked = _distinct(asked)
    small = np.array([one.latency_ms < SMALL_MS for one in asked])
    kinds = np.array([one.kind for one in asked])
    parts = {
        f"below {SMALL_MS} ms": small,
        f"from {SMALL_MS} ms": ~small,
        f"fp32 below {SMALL_MS} ms": small & (kinds == "fp32"),
        f"int8 below {SMALL_MS} ms": small & (kinds == "int8"),
    }
    rows: list[Row] = []
    for timed_as in ("all backbones", "all but that one"):
        for method, predict in methods.items():
            if timed_as == "all backbones":
                predictions = predict(timed, asked)
            else:
                predictions = _left_out(predict, timed, asked)
            for part, chosen in parts.items():
                if chosen.any():
                    found = _scores(asked, predictions, chosen)
                    rows.append({"timed": timed_as, "method": method, "part": part, **found})
    return rows


def _left_out(
    predict: Method, timed: Sequence[Measured], asked: Sequence[Measured]
) -> list[Prediction]:
    found: dict[int, Prediction] = {}
    for backbone in {one.backbone for one in asked}:
        at = [number for number, one in enumerate(asked) if one.backbone == backbone]
        others = [one for one in timed if one.backbone != backbone]
        found |= dict(zip(at, predict(others, [asked[n] for n in at]), strict=True))
    return [found[number] for number in range(len(asked))]


def _scores(
    asked: Sequence[Measured], predictions: Sequence[Prediction], chosen: np.ndarray
) -> dict[str, int | float | None]:
    measured = np.array([one.latency_ms for one in asked])[chosen]
    forecast = Forecast(
        value=np.array([one.value for one in predictions])[chosen],
        sigma_log=np.array([one.sigma_log for one in predictions])[chosen],
    )
    assert forecast.sigma_log is not None
    left: Floats = np.log(measured / forecast.value)
    return {
        "networks": len(left),
        "bias_percent": 100 * math.expm1(float(left.mean())),
        "rms_log_percent": 100 * float(np.sqrt((left**2).mean())),
        "coverage_percent": coverage_percent(measured, forecast),
        "sigma_log_percent": 100 * float(forecast.sigma_log.mean()),
    }


def admissions(
    methods: Mapping[str, Method], timed: Sequence[Measured], asked: Sequence[Measured]
) -> list[Row]:
    """Which networks are admitted to a budget at 90 %, and which of them hold it."""
    asked = _distinct(asked)
    measured = np.array([one.latency_ms for one in asked])
    rows: list[Row] = []
    for method, predict in methods.items():
        upper = np.array([one.upper(CONFIDENCE) for one in predict(timed, asked)])
        for budget_ms in BUDGETS_MS:
            admitted, within = upper <= budget_ms, measured <= budget_ms
            rows.append(
                {
                    "method": method,
                    "budget_ms": budget_ms,
                    "within": int(within.sum()),
                    "admitted": int(admitted.sum()),
                    "admitted_and_within": int((admitted & within).sum()),
                }
            )
    return rows


def cheapest_bits(asked: Sequence[Measured]) -> list[Row]:
    """What the bits took that were said to cost the least, beside the faster of fp32 and int8."""
    rows: list[Row] = []
    backbones = list(dict.fromkeys(one.backbone for one in asked))
    for backbone in (*backbones, "all"):
        took: dict[str, list[float]] = {}
        for one in asked:
            if backbone in (one.backbone, "all"):
                took.setdefault(one.kind, []).append(math.log(one.latency_ms))
        best = np.minimum(took["fp32"], took["int8"])
        row: dict[str, str | int | float] = {"backbone": backbone, "networks": len(best)}
        for kind in ("fp32", "int8", "cheapest, profile alone", "cheapest, corrected"):
            mean = float((np.array(took[kind]) - best).mean())
            row[f"{kind.replace(', ', '_').replace(' ', '_')}_over_best"] = math.exp(mean)
        rows.append(row)
    return rows


def _listed(
    methods: Mapping[str, Method], timed: Sequence[Measured], asked: Sequence[Measured]
) -> list[Row]:
    everything = [*timed, *asked]
    of_method = [predict(timed, everything) for predict in methods.values()]
    alone, corrected = of_method[0], of_method[-1]
    return [
        {
            "backbone": one.backbone,
            "input_px": one.input_px,
            "kind": one.kind,
            "kept_channels": "x".join(str(k.out_channels) for k in one.network.weighted),
            "layer_bits": " ".join(str(k.bits) for k in one.network.weighted),
            "timed_before": one in timed,
            "measured_ms": one.latency_ms,
            "profile_alone_ms": before.value,
            "corrected_ms": after.value,
            "corrected_low_ms": after.low,
            "corrected_high_ms": after.high,
        }
        for one, before, after in zip(everything, alone, corrected, strict=True)
    ]


def _distinct(asked: Sequence[Measured]) -> list[Measured]:
    """Every network once: allocations may agree with each other, or with uniform bits."""
    return list({one.network: one for one in reversed(asked)}.values())


if __name__ == "__main__":
    main()
