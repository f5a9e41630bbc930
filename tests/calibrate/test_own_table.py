from pathlib import Path

import pytest
from calibrate_fixtures import small_pool, stack_recipe

from hwsearch.bits import FP32, INT8
from hwsearch.calibrate.make import write_net
from hwsearch.calibrate.own_table import kept_of, read_own_table
from hwsearch.calibrate.pool import Blueprints
from hwsearch.errors import FileModelError
from hwsearch.nets.describe import describe

FIVE = "\n".join(f"test_resnet,32,{ms}" for ms in (1, 2, 3, 4, 5))


def table(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    """The lines of the message, without the name of the file."""
    path = table(folder, text)
    with pytest.raises(FileModelError) as caught:
        read_own_table(path, granularity=8)
    lines = str(caught.value).splitlines()
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def test_timm_names_are_read_with_size_bits_and_width(tmp_path: Path) -> None:
    text = (
        "net,px,width,bits,latency_ms,energy_mj,group\n"
        "test_resnet,32,,,1.5,,plain\n"
        "test_resnet,48,,8,1.25,30,plain\n"
        "test_resnet,32,0.5,,0.75,,half\n"
        "test_resnet,32,0.5,W8A8,0.5,,half\n"
        "test_resnet,,,,6,,\n"
    )
    read = read_own_table(table(tmp_path, text), granularity=8)
    first, second, half, small, whole = read.measurements
    assert [one.latency_ms for one in read.measurements] == [1.5, 1.25, 0.75, 0.5, 6.0]
    assert [one.energy_mj for one in read.measurements] == [None, 30.0, None, None, None]
    assert [one.group for one in read.measurements][:4] == ["plain", "plain", "half", "half"]
    assert whole.group == "test_resnet"
    assert first.network == describe("test_resnet", input_px=32)
    assert second.network == describe("test_resnet", input_px=48, bits=INT8)
    assert whole.network == describe("test_resnet")
    assert 0.2 < half.network.macs / first.network.macs < 0.4
    assert {kernel.bits for kernel in half.network.kernels} == {FP32}
    assert {kernel.bits for kernel in small.network.kernels} == {INT8}
    assert small.network.macs == half.network.macs
    assert read.noise_floor_percent is None


def test_onnx_files_lie_beside_the_table(tmp_path: Path) -> None:
    recipe = stack_recipe(INT8)
    (tmp_path / "nets").mkdir()
    blueprint = Blueprints().of(recipe.ref, recipe.input_px)
    write_net(recipe, blueprint, tmp_path / "nets" / "small.onnx")
    text = "net,px,latency_ms\nnets/small.onnx,,0.2\n" + FIVE
    read = read_own_table(table(tmp_path, text), granularity=8)
    assert [kernel.bits for kernel in read.measurements[0].network.weighted] == [INT8] * 5


def test_the_table_of_a_measurement_is_read_back(tmp_path: Path) -> None:
    nets = small_pool()[:6]
    header = [*nets[0].recipe.row(), "latency_ms", "repeat_ms"]
    quoted = [
        ",".join(f'"{cell.replace(chr(34), 2 * chr(34))}"' for cell in net.recipe.row().values())
        for net in nets
    ]
    text = ",".join(header) + "\n" + "".join(f"{row},{2.0},{2.04}\n" for row in quoted)
    read = read_own_table(table(tmp_path, text), granularity=8)
    assert [one.network.kernels for one in read.measurements] == [
        net.network.kernels for net in nets
    ]
    assert read.noise_floor_percent == pytest.approx(2.0)


def test_all_mistakes_are_listed_at_once_with_their_lines(tmp_path: Path) -> None:
    text = (
        "net,px,width,bits,latency_ms\n"
        "test_resnet,32,1.5,9,1\n"
        "test_resnett,32,,,-1\n"
        "test_resnet,32,,,\n"
        "gone.onnx,,,,1\n"
        "test_resnet,,0.5,,1\n"
        "test_resnet,32,0.5\n"
        ",32,,,1\n"
        "test_resnet,0,,,nan\n"
        "small.onnx,,0.5,,1\n"
    )
    found = mistakes(tmp_path, text)
    expected = [
        (2, "bits '9' cannot be used"),
        (2, "width 1.5 is not a share of the channels, above 0 up to 1"),
        (3, "latency_ms -1 is not positive and finite"),
        (3, "timm has no model 'test_resnett'. Did you mean 'test_resnet'?"),
        (4, "latency_ms is missing: of one inference at batch 1"),
        (5, "there is no file"),
        (6, "px is needed beside width; give the picture's size"),
        (7, "3 cells for 5 columns"),
        (8, "net is missing: timm name, package.module:function, or ONNX file"),
        (9, "latency_ms nan is not positive and finite"),
        (9, "px '0' is not a whole number from 1 up"),
        (10, "a file has its own width; leave that empty"),
    ]
    assert len(found) == len(expected)
    for line, (number, text) in zip(found, expected, strict=True):
        assert line.startswith(f"{number}: {text}")


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("net,px", "1: no column latency_ms: of one inference at batch 1; columns are net, lat"),
        ("latency_ms", "1: no column net: timm name"),
        ("net,latency_ms,pixels", "1: unknown column 'pixels'. Did you mean 'px'? Remove it"),
        ("net,latency_ms,net", "1: column net is there twice; keep one of them"),
        ("", "1: no column latency_ms"),
    ],
)
def test_a_header_that_is_wrong_is_explained(tmp_path: Path, header: str, message: str) -> None:
    found = mistakes(tmp_path, f"{header}\n1,2,3\n")
    assert any(line.startswith(message) for line in found), found


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("bits,layer_bits", "8,W8A8", "bits and layer_bits are both given; keep one of them"),
        ("width,kept_channels", "0.5,8", "width and kept_channels are both given; keep one"),
        ("kept_channels,group", "8,a", "has 11 groups here and 1 in the table"),
        ("classes,group", "ten,a", "classes 'ten' is not a whole number from 1 up"),
        ("arguments,group", "[],a", "arguments '[]' is not a JSON object"),
        ("layer_bits,group", "8,a", "layer_bits '8' is not of the form W8A8, as in"),
        ("repeat_ms,group", "x,a", "repeat_ms 'x' is not a number"),
    ],
)
def test_columns_that_do_not_go_are_explained(
    tmp_path: Path, columns: str, cells: str, message: str
) -> None:
    (found,) = mistakes(tmp_path, f"net,px,latency_ms,{columns}\ntest_resnet,32,1,{cells}\n")
    assert message in found


def test_too_few_rows_are_refused(tmp_path: Path) -> None:
    (found,) = mistakes(tmp_path, "net,px,latency_ms\ntest_resnet,32,1\n\n")
    assert found == "1: 1 networks are too few to fit a profile; give at least 5"


def test_what_is_no_table_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileModelError, match=r"none.csv: cannot be read \(No such file"):
        read_own_table(tmp_path / "none.csv", granularity=8)
    path = tmp_path / "binary.csv"
    path.write_bytes(b"net,latency_ms\n\xff\xfe,1\n")
    with pytest.raises(FileModelError, match=r"binary.csv:1: not UTF-8 text"):
        read_own_table(path, granularity=8)
    (found,) = mistakes(tmp_path, 'net,latency_ms\n"resnet18,1\n')
    assert "no CSV that can be read" in found


def test_a_mark_of_the_byte_order_and_spaces_are_no_mistake(tmp_path: Path) -> None:
    text = "\ufeffnet, px, latency_ms\n" + FIVE.replace(",", " , ")
    assert len(read_own_table(table(tmp_path, text), granularity=8).measurements) == 5


@pytest.mark.parametrize(
    ("share", "channels", "granularity", "kept"),
    [(1.0, 20, 8, 20), (0.5, 64, 8, 32), (0.5, 20, 8, 8), (0.01, 64, 8, 8), (0.5, 4, 8, 4)],
)
def test_a_width_keeps_whole_blocks(
    share: float, channels: int, granularity: int, kept: int
) -> None:
    assert kept_of(share, channels, granularity) == kept
