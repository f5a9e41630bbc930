"""Mistakes that are answered at once: exit code 2, one line, and torch is never imported.

So are the verbs that only list and show.

All cases run in one process in which importing torch is an error: starting one for each would take
most of the time.
"""

import json
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from own_place import Hwsearch
from test_predict_verb import write_net

from hwsearch.files import packaged_folder

_ALL_CASES = """
import contextlib, io, json, sys
sys.modules["torch"] = None
from hwsearch.cli.main import main

answers = []
for arguments in json.load(sys.stdin):
    sys.argv = ["hwsearch", *arguments]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as end:
            code = end.code
    answers.append([code, out.getvalue(), err.getvalue()])
json.dump(answers, sys.stdout)
"""

_RUN = "run --target jetson --budget 10ms "

#: What is typed, and what the only line of the answer must hold, as a regular expression.
_ONE_LINE = {
    "run --target jetsn --budget 10ms": r"'jetsn' is not known\. Did you mean 'jetson'\?",
    "run --target jetson-nanoo --budget 10ms": "Did you mean 'jetson-nano'",
    "run --target none.yaml --budget 10ms": r"none\.yaml: cannot be read",
    "run --budget 10ms": "no --target was given; see hwsearch targets",
    "run --target jetson": "no budget was given; .*--budget 10ms",
    "run --target jetson --budget 10": "'10' has no unit; give time .* as in 10ms",
    "run --target jetson --budget '10 mb'": r"no known unit \(did you mean 10MB\?\)",
    "run --target jetson --budget -5ms": "'-5ms' is not above zero",
    "run --target jetson --budget 0ms": "'0ms' is not above zero",
    "run --target jetson --budget 4Mb": r"'Mb' are bits; did you mean 4MB\?",
    "run --target jetson --budget ''": "'' is not a number with a unit",
    "run --target jetson --budget 10ms --budget 30fps": "'10ms' and '30fps' both limit latency",
    "run --target no_energy.yaml --budget 5mJ": "no energy model, so an energy budget cannot",
    _RUN
    + "--set weight_bits=4": r"jetson-orin-nano runs fp32, fp16 and int8; .* from 8, 16 and 32",
    _RUN + "--set weight_bits=5": "int5 has no kernels there",
    "run --target jetson-nano --budget 9ms --set weight_bits=8": (
        r"jetson-nano runs fp32 and fp16; int8 is slower there\. Pick widths from 16 and 32"
    ),
    _RUN + "--set backbones=resnet10x": r"timm has no model 'resnet10x'\. Did you mean 'resnet10t'",
    _RUN + "--set input_px": "--set input_px is not KEY=VALUE",
    _RUN + "--set =3": "--set =3 is not KEY=VALUE",
    _RUN + "--set input_px=": "--set input_px= is not KEY=VALUE",
    _RUN + "--set input_px=abc": "--set input_px=abc: .*integer",
    _RUN + "--set inputpx=32": r"no key 'inputpx'\. Did you mean 'input_px'\?",
    _RUN + "--set trials=4 --set trials=5": "--set trials is given twice",
    _RUN + "--set weights=best": "'best' is not auto, pretrained or scratch",
    _RUN + "--set flip=yes": "flip=yes is not true or false",
    _RUN + "--space tiniest": r"no search space 'tiniest'\. Did you mean 'tiny'\?",
    _RUN + "--space none.yaml": r"no file 'none\.yaml'",
    _RUN + "--space unknown_key.yaml": r"unknown_key\.yaml:6: prunning: unknown key",
    _RUN + "--data nowhere": "'nowhere' is neither a folder nor a known data set",
    _RUN + "--data digit": "Did you mean 'digits'",
    _RUN
    + "--data with_empty": r"class folder 'with_empty/blank' holds no pictures \(1 other file\)",
    _RUN + "--confidence 1.5": r"confidence 1\.5 is not between 0 and 1",
    _RUN + "--confidence 0": "confidence 0 is not between 0 and 1",
    _RUN + "--confidence nan": "confidence nan is not between 0 and 1",
    _RUN + "--confidence high": "'high' is not a valid float.* See hwsearch run --help",
    _RUN + "--trials 0": "0 trials is too few; give at least 1",
    _RUN + "--time-limit 20": r"duration '20' is not a number with a unit .* write 20m",
    _RUN + "--nope": "[Nn]o such option:? '?--nope.* See hwsearch run --help",
    _RUN + "extra": "[Uu]nexpected extra argument.*extra",
    "run --resume with_empty": r"with_empty holds no run \(run\.json is missing\)",
    "run --resume nowhere": "nowhere is not a folder",
    "run --resume with_empty --target jetson": "--resume takes target and budget from the folder",
    "run --resume with_empty --budget 1ms": "--resume takes target and budget from the folder",
    "run --resume bad_run": r"bad_run/run\.json is not JSON; take it from a backup",
    "run --resume other_version": "has schema_version 99 .* install a newer hwsearch",
    "rnu --target jetson": r"no verb 'rnu'\. Did you mean 'run'\?",
    "report nowhere": "nowhere",
    "report": "Missing argument 'RUN'",
    "profile check": "Missing argument 'FILE'",
    "profile chek x": "No such command 'chek'",
    "profile measure --on moon": "place 'moon' is none that can be measured on; give host, cuda or",
    "profile measure": "Missing option '--on'",
    "profile measure --on host --base nothing-such": "target 'nothing-such' is not known",
    "profile measure --on host --time-limit 10": "duration '10' is not a number with a unit",
    "profile measure --on host --name 'My Board'": "'My Board' cannot name a target",
    "profile measure --on host --runtime tflite": "'tflite' is not one of",
    "profile measure --on host --ssh-option -v": "is this machine and takes no options of ssh",
    "report run --target jetson-nan": r"target 'jetson-nan' is not known\. Did you mean",
    "report run --target jetson-nano": "run is not a folder; give a run folder",
    "report run --target jetson-nano --budget 5": "budget '5' has no unit",
    "report run --budget 5ms": "--budget goes with --target",
    "predict net.onnx": r"no --target was given; see hwsearch targets",
    "predict net.onnx --target jetsn": r"'jetsn' is not known\. Did you mean 'jetson'",
    "predict net.onnx --target host,": r"target '' is not known",
    "predict net.onnx --target host,host": r"--target names host twice",
    "predict net.onnx --target host --bits 9": r"bits '9' cannot be used: 9 bits is not a width",
    "predict net.onnx --target host --bits 4": r"runs conv in fp32, int8\. Pick one of these",
    "predict net.onnx --target host --px 64": r"net\.onnx is exported for 32 px",
    "predict net.onnx --target host --px 0": r"a picture of 0 px is none",
    "predict net.onnx --target host --px big": r"'big' is not a valid int.* predict --help",
    "predict net.onnx --target host --confidence 90": r"confidence 90 is not between 0 and 1",
    "predict nte.onnx --target host": r"there is no file nte\.onnx\. Did you mean 'net\.onnx'",
    "predict odd.onnx --target host": r"operator Det 'act' of odd\.onnx has no cost model; r",
    "predict text.onnx --target host": r"text\.onnx is not an ONNX file",
    "predict resnet81 --target host": r"no model 'resnet81'\. Did you mean 'resnet18'",
    "predict own:tiny --target host": r"does not say the size of its picture; give --px 224",
    "predict --target host": r"Missing argument 'MODEL\|FILE\.onnx'",
}

#: A file has a line for each of its mistakes.
_SEVERAL_LINES = {
    _RUN + "--space many.yaml": (
        r"many\.yaml:4: backbones\.0\.?.*'resnet10x'",
        r"many\.yaml:5: input_px\.0: ",
        r"many\.yaml:6: pruning\.ratios",
        r"many\.yaml:8: training\.rung_steps: .*does not climb",
        r"many\.yaml:9: surplus: unknown key",
    ),
}


#: What is no mistake, and needs no torch either.
_CHEAP = (
    "doctor", "spaces", "targets --json", "profile show host", "profile check no_energy.yaml",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Answer:
    code: int
    out: str
    err: str


def write_files(place: Path) -> None:
    good = ["schema_version: 1", "name: own", "summary: a test", "backbones: [resnet10t]"]
    rest = ["weight_bits: target", "activation_bits: target"]
    lines = [*good, "input_px: [32]", "prunning: {ratios: [0.0]}", "pruning: {ratios: [0.0]}"]
    (place / "unknown_key.yaml").write_text("\n".join([*lines, *rest]))
    lines = [
        *good[:3], "backbones: [resnet10x]", "input_px: [4]", "pruning: {ratios: [0.5]}",
        "weight_bits: target", "training: {rung_steps: [9, 3]}", "surplus: 1",
    ]  # fmt: skip
    (place / "many.yaml").write_text("\n".join(lines))
    profile = packaged_folder("hw_profiles") / "jetson-tx2.yaml"
    data = yaml.safe_load(profile.read_text(encoding="utf-8"))
    (place / "no_energy.yaml").write_text(yaml.safe_dump(data | {"energy": None}))
    for name, file in (("full", "a.png"), ("blank", "notes.txt")):
        (place / "with_empty" / name).mkdir(parents=True)
        (place / "with_empty" / name / file).write_bytes(b"")
    write_net(place / "net.onnx")
    write_net(place / "odd.onnx", operator="Det")
    (place / "text.onnx").write_text("no network at all")
    for folder, text in (("bad_run", "{"), ("other_version", '{"schema_version": 99}')):
        (place / folder).mkdir()
        (place / folder / "run.json").write_text(text)


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    place = tmp_path_factory.mktemp("mistakes")
    write_files(place)
    cases = [*_ONE_LINE, *_SEVERAL_LINES, *_CHEAP]
    ended = subprocess.run(
        [sys.executable, "-c", _ALL_CASES],
        input=json.dumps([shlex.split(case) for case in cases]),
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "HWSEARCH_CONFIG": "none"},
    )
    assert ended.returncode == 0, ended.stderr
    assert not (place / "results").exists(), "a mistake must leave no run folder"
    found = json.loads(ended.stdout)
    return {
        case: Answer(code=code, out=out, err=err)
        for case, (code, out, err) in zip(cases, found, strict=True)
    }


@pytest.mark.parametrize("case", list(_ONE_LINE))
def test_mistake_when_made_is_answered_in_one_line(case: str, answers: dict[str, Answer]) -> None:
    answer = answers[case]
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("hwsearch: ")
    assert answer.err.count("\n") == 1
    assert re.search(_ONE_LINE[case], answer.err)


@pytest.mark.parametrize("case", list(_SEVERAL_LINES))
def test_file_when_it_has_several_mistakes_lists_each(
    case: str, answers: dict[str, Answer]
) -> None:
    answer = answers[case]
    assert (answer.code, answer.out) == (2, "")
    for pattern in _SEVERAL_LINES[case]:
        assert re.search(pattern, answer.err), answer.err
    assert len(answer.err.splitlines()) >= len(_SEVERAL_LINES[case])


def test_torch_when_poisoned_cannot_be_imported(there: Hwsearch, tmp_path: Path) -> None:
    # The proof of the proof: what needs torch does fail here, and a mistake ends a real process.
    ended = there(tmp_path, *["run", "--target", "jetson", "--budget", "10ms"], torch=False)
    assert ended.returncode not in {0, 2}
    assert "torch" in ended.stderr
    assert there(tmp_path, "run", "--target", "jetsn", torch=False).returncode == 2


@pytest.mark.parametrize("case", _CHEAP)
def test_cheap_verb_when_run_does_without_torch(case: str, answers: dict[str, Answer]) -> None:
    answer = answers[case]
    assert (answer.code, answer.err) == (0, "")
    assert answer.out
    assert "…" not in answer.out, "a pipe gets whole cells"


@pytest.mark.slow
def test_picture_when_corrupt_is_named(there: Hwsearch, filled: Path) -> None:
    (filled / "pictures" / "red" / "07.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    options = "run --target jetson --budget 10ms --data pictures --space own.yaml"
    ended = there(filled, *options.split())
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "pictures/red/07.png" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr
