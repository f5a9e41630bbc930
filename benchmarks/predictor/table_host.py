"""This machine: nets never measured, predicted from 25, 50, 100 and 250 that were.

::

    python benchmarks/predictor/table_host.py [FILE.csv] [--seeds 3] [--quick]

FILE.csv is what ``measure_host.py`` wrote; by default the one in ``results/published``. The nets to
fit to are those of the pool that ``hwsearch profile measure`` would choose, in its order; with
"random" they are drawn. Asked for are nets of the same families (pruned and quantized otherwise)
and nets of other families. Intervals are those of 90 %.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from peers import Method, Ours, measured, peers
from scores import Scores, score, spread_columns
from table_output import Options, Row, show

from hwsearch.calibrate.own_table import read_own_table
from hwsearch.files import read_model
from hwsearch.hardware.kernel_table import Ints, kernel_table
from hwsearch.hardware.learned.choose import choose_networks
from hwsearch.hardware.learned.terms import classify, latency_terms, sum_terms
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile

_ROOT: Final = Path(__file__).resolve().parents[2]
SIZES: Final = (25, 50, 100, 250)
QUICK_SIZES: Final = (10, 25)
POOL: Final = "pool"
Choice = Literal["chosen", "random"]
#: What ``host`` said before anything was measured; its rates now know the held-out nets.
PRIOR: Final = Path(__file__).with_name("host_prior.yaml")


@dataclass(frozen=True, kw_only=True)
class Nets:
    """The measurements of one file.

    Attributes:
        pool: that may be fitted to.
        held_out: by part.
        repeat_percent: of each net, how far its two measurements lie apart.
    """

    pool: tuple[Measurement, ...]
    held_out: dict[str, tuple[Measurement, ...]]
    repeat_percent: tuple[float, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="of measure_host.py")
    parser.add_argument("--seeds", type=int, default=3, help="random choices (default 3)")
    parser.add_argument("--quick", action="store_true", help="a small part, to see that it runs")
    parser.add_argument(
        "--out", type=Path, default=_ROOT / "results" / "published", help="folder of the CSV file"
    )
    given = parser.parse_args()
    path = given.file or newest(given.out)
    nets = read_nets(path)
    print(f"{path.name}: {repeatability(nets)}\n")
    options = Options(data=path.parent, seeds=given.seeds, quick=given.quick, out=given.out)
    rows = table(nets, prior(), seeds=given.seeds, sizes=QUICK_SIZES if given.quick else SIZES)
    show(rows, options, "host", f"x86-onnxruntime-{options.size}")


def newest(folder: Path) -> Path:
    """The last table of measurements in a folder, by the date in its name."""
    found = sorted(folder.glob("measurements_host_*.csv"))
    if not found:
        sys.exit(f"{folder} holds no measurements_host_*.csv; run measure_host.py first")
    return found[-1]


def read_nets(path: Path) -> Nets:
    """The measurements by part."""
    own = read_own_table(path, granularity=8).measurements
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    pairs = [(float(row["latency_ms"]), float(row["repeat_ms"])) for row in rows]
    parts = dict.fromkeys(one.group for one in own)
    return Nets(
        pool=tuple(one for one in own if one.group == POOL),
        held_out={
            part: tuple(one for one in own if one.group == part) for part in parts if part != POOL
        },
        repeat_percent=tuple(200 * abs(a - b) / (a + b) for a, b in pairs),
    )


def prior() -> HardwareProfile:
    """The rates that were declared before anything was measured."""
    return read_model(PRIOR, HardwareProfile)


def repeatability(nets: Nets) -> str:
    """How well two measurements of one net agree, over all nets."""
    values = np.array(nets.repeat_percent)
    within = 100 * float((values <= 2).mean())
    return (
        f"{len(values)} nets measured twice; two measurements differ by {np.median(values):.2f} % "
        f"(median), {np.quantile(values, 0.9):.2f} % (nine tenths), {within:.0f} % of the nets "
        "within 2 %"
    )


def table(
    nets: Nets, profile: HardwareProfile, *, seeds: int, sizes: Sequence[int] = SIZES
) -> list[Row]:
    """The scores of every method, by number of nets and part; random choices spread over seeds."""
    everything = tuple(one for part in nets.held_out.values() for one in part)
    parts = {**nets.held_out, "all held out": everything}
    rows: list[Row] = []
    for size in (size for size in sizes if size <= len(nets.pool)):
        for choice in ("chosen", "random"):
            found: dict[tuple[str, str], list[Scores]] = {}
            for seed in range(1 if choice == "chosen" else seeds):
                train = _train(nets.pool, profile, size, choice, seed)
                for method in (*peers(seed), Ours(profile=profile, seed=seed)):
                    for part, scored in _scores(method, train, parts).items():
                        found.setdefault((part, method.name), []).append(scored)
            rows += [
                {
                    "nets": size, "choice": choice, "part": part,
                    "held_out": len(parts[part]), "method": name, **spread_columns(scores),
                }
                for (part, name), scores in found.items()
            ]  # fmt: skip
    return rows


def chosen_order(profile: HardwareProfile, pool: Sequence[Measurement], count: int) -> Ints:
    """Positions of the nets that ``hwsearch profile measure`` would measure, in its order."""
    rows = classify(profile, kernel_table([one.network for one in pool]))
    return choose_networks(sum_terms(rows, *latency_terms(profile, rows)), count)


def _train(
    pool: Sequence[Measurement], profile: HardwareProfile, size: int, choice: Choice, seed: int
) -> list[Measurement]:
    if choice == "chosen":
        return [pool[at] for at in chosen_order(profile, pool, size)]
    drawn = np.random.default_rng(seed).choice(len(pool), size, replace=False)
    return [pool[at] for at in drawn]


def _scores(
    method: Method, train: Sequence[Measurement], parts: dict[str, tuple[Measurement, ...]]
) -> dict[str, Scores]:
    fitted = method.fit(train, "latency")
    return {
        part: score(measured(rows, "latency"), fitted.predict([one.network for one in rows]))
        for part, rows in parts.items()
    }


if __name__ == "__main__":
    main()
