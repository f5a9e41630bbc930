import pytest
from hypothesis import given
from hypothesis import strategies as st
from stored_results import baseline, empty_front, front, model

from hwsearch.report.stored import FrontFile
from hwsearch.report.view import one_line, speed_up, view_front


@given(st.text())
def test_one_line_has_neither_breaks_nor_control_characters(text: str) -> None:
    line = one_line(text)
    assert line.splitlines() in ([line], [])
    assert all(char.isprintable() for char in line)
    assert one_line(line) == line


def test_one_line_keeps_letters_of_all_scripts() -> None:
    assert one_line("Zähler\n\x1b[31m模型\u202eabc\t x") == "Zähler [31m模型 abc x"


def test_view_of_a_model_shows_three_digits_and_intervals() -> None:
    content = front(1) | {"front": [model(10, latency_ms=2.0, accuracy=0.95)]}
    view = view_front(FrontFile.model_validate(content))
    (shown,) = view.models
    assert str(shown.latency_ms) == "2.00 (1.70 to 2.30)"
    assert str(shown.accuracy) == "95.0 (92.2 to 96.8)"
    assert (
        shown.costs == "2.00 (1.70 to 2.30) ms predicted, 13.0 (11.0 to 14.9) mJ predicted, 240 kB"
    )
    assert (shown.bits, shown.pruning) == ("W8A8 x 4, W16A16 x 2", "0/25/50/50")
    assert (shown.mmacs, shown.speed_up, shown.probability) == ("18.0", "3.70 x", "0.97")
    assert shown.picked
    assert view.baselines[0].pruning == "none"
    assert view.limits == {"latency": "10.0 ms"}


def test_bits_do_not_depend_on_the_order_of_layers() -> None:
    bits = {"a": 4, "b": 8, "c": 16}
    for weight_bits in (bits, dict(reversed(bits.items()))):
        entry = model(10) | {
            "weight_bits": weight_bits,
            "activation_bits": {"c": 16, "b": 8, "a": 8},
        }
        view = view_front(FrontFile.model_validate(front(1) | {"front": [entry]}))
        assert view.models[0].bits == "W4A8 x 1, W8A8 x 1, W16A16 x 1"


def test_view_of_an_empty_front_has_the_closest_point() -> None:
    view = view_front(FrontFile.model_validate(empty_front()))
    assert view.closest is not None
    assert (view.closest.accuracy, view.closest.name) == (None, "trial 3")
    assert (view.models, view.pick) == ((), None)
    assert view.reachable == {"latency": "0.610 ms"}


def test_models_are_sorted_by_latency_whatever_their_order() -> None:
    content = front()
    turned = content | {"front": content["front"][::-1]}
    view = view_front(FrontFile.model_validate(content))
    assert view == view_front(FrontFile.model_validate(turned))
    assert [shown.name for shown in view.models] == [f"trial {n}" for n in range(10, 16)]
    assert [shown.picked for shown in view.models] == [False] * 4 + [True, False]


def test_speed_up_is_over_the_dense_baseline_of_the_same_backbone_or_the_first() -> None:
    content = front()
    other = FrontFile.model_validate(content)
    assert speed_up(other, other.front[1]) == pytest.approx(7.4 / (0.8 * 1.35))
    bare = FrontFile.model_validate(content | {"baselines": []})
    assert view_front(bare).models[0].speed_up == "-"
    still = FrontFile.model_validate(content | {"front": [model(1, latency_ms=0.0)], "pick": 1})
    assert speed_up(still, still.front[0]) is None
    content["baselines"].append(
        baseline("dense-fp32", latency_ms=3.0, accuracy=0.97, backbone="mobilenetv3_small_050")
    )
    file = FrontFile.model_validate(content)
    resnet, mobilenet = file.front[0], file.front[1]
    assert speed_up(file, resnet) == pytest.approx(7.4 / 0.8)
    assert speed_up(file, mobilenet) == pytest.approx(3.0 / (0.8 * 1.35))
