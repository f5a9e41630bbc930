"""Measure several hundred nets on this machine, for ``table_host.py`` and ``host.yaml``.

::

    python benchmarks/predictor/measure_host.py [--pool 270] [--held-out 65] [--work FOLDER]

Nets of the pool of ``hwsearch profile measure``, others drawn from the same families by another
seed, and nets of families that the pool does not have. All are measured four times, a pass through
all of them after the other, each in processes of its own: within one process a net repeats to 1 %,
but where its tensors come to lie makes it up to a tenth slower, as long as that process lives. A
net's latency is the least of all passes; ``repeat_ms`` is the least of the two passes (the even or
the odd ones) that do not hold it, so the two columns say how well such a figure repeats. Takes
about half an hour; run again after a kill, it goes on.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from hwsearch.bits import INT8
from hwsearch.calibrate.make import write_net
from hwsearch.calibrate.pool import FAMILIES, Blueprints, Family, PoolNet, draw_pool
from hwsearch.calibrate.recipe import COLUMNS
from hwsearch.hardware.measure.places import LocalPlace
from hwsearch.hardware.measure.protocol import MeasureProgress, MeasureReport, measure

_ROOT: Final = Path(__file__).resolve().parents[2]
#: Even, since halves are compared.
PASSES: Final = 4

#: None of them is in the pool. Those that concatenate pruned channels are not in either, since
#: the trace rounds what they read.
OTHER_FAMILIES: Final = (
    Family(backbone="resnet14t", input_px=(64, 96, 160)),
    Family(backbone="resnet26", input_px=(32, 64, 128)),
    Family(backbone="resnet34", input_px=(32, 64, 128)),
    Family(backbone="fbnetc_100", input_px=(64, 96, 160)),
    Family(backbone="tinynet_e", input_px=(64, 96, 160)),
    Family(backbone="semnasnet_050", input_px=(64, 96, 160)),
    Family(backbone="mobilenetv3_small_050", input_px=(64, 96, 160)),
    Family(backbone="mobilenetv4_conv_medium", input_px=(64, 96)),
    Family(backbone="tf_efficientnetv2_b0", input_px=(64, 96)),
    Family(backbone="lcnet_050", input_px=(64, 96, 160)),
    Family(backbone="regnety_002", input_px=(64, 96, 160)),
    Family(backbone="starnet_s050", input_px=(64, 96, 160)),
    Family(backbone="test_byobnet", input_px=(64, 96)),
    Family(backbone="efficientnet_lite1", input_px=(64, 96)),
    Family(backbone="resnext26ts", input_px=(64, 96)),
)


@dataclass(frozen=True, kw_only=True)
class Part:
    """Nets of one sort."""

    name: str
    seed: int
    families: Sequence[Family]


PARTS: Final = (
    Part(name="pool", seed=0, families=FAMILIES),
    Part(name="same families", seed=1, families=FAMILIES),
    Part(name="other families", seed=2, families=OTHER_FAMILIES),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pool", type=int, default=270, help="nets of the pool (default 270)")
    parser.add_argument("--held-out", type=int, default=65, help="of each other part (default 65)")
    parser.add_argument("--work", type=Path, default=_ROOT / ".measure", help="finished nets")
    parser.add_argument("--make-only", action="store_true", help="write the files, do not measure")
    parser.add_argument(
        "--out", type=Path, default=_ROOT / "results" / "published", help="folder of the CSV file"
    )
    given = parser.parse_args()
    nets = draw_parts(given.pool, given.held_out)
    files = make_files(nets, given.work)
    if given.make_only:
        return
    reports = [
        measure(files, LocalPlace(), work_folder=given.work / f"pass{number}", on_progress=_say)
        for number in range(PASSES)
    ]
    print(f"written to {write_table(nets, reports, given.out)}")


def draw_parts(pool: int, held_out: int) -> dict[str, list[PoolNet]]:
    """The nets of each part; none is in two."""
    blueprints = Blueprints()
    parts: dict[str, list[PoolNet]] = {}
    seen: set[str] = set()
    for part in PARTS:
        drawn = draw_pool(
            pool if part is PARTS[0] else held_out,
            widths=(INT8,),
            granularity=8,
            seed=part.seed,
            blueprints=blueprints,
            families=part.families,
        )
        parts[part.name] = [net for net in drawn if net.recipe.name not in seen]
        seen |= {net.recipe.name for net in drawn}
    return parts


def make_files(nets: dict[str, list[PoolNet]], work: Path) -> dict[str, Path]:
    """The ONNX files by name; those that are there are kept."""
    work.mkdir(parents=True, exist_ok=True)
    blueprints = Blueprints()
    files: dict[str, Path] = {}
    for net in (one for part in nets.values() for one in part):
        path = work / f"{net.recipe.name}.onnx"
        if not path.exists():
            blueprint = blueprints.of(net.recipe.ref, net.recipe.input_px)
            write_net(net.recipe, blueprint, path)
            print(f"made {path.name}", file=sys.stderr)
        files[net.recipe.name] = path
    return files


def write_table(
    nets: dict[str, list[PoolNet]], reports: Sequence[MeasureReport], out: Path
) -> Path:
    """Write a row for each measured net."""
    passes = [{net.name: net.latency_ms for net in report.nets} for report in reports]
    first = reports[0]
    out.mkdir(parents=True, exist_ok=True)
    conditions = f"{first.runtime}-{first.runtime_version}_threads{first.threads}"
    path = out / f"measurements_host_{conditions}_{date.today().isoformat()}.csv"
    columns = ["group", *COLUMNS, "latency_ms", "repeat_ms"]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        for part, members in nets.items():
            for net in members:
                found = [one[net.recipe.name] for one in passes if net.recipe.name in one]
                if len(found) == len(passes):
                    halves = (min(found[0::2]), min(found[1::2]))
                    row = {"group": part, **net.recipe.row()}
                    figures = {"latency_ms": min(halves), "repeat_ms": max(halves)}
                    writer.writerow(row | {key: f"{ms:.5g}" for key, ms in figures.items()})
    return path


def _say(progress: MeasureProgress) -> None:
    print(f"{progress.finished_nets} of {progress.total_nets}: {progress.text}", file=sys.stderr)


if __name__ == "__main__":
    main()
