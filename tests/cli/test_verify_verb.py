import json
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner
from own_place import Finished, Hwsearch

from hwsearch.cli.verify_verb import command
from hwsearch.errors import RunError
from hwsearch.report import stored

SCHEMA = Path(stored.__file__).with_name("front.schema.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--trtexec", "a.log", "--on", "host"], "give one of them"),
        (["run", "--trial", "3"], "--trial goes with --trtexec"),
    ],
)
def test_options_when_they_exclude_each_other_say_so(arguments: list[str], message: str) -> None:
    ended = CliRunner().invoke(command, arguments)
    assert isinstance(ended.exception, RunError)
    assert message in str(ended.exception)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("board", "place 'board' is none that can be measured on; give host, cuda or ssh://"),
        ("ssh://me:secret@board", "an ssh:// place takes no password"),
    ],
)
def test_place_when_it_is_none_is_one_line(place: str, message: str, hwsearch: Hwsearch) -> None:
    ended = hwsearch("verify", "missing", "--on", place)
    assert ended.returncode == 2
    assert "secret" not in ended.stderr
    assert ended.stderr.startswith(f"hwsearch: {message}")


@pytest.mark.slow
def test_run_when_finished_was_exported_and_scored(finished: Finished) -> None:
    [folder] = (finished[0] / "results").iterdir()
    front = json.loads((folder / "front.json").read_text(encoding="utf-8"))
    for entry in front["front"] + front["baselines"]:
        assert (folder / entry["artefact"]).is_file()
        assert abs(entry["verified"]["accuracy"] - entry["accuracy"]) <= 1 / 6 + 1e-9
        assert entry["latency_ms"]["source"] == "predicted"
        model = (folder / entry["artefact"]).parent
        assert {"build_tensorrt.sh", "run_onnxruntime.py", "verify.json"} <= {
            path.name for path in model.iterdir()
        }


@pytest.mark.slow
def test_verify_when_run_prints_the_front(
    finished_copy: tuple[Path, Path], there: Hwsearch
) -> None:
    place, folder = finished_copy
    ended = there(place, "verify", str(folder), "--json")
    assert ended.returncode == 0, ended.stderr
    front = json.loads(ended.stdout)
    jsonschema.validate(front, json.loads(SCHEMA.read_text(encoding="utf-8")))
    assert front["pick"] is not None
