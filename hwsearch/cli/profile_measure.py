"""``hwsearch profile measure``: a profile of a machine from nets that are timed there."""

import hashlib
import json
import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hwsearch.cli.ssh_option import ssh_option
from hwsearch.files import cache_folder

if TYPE_CHECKING:
    from hwsearch.calibrate.measuring import Plan
    from hwsearch.hardware.measure.places import Place
    from hwsearch.hardware.runtimes import Runner


@click.command(name="measure")
@click.option(
    "--on",
    "place_text",
    required=True,
    metavar="PLACE",
    help="host, cuda (its first NVIDIA GPU), or ssh://[user@]host[:port].",
)
@click.option("--name", help="Of the profile.  [default: host, cuda, or the host of ssh://]")
@click.option(
    "--base",
    default="host",
    show_default=True,
    metavar="TARGET",
    help="Profile whose rates the fit starts from; the nearest one there is.",
)
@click.option("--nets", type=int, default=30, show_default=True, help="How many are measured.")
@click.option(
    "--runtime",
    type=click.Choice(("onnxruntime", "onnxruntime-cuda", "openvino", "trtexec")),
    help="What runs the nets.  [default: ONNX Runtime]",
)
@click.option(
    "--threads", type=int, default=1, show_default=True, help="Of one net, each pinned to a core."
)
@click.option("--time-limit", default="10m", show_default=True, help="Of everything: 90s, 10m.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE|FOLDER",
    help="What is written.  [default: hw_profiles/NAME.yaml]",
)
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@click.option(
    "--work",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Of finished nets, kept.  [default: in the cache, removed when done]",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the nets and the fit.")
@click.option("--python", metavar="PATH", help="Interpreter there.  [default: python3 over ssh]")
@ssh_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    place_text: str,
    name: str | None,
    base: str,
    nets: int,
    runtime: "Runner | None",
    threads: int,
    time_limit: str,
    out: Path | None,
    overwrite: bool,
    work: Path | None,
    seed: int,
    python: str | None,
    ssh_options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure some thirty nets on a machine and write its profile.

    A killed measurement goes on when the same command is run again.

    \b
    hwsearch profile measure --on host
    hwsearch profile measure --on ssh://pi@board --base raspberry-pi-4
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped
    from hwsearch.cli.measure_view import open_measure_view
    from hwsearch.cli.profile_output import output_path, save, show_fitted
    from hwsearch.errors import RunInterrupted
    from hwsearch.hardware.measure.places import parse_place
    from hwsearch.hardware.targets import load_profile
    from hwsearch.units import parse_duration_s

    # Whatever may be refused at once comes before torch is imported, which takes seconds.
    place = parse_place(place_text, python=python, ssh_options=ssh_options)
    name = name or (out.stem if out and out.suffix == ".yaml" else _default_name(place))
    path = output_path(out, name, overwrite=overwrite)
    profile, limit_s = load_profile(base), parse_duration_s(time_limit)

    from hwsearch.calibrate.measuring import Plan, measure_target

    plan = Plan(
        name=name, place=place, base=profile, nets=nets, runtime=runtime, threads=threads,
        time_limit_s=limit_s, seed=seed,
    )  # fmt: skip
    folder = work or _cache(plan)
    try:
        with open_measure_view() as view:
            measured = measure_target(plan, folder, view)
    except KeyboardInterrupt:
        raise RunInterrupted(
            f"interrupted; what is finished is kept in {folder}, run the same command to go on"
        ) from None
    call = f"hwsearch profile measure --on {place_text.partition(':')[0]} --base {profile.name}"
    save(measured.fitted.profile, path, f"{call} --nets {nets} --threads {threads} --seed {seed}")
    if work is None:
        with suppress(OSError):
            shutil.rmtree(folder)
    report = measured.report
    show_fitted(
        measured.fitted,
        path,
        as_json=as_json,
        more={
            "nets": [
                {"name": net.name, "latency_ms": net.latency_ms, "energy_mj": net.energy_mj}
                for net in report.nets
            ],
            "refused": [{"name": net.name, "reason": net.reason} for net in report.refused],
            "drift_percent": report.drift_percent,
            "kept_nets": report.kept_nets,
            "warnings": list(report.warnings),
        },
    )


def _default_name(place: "Place") -> str:
    """A word that a target can be called: the host of an address, else "host" or "cuda"."""
    host = place.name.rpartition("@")[2].removeprefix("ssh://")
    return re.sub(r"[^a-z0-9.-]+", "-", host.lower()).strip("-.") or "board"


def _cache(plan: "Plan") -> Path:
    """Where a killed measurement finds what it had: one folder for equal plans."""
    parts = (
        plan.name, plan.place.name, plan.base.profile_hash, plan.nets, plan.threads,
        plan.runs_in, plan.seed,
    )  # fmt: skip
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]
    return cache_folder() / "measure" / f"{plan.name}-{digest}"
