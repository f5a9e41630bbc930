import itertools

import pytest

from hwsearch.bits import FP16, FP32, INT8, WIDTHS, LayerBits


def test_bits_when_written_read_back() -> None:
    made = []
    for weight, activation in itertools.product(WIDTHS, WIDTHS):
        if weight <= 8 or weight == activation:
            bits = LayerBits(weight, activation)
            assert LayerBits.parse(str(bits)) == bits
            made.append(bits)
    assert {FP32, FP16, INT8} <= set(made)
    assert [str(bits) for bits in (FP32, INT8)] == ["W32A32", "W8A8"]


@pytest.mark.parametrize("width", [-8, 0, 1, 9, 64])
def test_bits_when_width_is_unknown(width: int) -> None:
    with pytest.raises(ValueError, match=f"{width} bits is not a width; pick one of"):
        LayerBits(width, 8)
    with pytest.raises(ValueError, match=f"{width} bits is not a width"):
        LayerBits(8, width)


@pytest.mark.parametrize(("weight", "activation"), [(32, 8), (16, 8), (16, 32), (32, 16)])
def test_bits_when_float_weights_meet_other_activations(weight: int, activation: int) -> None:
    with pytest.raises(ValueError, match=f"W{weight}A{activation}: weights of {weight} bits go"):
        LayerBits(weight, activation)


@pytest.mark.parametrize("text", ["", "8", "w8a8", "W8", "W8A8 ", "A8W8", "W-8A8", "W8A8\n"])
def test_bits_when_text_is_of_another_form(text: str) -> None:
    with pytest.raises(ValueError, match="is not of the form W8A8"):
        LayerBits.parse(text)
