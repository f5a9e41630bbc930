from pathlib import Path

import pytest

from hwsearch.errors import RunError, UserError
from hwsearch.ship.trtexec_log import TrtexecLog, read_log

# The lines are of the form that trtexec writes; the figures of the first two are those of public
# logs (NVIDIA/TensorRT issues 4177 and 3747, ultralytics/yolov5 issue 9076).
VERSION_10 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # /usr/src/tensorrt/bin/trtexec {arguments}
[04/21/2025-16:34:20] [I] === Model Options ===
[04/21/2025-16:34:20] [I] Format: *
[04/21/2025-16:34:20] [I] === Device Information ===
[04/21/2025-16:34:20] [I] Selected Device: Orin
[04/21/2025-16:34:20] [I] Compute Capability: 8.7
[04/21/2025-16:34:30] [I] === Performance summary ===
[04/21/2025-16:34:30] [I] Throughput: 130.298 qps
[04/21/2025-16:34:30] [I] Latency: min = 5.38672 ms, max = 13.3664 ms, mean = 7.60628 ms, \
median = 7.16092 ms, percentile(90%) = 10.2996 ms, percentile(95%) = 10.8698 ms, \
percentile(99%) = 12.9675 ms
[04/21/2025-16:34:30] [I] Enqueue Time: min = 2.72876 ms, max = 15.0201 ms, mean = 7.63062 ms, \
median = 7.86694 ms, percentile(90%) = 10.1792 ms, percentile(99%) = 14.1848 ms
[04/21/2025-16:34:30] [I] H2D Latency: min = 0.0065918 ms, max = 0.0698242 ms, mean = 0.0122212 \
ms, median = 0.00814819 ms, percentile(99%) = 0.0515137 ms
[04/21/2025-16:34:30] [I] GPU Compute Time: min = 5.34595 ms, max = 13.3388 ms, mean = 7.58404 \
ms, median = {median} ms, percentile(90%) = 10.2881 ms, percentile(99%) = 12.9485 ms
[04/21/2025-16:34:30] [I] D2H Latency: min = 0.00390625 ms, max = 0.110596 ms, mean = 0.0100141 \
ms, median = 0.00439453 ms, percentile(99%) = 0.0994873 ms
[04/21/2025-16:34:30] [I] Total Host Walltime: 3.00082 s
[04/21/2025-16:34:30] [I] Total GPU Compute Time: 2.96536 s
&&&& PASSED TensorRT.trtexec [TensorRT v100300] # /usr/src/tensorrt/bin/trtexec {arguments}
"""
VERSION_8_1 = """\
&&&& RUNNING TensorRT.trtexec [TensorRT v8001] # trtexec --loadEngine=best.engine
[08/22/2022-00:53:10] [I] === Device Information ===
[08/22/2022-00:53:10] [I] Selected Device: NVIDIA Tegra X1
[06/12/2022-22:34:00] [I] Host Latency
[06/12/2022-22:34:00] [I] min: 1.64058 ms (end to end 1.66368 ms)
[06/12/2022-22:34:00] [I] max: 6.2915 ms (end to end 7.65552 ms)
[06/12/2022-22:34:00] [I] mean: 1.66069 ms (end to end 3.00909 ms)
[06/12/2022-22:34:00] [I] median: 1.65601 ms (end to end 3.01636 ms)
[06/12/2022-22:34:00] [I] percentile: 1.67065 ms at 99% (end to end 3.03931 ms at 99%)
[06/12/2022-22:34:00] [I] throughput: 0 qps
[06/12/2022-22:34:00] [I] walltime: 3.00461 s
[06/12/2022-22:34:00] [I] GPU Compute
[06/12/2022-22:34:00] [I] min: 1.54785 ms
[06/12/2022-22:34:00] [I] max: 6.19507 ms
[06/12/2022-22:34:00] [I] mean: 1.56534 ms
[06/12/2022-22:34:00] [I] median: 1.56055 ms
[06/12/2022-22:34:00] [I] percentile: 1.57471 ms at 99%
&&&& PASSED TensorRT.trtexec [TensorRT v8001] # trtexec --loadEngine=best.engine
"""
VERSION_11 = VERSION_10.replace("[TensorRT v100300]", "[TensorRT v11.1.0.106] [b48]")


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trtexec.log"
    path.write_text(text, encoding="utf-8")
    return path


def call(
    median: float, arguments: str = "--loadEngine=model.engine", text: str = VERSION_10
) -> str:
    return text.format(median=median, arguments=arguments)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (VERSION_10, "10.3.0"),
        (VERSION_10.replace("v100300", "v8601"), "8.6.1"),
        (VERSION_11, "11.1.0.106"),
        (VERSION_11.replace("v11.1.0.106", "v110300"), "11.3.0"),
    ],
)
def test_log_when_of_one_run_gives_the_median_of_gpu_time(
    text: str, version: str, tmp_path: Path
) -> None:
    log = read_log(written(tmp_path, call(7.14139, text=text)))
    assert log == TrtexecLog(version=version, device="Orin", medians_ms=(7.14139,))
    assert log.latency_ms == 7.14139
    assert log.runtime == f"TensorRT {version}"


def test_log_when_written_before_8_2_is_read(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, VERSION_8_1))
    assert log == TrtexecLog(version="8.0.1", device="NVIDIA Tegra X1", medians_ms=(1.56055,))


def test_log_when_of_several_rounds_takes_the_least(tmp_path: Path) -> None:
    log = read_log(written(tmp_path, "".join(call(median) for median in (7.2, 6.9, 7.0))))
    assert log.medians_ms == (7.2, 6.9, 7.0)
    assert log.latency_ms == 6.9


def test_log_when_the_engine_was_built_in_it_leaves_that_run_out(tmp_path: Path) -> None:
    text = call(1.0, "--onnx=model.onnx --saveEngine=model.engine") + call(7.2) + call(7.1)
    assert read_log(written(tmp_path, text)).medians_ms == (7.2, 7.1)


def test_log_when_nothing_was_loaded_takes_the_run_that_built(tmp_path: Path) -> None:
    assert read_log(written(tmp_path, call(3.0, "--onnx=model.onnx"))).medians_ms == (3.0,)


def test_log_when_its_first_line_was_cut_off_is_read(tmp_path: Path) -> None:
    text = call(7.5).partition("\n")[2]
    assert read_log(written(tmp_path, text.split("&&&& PASSED")[0])) == TrtexecLog(
        version="", device="Orin", medians_ms=(7.5,)
    )


def test_log_when_the_last_round_failed_keeps_the_others(tmp_path: Path) -> None:
    failed = "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # trtexec --loadEngine=x\n[E] no\n"
    assert read_log(written(tmp_path, call(7.2) + failed)).medians_ms == (7.2,)


@pytest.mark.parametrize(
    "text",
    ["", "no log", "&&&& RUNNING TensorRT.trtexec [TensorRT v110201] [b3] # trtexec\n[E] refused"],
)
def test_log_when_it_has_no_times_says_so(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no times of trtexec; give the log of a run"):
        read_log(written(tmp_path, text))


def test_log_when_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot be read .* give the log's path"):
        read_log(tmp_path / "missing.log")
