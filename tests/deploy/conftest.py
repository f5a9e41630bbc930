import functools
from pathlib import Path

import pytest
from deploy_fixtures import NETS, Asked, MakeShared, Shared, mixed, network, pictures, quantized

from hwsearch.bits import INT8
from hwsearch.deploy.export import export_onnx
from hwsearch.deploy.ranges import Fusion, observe_output_ranges
from hwsearch.nets.quantize import Scheme


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> MakeShared:
    """Quantized networks and their files, each made once; nobody may change them."""

    @functools.cache
    def made(
        name: str, asked: Asked, scheme: Scheme = "affine", fusion: Fusion | None = None
    ) -> Shared:
        px = NETS[name]
        model = quantized(network(name), px, INT8 if asked == "int8" else mixed, scheme)
        ranges = None
        if fusion is not None:
            ranges = observe_output_ranges(model, [pictures(px)], fusion=fusion)
        path: Path = tmp_path_factory.mktemp(f"{name}_{asked}") / "model.onnx"
        return Shared(model=model, px=px, file=export_onnx(model, px, path, output_ranges=ranges))

    return made


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"
