"""Which layers of which backbones ONNX Runtime does not run in int8.

    python benchmarks/deploy/backbones.py FILE.csv

Every backbone is exported with all layers in int8, as before a search. Weights do not matter, so
none are trained.
"""

import argparse
import csv
from pathlib import Path
from typing import Final

from hwsearch.deploy.realised import runtime_name
from hwsearch.deploy.runnable import layers_without_int8
from hwsearch.errors import BackboneError, HostError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint

BACKBONES: Final = (
    "resnet10t", "resnet18", "resnet50", "mobilenetv2_100", "mobilenetv3_small_050",
    "mobilenetv3_large_100", "mobilenetv4_conv_small", "efficientnet_b0", "efficientnet_lite0",
    "tf_efficientnetv2_b0", "fbnetc_100", "mnasnet_050", "semnasnet_050", "tinynet_e", "lcnet_050",
    "hardcorenas_a", "convnext_atto", "repvgg_a0", "mobileone_s0", "vgg11", "dla34",
    "ese_vovnet19b_slim", "hgnetv2_b0", "starnet_s050", "regnetx_002", "regnety_002",
    "ghostnet_100", "mobilevit_xxs", "vit_tiny_patch16_224", "test_efficientnet", "test_resnet",
)  # fmt: skip


def row(name: str, px: int) -> dict[str, str | int]:
    """What was found of one backbone."""
    ref = BackboneRef(name=name, classes=10)
    found: dict[str, str | int] = {
        "backbone": name, "input_px": px, "layers": 0, "without_int8": 0, "names": "",
        "problem": "", "runtime": runtime_name(),
    }  # fmt: skip
    try:
        kernels = make_blueprint(ref, px).describe({}).weighted
        layers = [kernel.name for kernel in kernels]
        odd = layers_without_int8(build(ref, px), px, layers, "affine")
    except (BackboneError, HostError) as error:
        return {**found, "problem": str(error)[:200]}
    return found | {
        "layers": len(layers), "without_int8": len(odd), "names": " ".join(sorted(odd)),
    }  # fmt: skip


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("csv", type=Path)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--px", type=int, default=64)
    given = parser.parse_args()
    rows = []
    for name in given.backbones:
        px = 224 if name.startswith("vit_") else given.px
        rows.append(row(name, px))
        print(rows[-1], flush=True)
        with given.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
