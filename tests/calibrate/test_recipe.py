import pytest
from calibrate_fixtures import stack_recipe

from hwsearch.bits import FP32, INT8
from hwsearch.calibrate.pool import Blueprints
from hwsearch.calibrate.recipe import COLUMNS, read_channels, read_layer_bits
from hwsearch.errors import UserError


def test_equal_neighbours_are_counted() -> None:
    row = stack_recipe(layer_bits=(INT8, INT8, FP32, INT8, INT8)).row()
    assert row["kept_channels"] == "16x2 32 64"
    assert row["layer_bits"] == "W8A8x2 W32A32 W8A8x2"
    assert tuple(row) == COLUMNS


@pytest.mark.parametrize("text", ["", "16", "16x3", "16x2 8 16", "8 8 8"])
def test_channels_are_read_back(text: str) -> None:
    counts = read_channels(text)
    recipe = stack_recipe(kept_channels=counts)
    assert read_channels(recipe.row()["kept_channels"]) == counts


@pytest.mark.parametrize("text", ["sixteen", "-8", "8,16", "0", "8x", "8.5"])
def test_what_are_no_channels_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="are not counts, as in 16x3 24"):
        read_channels(text)


@pytest.mark.parametrize("text", ["8", "W9A9", "W8A8 x2"])
def test_what_are_no_bits_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"layer_bits .* as in W8A8x10 W32A32"):
        read_layer_bits(text)


def test_channels_and_bits_go_to_groups_and_layers_in_running_order() -> None:
    recipe = stack_recipe(kept_channels=(8, 16, 24, 32), layer_bits=(FP32, INT8, INT8, INT8, FP32))
    blueprint = Blueprints().of(recipe.ref, recipe.input_px)
    network = blueprint.describe(recipe.kept(blueprint), recipe.bits(blueprint))
    weighted = network.weighted
    assert [kernel.out_channels for kernel in weighted] == [8, 16, 24, 32, 10]
    assert [kernel.bits for kernel in weighted] == [FP32, INT8, INT8, INT8, FP32]


def test_a_recipe_for_another_version_of_its_backbone_is_refused() -> None:
    blueprint = Blueprints().of(stack_recipe().ref, 32)
    with pytest.raises(UserError, match=r"has 4 groups here and 2 in the table.*measure again"):
        stack_recipe(kept_channels=(8, 8)).kept(blueprint)
    with pytest.raises(UserError, match="has 5 layers here and 1 in the table"):
        stack_recipe(layer_bits=(FP32,)).bits(blueprint)
