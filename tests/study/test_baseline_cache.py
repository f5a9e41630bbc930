# ruff: noqa: ANN401 - fakes take whatever the real function is given
import threading
from pathlib import Path
from typing import Any

import filelock
import pytest
import torch
from study_fixtures import make_bench, make_knobs
from torch import nn

from hwsearch.accuracy.ladder import fine_tune
from hwsearch.bits import FP32, INT8, LayerBits
from hwsearch.errors import HostError
from hwsearch.space.candidate import Candidate
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals import finalize as finalize_module
from hwsearch.study.finals.baseline_cache import BaselineCache
from hwsearch.study.finals.finalists import Planned
from hwsearch.study.finals.finalize import FinalScore, finalize

pytestmark = pytest.mark.usefixtures("quick")


def baseline(bench: Workbench, bits: LayerBits = INT8) -> Candidate:
    return bench.baseline(make_knobs(), bits)


def trained(bench: Workbench, candidate: Candidate) -> tuple[FinalScore, nn.Module]:
    found: list[tuple[FinalScore, nn.Module]] = []
    finalize(
        [Planned(candidate=candidate)], {}, bench,
        on_phase=lambda _: None,
        on_step=lambda _done, _total: None,
        on_final=lambda final, model: found.append((final, model)),
    )  # fmt: skip
    return found[0]


@pytest.mark.parametrize("bits", [FP32, INT8], ids=str)
def test_baseline_is_read_as_it_was_trained(bits: LayerBits) -> None:
    bench = make_bench()
    candidate, cache = baseline(bench, bits), BaselineCache(bench)
    assert not cache.holds(candidate)
    assert cache.read(candidate) is None
    final, model = trained(bench, candidate)
    cache.keep(final, model)

    later = BaselineCache(make_bench())  # another run
    assert later.holds(candidate)
    found = later.read(candidate)
    assert found is not None
    assert found[0] == final
    pictures = torch.rand(4, 3, candidate.input_px, candidate.input_px)
    with torch.no_grad():
        assert torch.allclose(found[1](pictures), model.eval()(pictures), atol=1e-5)


def test_baseline_of_another_seed_or_training_is_another() -> None:
    bench = make_bench()
    candidate = baseline(bench)
    BaselineCache(bench).keep(*trained(bench, candidate))
    assert BaselineCache(make_bench()).holds(candidate)
    assert not BaselineCache(make_bench(seed=1)).holds(candidate)
    space = bench.settings.space
    longer = space.training.model_copy(update={"final_steps": 50})
    changed = make_bench(space=space.model_copy(update={"training": longer}))
    assert not BaselineCache(changed).holds(candidate)


def test_corrupt_baseline_is_trained_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = make_bench()
    candidate, cache = baseline(bench), BaselineCache(bench)
    cache.keep(*trained(bench, candidate))
    [weights] = (tmp_path / "cache" / "baselines").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:100])
    assert cache.read(candidate) is None
    assert "is corrupt" in caplog.text
    [scores] = (tmp_path / "cache" / "baselines").glob("*.json")
    scores.write_text("{}")
    assert cache.read(candidate) is None


def test_scores_and_weights_are_of_the_same_writer(tmp_path: Path) -> None:
    bench = make_bench()
    candidate, cache = baseline(bench), BaselineCache(bench)
    found = trained(bench, candidate)
    cache.keep(*found)
    folder = tmp_path / "cache" / "baselines"
    [scores] = folder.glob("*.json")
    killed = folder / f"{scores.name}.x1.tmp"
    killed.write_text("half")
    other = threading.Thread(target=lambda: cache.keep(*found))
    with filelock.FileLock(scores.with_suffix(".lock")):  # another run writes
        scores.unlink()
        other.start()
        other.join(0.3)
        assert other.is_alive()
        assert not cache.holds(candidate)
    other.join()
    assert cache.holds(candidate)
    assert not killed.exists()


def test_cache_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    bench = make_bench()
    found = trained(bench, baseline(bench))
    (tmp_path / "cache" / "baselines").write_text("in the way")
    with pytest.raises(HostError, match="set HWSEARCH_CACHE to another folder"):
        BaselineCache(bench).keep(*found)


def test_full_recipe_is_what_training_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key would not tell apart what is trained by another recipe."""
    bench = make_bench()
    told: list[Any] = []

    def remember(*arguments: Any, **more: Any) -> nn.Module:
        told.append(arguments[2])
        return fine_tune(*arguments, **more)

    monkeypatch.setattr(finalize_module, "fine_tune", remember)
    candidate = baseline(bench)
    trained(bench, candidate)
    assert told == [finalize_module.full_recipe(candidate, bench)]
