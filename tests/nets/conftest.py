"""The backbones that the shipped search spaces name, for tests that must hold for each."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from hwsearch.nets.backbone import BackboneRef

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
CLASSES = 10

#: More than a second each to prune at three ratios; each has a smaller relative among the rest.
LARGE = frozenset(
    {
        "convnext_femto", "dla34", "efficientnet_lite0", "fbnetc_100", "hardcorenas_a",
        "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small", "repvgg_a0",
        "resnet18", "resnet50",
    }
)  # fmt: skip


def all_shipped() -> list[BackboneRef]:
    """Every backbone of every shipped search space, once, by space and position."""
    found: dict[str, BackboneRef] = {}
    for path in sorted(SPACES.glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["backbones"]:
            named: dict[str, Any] = {"name": entry} if isinstance(entry, str) else entry
            ref = BackboneRef(
                name=named["name"], classes=CLASSES, stem_stride=named.get("stem_stride")
            )
            found.setdefault(ref.name, ref)
    return list(found.values())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run ``shipped`` over all backbones; where the test prunes them, the large are slow."""
    if "shipped" in metafunc.fixturenames:
        heavy = "pruning" in metafunc.function.__name__
        cases = [
            pytest.param(
                ref,
                id=ref.name,
                marks=[pytest.mark.slow] if heavy and ref.name in LARGE else [],
            )
            for ref in all_shipped()
        ]
        metafunc.parametrize("shipped", cases)
