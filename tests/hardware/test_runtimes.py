import pytest

from hwsearch.files import named_files, read_model
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.runtimes import Family, runner_facts, runtime_facts


@pytest.mark.parametrize(
    ("text", "family"),
    [
        ("ONNX Runtime 1.x", "onnxruntime"),
        ("TensorRT 10.3 (JetPack 6)", "tensorrt"),
        ("OpenVINO 2026.4", "openvino"),
        ("TFLite 2.7.1 (ruy)", "tflite"),
        ("LiteRT 1.2", "tflite"),
        ("TFLite Edge TPU delegate (coral.ai)", "edgetpu"),
        ("Arm NN 22.11 (OpenCL)", "other"),
        ("simulator 2020 (APQ)", "other"),
    ],
)
def test_family_when_named_as_profiles_do(text: str, family: Family) -> None:
    assert runtime_facts(text).family == family


def test_family_of_every_shipped_profile_is_meant() -> None:
    profiles = [read_model(path, HardwareProfile) for path in named_files("hw_profiles").values()]
    assert profiles
    families = {
        profile.name: runtime_facts(f"{profile.runtime} {profile.runtime_version}").family
        for profile in profiles
    }
    assert families["host"] == "onnxruntime"
    assert families["coral-edge-tpu"] == "edgetpu"
    assert families["raspberry-pi-4"] == "tflite"
    assert {family for name, family in families.items() if "jetson" in name} == {
        "tensorrt",
        "tflite",
    }


def test_facts_are_those_of_the_runtime() -> None:
    ours, tensorrt, openvino, other = (
        runtime_facts(text) for text in ("ONNX Runtime", "TensorRT 10.3", "OpenVINO", "Arm NN")
    )
    assert (ours.fusion, ours.timed_by, ours.runs_here) == ("relu", "onnxruntime", True)
    assert (tensorrt.fusion, tensorrt.timed_by, tensorrt.runs_here) == (
        "residual",
        "trtexec",
        False,
    )
    assert (openvino.fusion, openvino.timed_by) == (None, None)
    assert (other.timed_by, other.takes_float_file) == (None, True)
    assert (tensorrt.takes_float_file, tensorrt.runs_here) == (False, False)


def test_files_are_measured_as_they_are_made_for_the_runtime() -> None:
    assert runner_facts("trtexec") == runtime_facts("TensorRT 8")
    assert runner_facts("onnxruntime-cuda") == runtime_facts("ONNX Runtime")
