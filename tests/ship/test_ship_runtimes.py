import pytest

from hwsearch.deploy.ranges import fusion_of
from hwsearch.files import named_files, read_model
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.runtime_family import Family, family_of
from hwsearch.ship.runtimes import timed_by


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
    assert family_of(text) == family


def test_family_of_every_shipped_profile_is_meant() -> None:
    profiles = [read_model(path, HardwareProfile) for path in named_files("hw_profiles").values()]
    assert profiles
    families = {
        profile.name: family_of(f"{profile.runtime} {profile.runtime_version}")
        for profile in profiles
    }
    assert families["host"] == "onnxruntime"
    assert families["coral-edge-tpu"] == "edgetpu"
    assert families["raspberry-pi-4"] == "tflite"
    assert {family for name, family in families.items() if "jetson" in name} == {
        "tensorrt",
        "tflite",
    }


def test_fusion_is_that_of_the_runtime() -> None:
    assert fusion_of("onnxruntime") == "relu"
    assert fusion_of("tensorrt") == "residual"
    assert fusion_of("openvino") is None


def test_timing_is_by_the_runtime_of_the_target_or_by_none() -> None:
    assert timed_by("onnxruntime") == "onnxruntime"
    assert timed_by("tensorrt") == "trtexec"
    assert timed_by("edgetpu") is None
    assert timed_by("other") is None
