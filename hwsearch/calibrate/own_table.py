"""A table of measured networks, as a user writes it or a benchmark of this project does.

One network a row: ``net`` is a timm name, ``package.module:function`` or an ONNX file (a path from
where the table lies), ``latency_ms`` what it takes. All other columns may be left out or empty.
"""

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hwsearch.bits import FP32
from hwsearch.calibrate.pool import Blueprints
from hwsearch.calibrate.recipe import Recipe, read_channels, read_layer_bits
from hwsearch.errors import FileModelError, UserError
from hwsearch.files import nearest
from hwsearch.hardware.kernels import NetworkDesc
from hwsearch.hardware.learned.fit import LEAST_NETWORKS
from hwsearch.hardware.measure.protocol import noise_floor_percent
from hwsearch.hardware.measurements import Measurement
from hwsearch.nets.backbone import BackboneRef
from hwsearch.nets.describe import CLASSES, describe, read_bits

#: Each column with what it holds.
COLUMNS: Final[Mapping[str, str]] = {
    "net": "timm name, package.module:function, or ONNX file",
    "latency_ms": "of one inference at batch 1",
    "energy_mj": "of one inference",
    "repeat_ms": "a second measurement of the same, for the noise floor",
    "px": "height and width of the picture",
    "width": "share of its channels that every prunable group keeps, above 0 up to 1",
    "bits": "of every layer: 8, 16, 32, int8 or W8A8",
    "group": "what the network has in common with others",
    "classes": "outputs",
    "arguments": "of the function, as JSON",
    "kept_channels": "of each prunable group, in running order",
    "layer_bits": "of each weighted layer, in running order",
}
_NEEDED: Final = ("net", "latency_ms")
_OF_NAMES: Final = ("width", "classes", "arguments", "kept_channels", "layer_bits")
_LARGEST_TABLE_BYTES: Final = 50_000_000


@dataclass(frozen=True, kw_only=True)
class OwnTable:
    """What a table holds.

    Attributes:
        noise_floor_percent: how far two measurements of one net lie apart; None where there is
            only one of each.
    """

    measurements: tuple[Measurement, ...]
    noise_floor_percent: float | None


def read_own_table(
    path: Path,
    *,
    granularity: int,
    on_read: Callable[[int, int], None] | None = None,
) -> OwnTable:
    """Read a table.

    Args:
        path: of the CSV file.
        granularity: ``width`` is rounded so that channels are multiples of it.
        on_read: called with how many rows are read and how many there are.

    Raises:
        FileModelError: all mistakes at once, each as ``file:line: what``.
        HostError: a package that a network needs is not installed.
    """
    rows, misshapen = _rows(path)
    reader = _Reader(folder=path.parent, granularity=granularity, blueprints=Blueprints())
    problems = list(misshapen)
    measurements: list[Measurement] = []
    repeats: list[tuple[float, float]] = []
    for number, (line, row) in enumerate(rows, start=1):
        try:
            measurement, repeat_ms = reader.measurement(row)
        except UserError as error:
            problems += [(line, text) for text in str(error).splitlines()]
            continue
        finally:
            if on_read is not None:
                on_read(number, len(rows))
        measurements.append(measurement)
        if repeat_ms is not None:
            repeats.append((measurement.latency_ms, repeat_ms))
    if not problems and len(measurements) < LEAST_NETWORKS:
        few = f"{len(measurements)} networks are too few to fit a profile"
        problems.append((1, f"{few}; give at least {LEAST_NETWORKS}"))
    if problems:
        raise _mistakes(path, problems)
    noise = float(f"{noise_floor_percent(repeats):.2g}") if repeats else None
    return OwnTable(measurements=tuple(measurements), noise_floor_percent=noise)


@dataclass(frozen=True, kw_only=True)
class _Reader:
    folder: Path
    granularity: int
    blueprints: Blueprints

    def measurement(self, row: Mapping[str, str]) -> tuple[Measurement, float | None]:
        """One row; the message of a UserError has a line for each mistake."""
        problems: list[str] = []

        def read(column: str) -> Any:  # noqa: ANN401 - what the column holds
            text = row.get(column, "")
            if not text:
                if column in _NEEDED:
                    problems.append(f"{column} is missing: {COLUMNS[column]}")
                return None
            try:
                return _PARSERS[column](text)
            except UserError as error:
                problems.append(str(error))
            except ValueError as error:
                problems.append(f"{column} {error}")
            return None

        structure = {column: read(column) for column in _STRUCTURE}
        network = None
        if not problems:
            try:
                network = self._network(structure, [one for one in _OF_NAMES if row.get(one)])
            except UserError as error:
                problems.append(str(error))
        figures = {column: read(column) for column in _FIGURES}
        if problems or network is None:
            raise UserError("\n".join(problems))
        measurement = Measurement(
            network=network,
            latency_ms=figures["latency_ms"],
            energy_mj=figures["energy_mj"],
            group=row.get("group", "") or structure["net"],
        )
        return measurement, figures["repeat_ms"]

    def _network(self, given: Mapping[str, Any], of_names: Sequence[str]) -> NetworkDesc:
        """The kernels of a row, from what its columns hold."""
        net: str = given["net"]
        if net.endswith(".onnx"):
            if of_names:
                raise UserError(f"a file has its own {', '.join(of_names)}; leave that empty")
            return describe(str(self.folder / net), input_px=given["px"], bits=given["bits"])
        if not of_names:
            return describe(net, input_px=given["px"], bits=given["bits"])
        if given["px"] is None:
            raise UserError(f"px is needed beside {', '.join(of_names)}; give the picture's size")
        for one, other in (("bits", "layer_bits"), ("width", "kept_channels")):
            if given[one] is not None and given[other] is not None:
                raise UserError(f"{one} and {other} are both given; keep one of them")
        return self._built(net, given)

    def _built(self, net: str, given: Mapping[str, Any]) -> NetworkDesc:
        ref = BackboneRef(
            name=net, classes=given["classes"] or CLASSES, arguments=given["arguments"] or "{}"
        )
        blueprint = self.blueprints.of(ref, given["px"])
        layers = sum(kernel.weighted for kernel in blueprint.trace.kernels)
        kept = tuple(
            kept_of(given["width"] or 1.0, group.channels, self.granularity)
            for group in blueprint.graph.groups
        )
        recipe = Recipe(
            backbone=net,
            arguments=ref.arguments,
            classes=ref.classes,
            input_px=given["px"],
            kept_channels=kept if given["kept_channels"] is None else given["kept_channels"],
            layer_bits=given["layer_bits"] or (given["bits"] or FP32,) * layers,
        )
        return self.blueprints.describe(recipe)


def kept_of(share: float, channels: int, granularity: int) -> int:
    """So many channels are a share, as a multiple of ``granularity``; all of them are a whole."""
    if share == 1:
        return channels
    return min(channels, max(1, round(share * channels / granularity)) * granularity)


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a number") from None
    if not 0 < value < math.inf:
        raise ValueError(f"{text} is not positive and finite")
    return value


def _share(text: str) -> float:
    value = _positive(text)
    if value > 1:
        raise ValueError(f"{text} is not a share of the channels, above 0 up to 1")
    return value


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"'{text}' is not a whole number from 1 up")
    return int(text)


def _json(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise ValueError(f"'{text}' is not a JSON object")
    return json.dumps(value, sort_keys=True)


#: What says which network it is, and what was measured.
_STRUCTURE: Final = (
    "net", "px", "width", "bits", "classes", "arguments", "kept_channels", "layer_bits",
)  # fmt: skip
_FIGURES: Final = ("latency_ms", "energy_mj", "repeat_ms")
_PARSERS: Final[Mapping[str, Callable[[str], object]]] = {
    "net": str, "px": _whole, "width": _share, "bits": read_bits, "classes": _whole,
    "arguments": _json, "kept_channels": read_channels, "layer_bits": read_layer_bits,
    **dict.fromkeys(_FIGURES, _positive),
}  # fmt: skip


_Problem = tuple[int, str]


def _mistakes(path: Path, problems: Sequence[_Problem]) -> FileModelError:
    return FileModelError("\n".join(f"{path}:{line}: {text}" for line, text in sorted(problems)))


def _rows(path: Path) -> tuple[list[tuple[int, dict[str, str]]], list[_Problem]]:
    """The rows with their lines, and the lines that are none.

    Raises:
        FileModelError: no such file, no table, or columns that nobody knows.
    """
    reader = csv.reader(_text(path).splitlines(keepends=True), strict=True)
    rows: list[tuple[int, dict[str, str]]] = []
    problems: list[_Problem] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        wrong = _header_problems(header)
        if wrong:
            raise _mistakes(path, wrong)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                problems.append((reader.line_num, f"{len(cells)} cells for {len(header)} columns"))
                continue
            named = zip(header, (cell.strip() for cell in cells), strict=True)
            rows.append((reader.line_num, dict(named)))
    except csv.Error as error:
        raise _mistakes(path, [(reader.line_num, f"no CSV that can be read ({error})")]) from None
    return rows, problems


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST_TABLE_BYTES:
            raise FileModelError(
                f"{path}: {path.stat().st_size} bytes is more than a table of nets"
            )
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise FileModelError(
            f"{path}: cannot be read ({error.strerror}); give a CSV file"
        ) from None
    except UnicodeDecodeError:
        raise FileModelError(f"{path}:1: not UTF-8 text") from None


def _header_problems(header: Sequence[str]) -> list[_Problem]:
    problems = [
        (1, f"no column {name}: {COLUMNS[name]}; columns are {', '.join(COLUMNS)}")
        for name in _NEEDED
        if name not in header
    ]
    for name in dict.fromkeys(header):
        if name not in COLUMNS:
            hint = nearest(name, list(COLUMNS))
            problems.append((1, f"unknown column '{name}'.{hint} Remove it"))
        elif header.count(name) > 1:
            problems.append((1, f"column {name} is there twice; keep one of them"))
    return problems
