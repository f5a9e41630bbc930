"""``hwsearch predict``: what a network costs on a target, and where the time goes."""

from typing import TYPE_CHECKING

import click

from hwsearch.errors import TargetError

if TYPE_CHECKING:
    from hwsearch.hardware.profile import HardwareProfile
    from hwsearch.report.prediction import Priced


@click.command(name="predict")
@click.argument("model", metavar="MODEL|FILE.onnx")
@click.option("--target", help="Hardware profile: a name, an alias or a file; several as T1,T2.")
@click.option(
    "--bits",
    help="Of every layer: 8, 16, 32 or W4A8.  [default: 32, or what the file says]",
)
@click.option(
    "--px",
    type=int,
    help="Height and width of the picture.  [default: as pretrained, or as in the file]",
)
@click.option(
    "--confidence",
    type=float,
    default=0.9,
    show_default=True,
    help="Probability that the cost is inside the interval.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; a list for several targets.")
def command(
    model: str,
    target: str | None,
    bits: str | None,
    px: int | None,
    confidence: float,
    as_json: bool,
) -> None:
    """Predict what a network costs on a target, and where the time goes.

    MODEL is a timm name, your own package.module:function, or an ONNX file (fp32, fp16 or Q/DQ).

    \b
    hwsearch predict resnet18 --target jetson --bits 8
    hwsearch predict net.onnx --target jetson-nano,jetson-agx-orin
    """  # noqa: D301 - \b is click's mark for a paragraph that is not wrapped
    from hwsearch.nets.describe import describe, read_bits
    from hwsearch.report.prediction import check_confidence, predictions_json, price

    # Whatever may be refused at once comes before the network, which may take torch and seconds.
    profiles = _profiles(target)
    check_confidence(confidence)
    asked = None if bits is None else read_bits(bits)
    network = describe(model, input_px=px, bits=asked)
    several = [price(profile, network, confidence=confidence) for profile in profiles]
    if as_json:
        click.echo(predictions_json([priced.prediction for priced in several]), nl=False)
    elif len(several) == 1:
        _print_one(several[0])
    else:
        _print_comparison(several)


def _profiles(target: str | None) -> "list[HardwareProfile]":
    from hwsearch.hardware.targets import load_profile, resolve

    if target is None:
        raise TargetError("no --target was given; see hwsearch targets, or try --target jetson")
    profiles: list[HardwareProfile] = []
    for name in target.split(","):
        profile = load_profile(name.strip())
        if any(profile.name == other.name for other in profiles):
            raise TargetError(f"--target names {profile.name} twice; keep one of them")
        if resolve(name.strip())[1]:
            click.echo(f"'{name.strip()}' means {profile.name}", err=True)
        profiles.append(profile)
    return profiles


def _print_one(priced: "Priced") -> None:
    from hwsearch.cli.view import print_table
    from hwsearch.report.prediction import (
        KERNEL_COLUMNS,
        SUMMARY_COLUMNS,
        bound_rows,
        headline,
        kernel_rows,
        kind_rows,
    )

    for line in headline(priced):
        click.echo(line)
    prediction = priced.prediction
    for title, columns, rows in (
        ("costliest kernels", KERNEL_COLUMNS, kernel_rows(prediction)),
        ("by what binds them", SUMMARY_COLUMNS, bound_rows(prediction)),
        ("by kind", SUMMARY_COLUMNS, kind_rows(prediction)),
    ):
        click.echo()
        print_table(title, columns, rows)


def _print_comparison(several: "list[Priced]") -> None:
    from hwsearch.cli.view import print_table
    from hwsearch.report.prediction import COMPARISON_COLUMNS, comparison_headline, comparison_rows

    for line in comparison_headline(several):
        click.echo(line)
    click.echo()
    print_table("targets", COMPARISON_COLUMNS, comparison_rows(several))
