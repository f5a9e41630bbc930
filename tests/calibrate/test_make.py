from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from calibrate_fixtures import small_pool, stack_recipe

from hwsearch.bits import FP32, INT8
from hwsearch.calibrate.make import write_net
from hwsearch.calibrate.pool import FAMILIES, Blueprints, draw_pool
from hwsearch.calibrate.recipe import Recipe
from hwsearch.hardware.onnx_network import read_onnx


def written(recipe: Recipe, folder: Path, **options: object) -> Path:
    path = folder / f"{recipe.name}.onnx"
    blueprint = Blueprints().of(recipe.ref, recipe.input_px)
    write_net(recipe, blueprint, path, **options)  # type: ignore[arg-type]
    return path


def operations(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def test_the_file_holds_the_network_that_was_described(tmp_path: Path) -> None:
    for net in small_pool()[:4]:
        path = written(net.recipe, tmp_path)
        read = read_onnx(path)
        assert read.macs == net.network.macs
        assert [kernel.bits for kernel in read.weighted] == list(net.recipe.layer_bits)
        assert [kernel.out_channels for kernel in read.weighted] == [
            kernel.out_channels for kernel in net.network.weighted
        ]


def test_an_int8_file_has_the_outputs_quantized_too_where_the_runtime_wants_it(
    tmp_path: Path,
) -> None:
    recipe = stack_recipe(INT8, layer_bits=(FP32, INT8, FP32, FP32, FP32))
    with_outputs = operations(written(recipe, tmp_path))
    without = operations(written(recipe, tmp_path, fusion=None))
    assert with_outputs["QuantizeLinear"] == 2
    assert without["QuantizeLinear"] == 1


def test_the_same_seed_writes_the_same_file(tmp_path: Path) -> None:
    # So that a measurement that goes on finds what it has measured.
    recipe = stack_recipe(INT8)
    first = written(recipe, tmp_path).read_bytes()
    assert written(recipe, tmp_path).read_bytes() == first
    assert written(recipe, tmp_path, seed=1).read_bytes() != first


def test_activations_are_neither_subnormal_nor_infinite(tmp_path: Path) -> None:
    # Subnormal numbers take tens of times as long.
    recipe = stack_recipe(
        arguments='{"block": "plain", "depth": 8, "width": 16}',
        kept_channels=(16,) * 9 + (32,) * 8 + (64,) * 8,
        layer_bits=(FP32,) * 26,
    )
    session = onnxruntime.InferenceSession(
        written(recipe, tmp_path), providers=["CPUExecutionProvider"]
    )
    picture = np.random.default_rng(0).standard_normal((1, 3, 32, 32)).astype(np.float32)
    logits = np.abs(session.run(None, {session.get_inputs()[0].name: picture})[0])
    assert 1e-3 < logits.max() < 1e3


@pytest.mark.slow
def test_every_family_can_be_pruned_quantized_and_written(tmp_path: Path) -> None:
    blueprints = Blueprints()
    pool = draw_pool(len(FAMILIES), widths=(INT8,), granularity=8, seed=1, blueprints=blueprints)
    for net in pool:
        path = tmp_path / "net.onnx"
        write_net(net.recipe, blueprints.of(net.recipe.ref, net.recipe.input_px), path)
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
