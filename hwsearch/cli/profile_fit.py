"""``hwsearch profile fit``: a profile from a table of networks that the user has measured."""

import datetime
from pathlib import Path

import click


@click.command(name="fit")
@click.argument("table", type=click.Path(path_type=Path), metavar="FILE.csv")
@click.option(
    "--target",
    "base",
    required=True,
    help="Profile whose rates the fit starts from: the device, or the nearest one there is.",
)
@click.option("--name", help="Of the profile.  [default: the stem of --out, or of FILE.csv]")
@click.option("--device", help="What was measured.  [default: that of --target]")
@click.option("--runtime", help="What ran the nets.  [default: that of --target]")
@click.option("--runtime-version", help="[default: that of --target]")
@click.option("--power-mode", help="Clocks, threads.  [default: that of --target]")
@click.option("--reference", help="Where the figures are from.  [default: the name of the file]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="FILE|FOLDER",
    help="What is written.  [default: hw_profiles/NAME.yaml]",
)
@click.option("--overwrite", is_flag=True, help="Replace the file that is there.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the fit.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    table: Path,
    base: str,
    name: str | None,
    device: str | None,
    runtime: str | None,
    runtime_version: str | None,
    power_mode: str | None,
    reference: str | None,
    out: Path | None,
    overwrite: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Fit a profile to a table of networks and their latencies.

    FILE.csv has a header and one network a row. Columns: net (a timm name, your own
    package.module:function, or an ONNX file beside the table), latency_ms; and, where you have
    them, px, width (share of the channels kept), bits, energy_mj, repeat_ms (measured again).

    \b
    hwsearch profile fit mine.csv --target raspberry-pi-4 --name my-board
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped
    from hwsearch.cli.measure_view import open_measure_view
    from hwsearch.cli.profile_output import output_path, save, show_fitted
    from hwsearch.hardware.file_model import Provenance
    from hwsearch.hardware.targets import load_profile

    stem = out.stem if out is not None and out.suffix == ".yaml" else table.stem
    path = output_path(out, name or stem, overwrite=overwrite)
    profile = load_profile(base)

    from hwsearch.calibrate.fitting import Identity, fit_target
    from hwsearch.calibrate.own_table import read_own_table

    identity = Identity(
        name=name or stem,
        summary=f"{device or profile.device}, {runtime or profile.runtime}, as measured",
        device=device or profile.device,
        runtime=runtime or profile.runtime,
        runtime_version=runtime_version or profile.runtime_version,
        power_mode=power_mode or profile.power_mode,
    )
    with open_measure_view() as view:
        view.phase(f"read {table}")
        own = read_own_table(
            table,
            granularity=profile.channel_granularity,
            on_read=lambda done, total: view.progress(done / total, f"net {done} of {total}"),
        )
        view.phase(f"fit {len(own.measurements)} nets")
        fitted = fit_target(
            profile,
            identity,
            own.measurements,
            provenance=Provenance(
                source="measured",
                reference=reference or f"hwsearch profile fit {table.name}",
                date=datetime.date.today(),
            ),
            noise_floor_percent=own.noise_floor_percent,
            seed=seed,
        )
    call = f"hwsearch profile fit {table.name} --target {profile.name} --name {identity.name}"
    save(fitted.profile, path, f"{call} --seed {seed}")
    show_fitted(fitted, path, as_json=as_json, more={"networks": len(own.measurements)})
