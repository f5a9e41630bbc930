import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from deploy_fixtures import MakeShared, logits, network, pictures, quantized

from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.deploy.export import PictureInfo, export_onnx
from hwsearch.deploy.input_contract import InputContract, read_contract
from hwsearch.deploy.ranges import observe_output_ranges
from hwsearch.errors import RunError

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
ABOUT = PictureInfo(mean=MEAN, std=STD, class_names=(*tuple("abcdefghi"), "Zürich \"x'"))


def contract(*, baked: bool = False, batch: int | None = 1) -> InputContract:
    return InputContract(
        name="picture", input_px=32, batch=batch, mean=MEAN, std=STD, baked=baked,
        class_names=ABOUT.class_names,
    )  # fmt: skip


def levels(count: int = 4) -> torch.Tensor:
    """Pictures as they come, from 0 to 255."""
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, 32, 32), generator=generator).float()


def normalized(values: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (MEAN, STD))
    return (values / 255 - mean) / std


@pytest.mark.parametrize(("baked", "dynamic"), [(False, False), (True, True)])
def test_contract_when_exported_is_in_the_file(baked: bool, dynamic: bool, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    export_onnx(network("resnet10t"), 32, file, dynamic_batch=dynamic, pictures=ABOUT, bake=baked)
    assert read_contract(file) == contract(baked=baked, batch=None if dynamic else 1)
    onnx.checker.check_model(onnx.load(file), full_check=True)


def test_contract_says_what_a_person_needs() -> None:
    told = contract().to_json()
    assert json.loads(json.dumps(told)) == told
    assert told["shape"] == [1, 3, 32, 32]
    assert (told["layout"], told["colours"], told["type"]) == ("NCHW", "RGB", "float32")
    assert told["normalization"] == "(x / 255 - mean) / std"
    # The least is black in the red channel, the greatest white in the blue one or the like.
    assert told["range"] == pytest.approx([-2.5, 2.5])
    assert contract(batch=None).to_json()["shape"][0] == "batch"
    baked = contract(baked=True)
    assert (baked.scale, baked.offset, baked.value_range) == ((1.0,) * 3, (0.0,) * 3, (0.0, 255.0))
    assert baked.to_json()["normalization"] == "in the file"


def test_scale_and_offset_are_the_normalization() -> None:
    values = levels()
    scale, offset = (
        torch.tensor(each).reshape(1, 3, 1, 1) for each in (contract().scale, contract().offset)
    )
    torch.testing.assert_close(values * scale + offset, normalized(values))
    low, high = contract().value_range
    assert low <= float(normalized(values).min())
    assert float(normalized(values).max()) <= high


@pytest.mark.parametrize(
    ("bits", "dynamic"), [(FP32, True), (INT8, False), (LayerBits(16, 16), False)]
)
def test_normalization_when_baked_gives_the_same_logits(
    bits: LayerBits, dynamic: bool, tmp_path: Path
) -> None:
    model = quantized(network("resnet10t"), 32, bits)
    ranges = observe_output_ranges(model, [pictures(32)])
    files = [tmp_path / f"{baked}.onnx" for baked in (False, True)]
    for baked, file in zip((False, True), files, strict=True):
        export_onnx(
            model, 32, file, output_ranges=ranges, dynamic_batch=dynamic, pictures=ABOUT, bake=baked
        )
    values = levels()
    plain = logits(files[0], normalized(values))
    baked_in = logits(files[1], values)
    # Rounding differs in the last digit, and integers in the middle fall either way.
    spread = float(np.abs(plain).max())
    np.testing.assert_allclose(baked_in, plain, atol=1e-4 if bits == FP32 else 0.05 * spread)


def test_baking_without_a_normalization_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be baked in when it is not given"):
        export_onnx(network("resnet10t"), 32, tmp_path / "model.onnx", bake=True)
    assert list(tmp_path.iterdir()) == []


def test_file_without_a_contract_says_so(shared: MakeShared, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    with pytest.raises(RunError, match=r"cannot be read .* export the run again"):
        read_contract(file)
    plain = shared("resnet10t", "int8").path.read_bytes()
    for content in (plain, b"", b"no file of ONNX", b"\x08\x08"):
        file.write_bytes(content)
        with pytest.raises(RunError, match=r"is no ONNX file of hwsearch .* export the run again"):
            read_contract(file)
