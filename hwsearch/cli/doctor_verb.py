"""``hwsearch doctor``: what this machine has, what it lacks, and what that is for."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Literal

import click

from hwsearch.errors import HostError

#: Packages that every run uses; all of them come with hwsearch.
_NEEDED: Final = ("torch", "torchvision", "timm", "torch-pruning", "optuna", "onnx", "onnxruntime")
#: Programs that some verbs call: how they are called, what for, and how to get them.
_PROGRAMS: Final = (
    ("ssh", "measuring and verifying on a board", "install an OpenSSH client"),
    ("nvidia-smi", "measuring on an NVIDIA GPU of this machine", "install NVIDIA's driver"),
    ("trtexec", "timing TensorRT engines on this machine", "it comes with TensorRT"),
)
#: A base network takes some megabytes, the decoded pictures of a data set up to a few gigabytes.
_ENOUGH_BYTES: Final = 2e9

State = Literal["ok", "missing", "optional"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        state: "missing" is an error, "optional" something that a run does without.
        found: version, path or amount.
        advice: what to do, or what it would be for; empty where all is well.
    """

    name: str
    state: State
    found: str
    advice: str = ""


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(as_json: bool) -> None:
    """Say what this machine has and what it lacks for a run.

    Exit code 3 if something is missing that every run needs.
    """
    from hwsearch.cli.view import print_table

    findings = list(examine())
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        rows = [(one.name, one.state, one.found, one.advice) for one in findings]
        print_table("this machine", ("what", "state", "found", "what to do"), rows)
    missing = [finding.name for finding in findings if finding.state == "missing"]
    if missing:
        raise HostError(f"missing: {', '.join(missing)}; do what stands beside each, above")


def examine() -> Iterator[Finding]:
    """Look at packages, processor, folders and programs; nothing is imported or changed."""
    for name in _NEEDED:
        version = _version(name)
        advice = "" if version else "install hwsearch again: pip install hwsearch"
        yield Finding(
            name=name, state="ok" if version else "missing", found=version or "-", advice=advice
        )
    yield _extra("openvino", "the second runtime of this machine: pip install 'hwsearch[openvino]'")
    cores = len(os.sched_getaffinity(0))
    yield Finding(name="processor cores", state="ok", found=str(cores))
    from hwsearch.files import cache_folder

    yield _folder("cache folder", cache_folder())
    for program, purpose, remedy in _PROGRAMS:
        path = shutil.which(program)
        advice = "" if path else f"only for {purpose}; {remedy}"
        yield Finding(
            name=program, state="ok" if path else "optional", found=path or "-", advice=advice
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _extra(package: str, advice: str) -> Finding:
    version = _version(package)
    return Finding(
        name=package,
        state="ok" if version else "optional",
        found=version or "-",
        advice="" if version else f"only for {advice}",
    )


def _folder(name: str, path: Path) -> Finding:
    """Whether a file can be made in a folder, or in the nearest one above it that there is."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    elsewhere = "set HWSEARCH_CACHE to another folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as error:
        return Finding(
            name=name, state="missing", found=f"{path} ({error.strerror})", advice=elsewhere
        )
    found = f"{path}, {free / 1e9:.1f} GB free"
    if free < _ENOUGH_BYTES:
        return Finding(name=name, state="missing", found=found, advice=f"free 2 GB, or {elsewhere}")
    return Finding(name=name, state="ok", found=found)
