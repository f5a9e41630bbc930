"""The shipped search spaces keep the promises made about them."""

from hwsearch.hardware.targets import list_profiles
from hwsearch.space.search_space import SearchSpace, list_spaces, load_space
from hwsearch.space.timm_names import timm_names
from hwsearch.study.asked.preflight import check_space_bits

#: Family of each shipped backbone by the start of its name.
FAMILIES = {
    "resnet": "ResNet", "test_resnet": "ResNet", "regnet": "RegNet", "mobilenetv2": "MobileNet v2",
    "mobilenetv3": "MobileNet v3", "mobilenetv4": "MobileNet v4", "lcnet": "LCNet",
    "efficientnet_lite": "EfficientNet-Lite", "test_efficientnet": "EfficientNet",
    "convnext": "ConvNeXt", "mnasnet": "MNASNet", "semnasnet": "MNASNet", "fbnet": "FBNet",
    "tinynet": "TinyNet", "hardcorenas": "HardCoRe-NAS", "ese_vovnet": "VoVNet",
    "repvgg": "RepVGG", "hgnetv2": "HGNet", "dla": "DLA",
}  # fmt: skip


def spaces() -> list[SearchSpace]:
    return [load_space(name) for name in list_spaces()]


def family(name: str) -> str:
    """The family of a backbone; KeyError for one that is not listed above."""
    return FAMILIES[max((start for start in FAMILIES if name.startswith(start)), key=len)]


def test_spaces_when_counted_have_twelve_backbones_of_six_families() -> None:
    names = {backbone.name for space in spaces() for backbone in space.backbones}
    assert len(names) >= 12
    assert len({family(name) for name in names}) >= 6
    assert names <= timm_names()


def test_spaces_when_a_target_is_chosen_ask_for_no_bits_that_it_lacks() -> None:
    profiles = list_profiles()
    assert len(profiles) >= 8
    for space in spaces():
        for profile in profiles:
            check_space_bits(space, profile)
