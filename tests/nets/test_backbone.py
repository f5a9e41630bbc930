import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from hwsearch.errors import BackboneError
from hwsearch.nets.backbone import BackboneRef, build
from hwsearch.nets.blueprint import make_blueprint

MODULE = """
import torch
from torch import nn

WIDTH = 8


class Net(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, num_classes)

    def forward(self, pictures):
        return self.head(self.norm(self.conv(pictures)).relu().mean((2, 3)))


class Pair(Net):
    def forward(self, pictures):
        return super().forward(pictures), pictures


def good(num_classes, width=WIDTH):
    return Net(num_classes, width)


def pair(num_classes):
    return Pair(num_classes, WIDTH)


def failing(num_classes):
    raise KeyError("no such width")


def wrong(num_classes):
    return [num_classes]


number = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a user's module ``own_nets``, in the working folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)
    path = tmp_path / "own_nets.py"
    path.write_text(MODULE, encoding="utf-8")
    return path


def refused(name: str, message: str, arguments: str = "{}") -> None:
    ref = BackboneRef(name=name, classes=4, arguments=arguments)
    with pytest.raises(BackboneError, match=message) as caught:
        build(ref, 32, device="meta")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("resnet999", "{}", "timm has no backbone 'resnet999'; see timm.list_models"),
        ("resnet18.no_such_tag", "{}", "no weights 'resnet18.no_such_tag': .*name without its tag"),
        ("resnet18", '{"depths": [1]}', "timm cannot build 'resnet18' with .*depths"),
    ],
)
def test_timm_when_impossible_is_refused(name: str, arguments: str, message: str) -> None:
    refused(name, message, arguments)


def test_timm_when_arguments_are_given() -> None:
    shallow = BackboneRef(name="resnet18", classes=4, arguments='{"layers": [1, 1, 1, 1]}')
    deep = BackboneRef(name="resnet18", classes=4)
    counts = [len(list(build(ref, 32, device="meta").parameters())) for ref in (shallow, deep)]
    assert counts[0] < counts[1]


def test_build_when_seeded_repeats_and_spares_the_global_generator() -> None:
    ref = BackboneRef(name="lcnet_050", classes=4)
    state = torch.get_rng_state()
    one, same, other = (build(ref, 32, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_stem_stride_when_given_scales_the_picture(stride: int) -> None:
    ref = BackboneRef(name="lcnet_050", classes=4, stem_stride=stride)
    first = make_blueprint(ref, 32).describe({}).kernels[0]
    assert (first.stride, first.out_size) == ((stride, stride), (32 // stride, 32 // stride))


def test_stem_stride_when_there_is_no_convolution(own: Path) -> None:
    own.write_text(
        "from torch import nn\ndef make(num_classes): return nn.Linear(3, num_classes)\n"
    )
    ref = BackboneRef(name="own_nets:make", classes=4, stem_stride=1)
    with pytest.raises(BackboneError, match="has no convolution to set stem_stride on; remove it"):
        build(ref, 32)


@pytest.mark.usefixtures("own")
def test_own_when_good_is_searched_like_the_others() -> None:
    ref = BackboneRef(name="own_nets:good", classes=4, arguments='{"width": 12}')
    assert ref.own
    assert isinstance(build(ref, 16).get_submodule("norm"), nn.BatchNorm2d)
    blueprint = make_blueprint(ref, 16)
    assert [(g.name, g.channels) for g in blueprint.graph.groups] == [("conv", 12)]
    network = blueprint.describe({"conv": 6})
    assert (network.kernels[0].out_channels, network.kernels[-1].in_channels) == (6, 6)


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_nets:good",
            "module 'no_such_nets' of backbone .* is not found from .*install",
        ),
        ("own_nets:bad", "'own_nets' has no function 'bad'"),
        ("own_nets:number", "'own_nets' has no function 'number'"),
        (":good", "cannot be imported: ValueError"),
        ("own_nets:failing", "'own_nets:failing' failed: KeyError: .*called with num_classes=4"),
        ("own_nets:wrong", r"returned list; it must return a torch.nn.Module"),
    ],
)
def test_own_when_unusable_is_refused(name: str, message: str) -> None:
    refused(name, message)


def test_own_when_it_cannot_be_imported(own: Path) -> None:
    own.write_text("def broken(:\n")
    refused("own_nets:good", "'own_nets' of backbone .* cannot be imported: SyntaxError")


@pytest.mark.usefixtures("own")
def test_own_when_arguments_are_unknown() -> None:
    refused("own_nets:good", "failed: TypeError: .*depth", '{"depth": 3}')


@pytest.mark.usefixtures("own")
def test_own_when_it_returns_a_tuple() -> None:
    ref = BackboneRef(name="own_nets:pair", classes=4)
    with pytest.raises(BackboneError, match=r"must return one tensor of shape \(batch, classes\)"):
        make_blueprint(ref, 32)


def test_identity_when_any_part_differs() -> None:
    parts = [
        BackboneRef(name="resnet18", classes=4),
        BackboneRef(name="resnet10t", classes=4),
        BackboneRef(name="resnet18", classes=5),
        BackboneRef(name="resnet18", classes=4, stem_stride=1),
        BackboneRef(name="resnet18", classes=4, arguments='{"layers": [1, 1, 1, 1]}'),
    ]
    identities = [ref.identity() for ref in parts]
    assert all(identities.count(identity) == 1 for identity in identities)
    assert BackboneRef(name="resnet18", classes=4).identity() == identities[0]


def test_identity_when_own_follows_the_whole_file(own: Path) -> None:
    ref = BackboneRef(name="own_nets:good", classes=4)
    before = ref.identity()
    assert ref.identity() == before
    own.write_text(MODULE.replace("WIDTH = 8", "WIDTH = 9"), encoding="utf-8")
    assert ref.identity() != before  # a constant beside the function
