"""Times ONNX files on the machine that it runs on.

The one file that is copied to a board: it imports nothing of hwsearch, runs on Python 3.8, and
needs onnxruntime or openvino (which bring NumPy), or TensorRT's ``trtexec`` instead. Usage::

    python runner.py JOB.json        or        python runner.py   with the job as a line on stdin

A job is an object with ``mode`` ("probe" only says what there is, "measure" times), ``runtime``
("onnxruntime", "onnxruntime-cuda", "openvino", "trtexec"), ``threads``, ``rounds``,
``extra_rounds`` (for nets that do not repeat), ``runs`` (in a round), ``warm_up``,
``seconds_per_round``, ``time_limit_s`` (of all rounds, or null: later rounds are left out when it
is over), ``precisions`` (of trtexec: "fp16", "int8", "typed"), ``anchor`` (an id or
null), ``end_with_stdin`` and ``nets``, a list of ``{"id": ..., "file": ...}``.

What comes out is a line of JSON per event, as soon as it happens, so that a killed run loses only
what was not finished: ``start``, ``round``, ``net``, ``refused``, ``anchor``, ``done``, ``error``.

The latency of a net is the least of the medians of its rounds. The rounds of all nets of a group
are interleaved, so that a minute of foreign load spoils one round of each and not all rounds of
one. On a quiet host 5 rounds of 16 runs repeat to 1.1 %. On a busy one the undisturbed moments are
short, and many short rounds find them: 15 rounds of 20 ms repeated to 6.1 % (median of 10 small
nets), 60 rounds of 5 ms to 0.85 % in the same time.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    import numpy as np

#: A round lasts at least so long: 5 runs of a 20 us net would fit into one interruption.
SHORTEST_ROUND_MS = 5.0
#: A round has no fewer runs however slow the net is, and no more however fast.
FEWEST_RUNS = 3
MOST_RUNS = 1000
#: Rounds of a net that a time limit does not take away.
FEWEST_ROUNDS = 4
#: A net whose two halves of rounds differ by no more than this has no extra rounds.
SETTLED_PERCENT = 1.0
#: Nets in memory at once. The more, the longer the time that the rounds of one are spread over (40
#: small nets: 20 s), and the more is lost by a kill.
MOST_NETS = 40
MOST_FILE_BYTES = 256 * 2**20
#: The energy counter of NVML moves every 20 to 100 ms: so long a loop is read to some percent.
ENERGY_LOOP_S = 2.0

#: OpenVINO's names of the element types that an input may have, as ONNX Runtime has them.
OPENVINO_TYPES = {
    "f32": "float", "f16": "float16", "f64": "double", "u8": "uint8", "i8": "int8",
    "i32": "int32", "i64": "int64", "boolean": "bool",
}  # fmt: skip

TRTEXEC_PLACES = ("/usr/src/tensorrt/bin/trtexec", "/opt/tensorrt/bin/trtexec")

#: As /proc/cpuinfo writes them, x86 first.
INSTRUCTION_SETS = (
    "avx2", "fma", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_bf16", "amx_int8", "asimd", "fphp", "asimdhp", "asimddp", "sve", "i8mm", "bf16",
)  # fmt: skip

_INTEGERS = {
    "tensor(uint8)": ("uint8", 256),
    "tensor(int8)": ("int8", 128),
    "tensor(int32)": ("int32", 2),
    "tensor(int64)": ("int64", 2),
    "tensor(bool)": ("bool", 2),
}
_FLOATS = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
}


class JobError(Exception):
    """This machine cannot do the job; the message is one line."""


class NetError(Exception):
    """The runtime refuses one net; the others go on."""


class Net(Protocol):
    """A net that a runtime has loaded."""

    def round(self, runs: int, seconds_per_round: float) -> dict[str, Any]:
        """One round: ``median_ms``, ``minimum_ms`` and ``runs``; may raise ``NetError``."""

    def energy_mj(self) -> float | None:
        """Energy of one run, or None where it cannot be read."""


class Runtime(Protocol):
    """What runs nets."""

    def start(self) -> dict[str, Any]:
        """The part of the ``start`` event that the runtime knows."""

    def load(self, file: str, job: dict[str, Any]) -> Net:
        """Open a file and warm it up; may raise ``NetError``."""


class Session(Protocol):
    """As much of ``onnxruntime.InferenceSession`` as is used."""

    def get_inputs(self) -> list[Any]:
        """Name, shape and type of each."""

    def get_outputs(self) -> list[Any]:
        """Name of each."""

    def run(self, names: list[str] | None, feed: dict[str, Any]) -> list[Any]:
        """Run once."""

    def io_binding(self) -> Any:  # noqa: ANN401 - a class of onnxruntime
        """Inputs and outputs that stay where they are."""

    def run_with_iobinding(self, binding: object) -> None:
        """Run once on bound inputs."""


# --- what would be left behind ----------------------------------------------------------------

_children: list[subprocess.Popen[str]] = []
_folders: list[str] = []


def remove_leftovers() -> None:
    """End the processes and remove the folders that this run made."""
    for child in list(_children):
        child.kill()
    for folder in list(_folders):
        shutil.rmtree(folder, ignore_errors=True)


def end_with_stdin() -> None:
    """End this process once nobody holds the other end of stdin: an orphan helps no one."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        remove_leftovers()
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()


# --- the machine ------------------------------------------------------------------------------


def read_text(path: str) -> str:
    """A small system file without its end, or nothing where there is none."""
    try:
        return Path(path).read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def cpu_name() -> str:
    """The processor as the kernel names it; on Arm boards often its architecture only."""
    for key in ("model name", "Model", "Hardware"):
        match = re.search(rf"^{key}\s*:\s*(.+)$", read_text("/proc/cpuinfo"), re.MULTILINE)
        if match:
            return match.group(1).strip()
    return platform.processor() or platform.machine()


def cpu_features() -> list[str]:
    """The instruction sets that decide how fast kernels are, of those that the kernel lists."""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", read_text("/proc/cpuinfo"), re.MULTILINE)
    known = set(match.group(1).split()) if match else set()
    return [name for name in INSTRUCTION_SETS if name in known]


def power_mode() -> str | None:
    """The power mode of a Jetson, else the governor of the processor clock, else None."""
    if shutil.which("nvpmodel"):
        done = subprocess.run(["nvpmodel", "-q"], stdout=subprocess.PIPE, check=False)
        match = re.search(r"NV Power Mode:\s*(\S+)", done.stdout.decode("utf-8", "replace"))
        if match:
            return match.group(1)
    return read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or None


def choose_cores(
    available: list[int], max_khz: dict[int, int], sibling_rank: dict[int, int], threads: int
) -> list[int]:
    """The cores to run on: the fastest (big.LITTLE), one of each pair of hyper-threads first.

    Among equals the last ones, since core 0 serves most interrupts.

    Raises:
        JobError: there are fewer cores than threads.
    """
    if threads > len(available):
        raise JobError(f"{threads} threads were asked for, but {len(available)} cores may be used")
    ordered = sorted(available, key=lambda core: (-max_khz[core], sibling_rank[core], -core))
    return sorted(ordered[:threads])


def pin(threads: int) -> list[int]:
    """Keep this process, and the threads it starts later, on the chosen cores; says which."""
    if not hasattr(os, "sched_setaffinity"):
        return []  # not Linux: the system places the threads
    available = sorted(os.sched_getaffinity(0))
    max_khz, rank = {}, {}
    for core in available:
        folder = f"/sys/devices/system/cpu/cpu{core}"
        max_khz[core] = int(read_text(f"{folder}/cpufreq/cpuinfo_max_freq") or 0)
        siblings = re.findall(r"\d+", read_text(f"{folder}/topology/thread_siblings_list"))
        rank[core] = siblings.index(str(core)) if str(core) in siblings else 0
    cores = choose_cores(available, max_khz, rank, threads)
    os.sched_setaffinity(0, cores)
    return cores


# --- rounds -----------------------------------------------------------------------------------


def runs_in_round(one_run_ms: float, runs: int, seconds_per_round: float) -> int:
    """Runs of a net in a round: more of a very fast net, fewer where the time does not allow."""
    long_enough = min(math.ceil(SHORTEST_ROUND_MS / one_run_ms), MOST_RUNS)
    affordable = int(seconds_per_round * 1e3 / one_run_ms)
    return max(FEWEST_RUNS, min(max(runs, long_enough), affordable))


def is_settled(medians_ms: list[float]) -> bool:
    """Whether the rounds of even and those of odd number tell the same."""
    even, odd = min(medians_ms[0::2]), min(medians_ms[1::2])
    return abs(even - odd) <= SETTLED_PERCENT / 100 * min(even, odd)


def make_groups(sizes: list[int], limit_bytes: int, limit_count: int) -> list[list[int]]:
    """Split nets, given by the sizes of their files, into groups in their order.

    A group holds at most ``limit_count`` nets of ``limit_bytes`` together, or one larger net.
    """
    groups: list[list[int]] = []
    used = 0
    for index, size in enumerate(sizes):
        if not groups or used + size > limit_bytes or len(groups[-1]) == limit_count:
            groups.append([])
            used = 0
        groups[-1].append(index)
        used += size
    return groups


def group_limit_bytes() -> int:
    """How large the files of a group may be; a session takes a few times its file in memory."""
    match = re.search(r"MemAvailable:\s*(\d+) kB", read_text("/proc/meminfo"))
    return min(MOST_FILE_BYTES, int(match.group(1)) * 1024 // 6) if match else MOST_FILE_BYTES


# --- ONNX Runtime -----------------------------------------------------------------------------


def input_shape(name: str, shape: list[object]) -> list[int]:
    """The shape to feed: as in the file, the batch 1 where the file leaves it open.

    Raises:
        NetError: another size is left open.
    """
    sizes = list(shape)
    if sizes and not isinstance(sizes[0], int):
        sizes[0] = 1
    fixed = [size for size in sizes if isinstance(size, int)]
    if len(fixed) != len(sizes):
        raise NetError(f"input '{name}' has the open shape {shape}; export it with fixed sizes")
    return fixed


def random_input(
    rng: np.random.Generator, name: str, kind: str, shape: list[object]
) -> np.ndarray[Any, Any]:
    """Values for one input of a file.

    Raises:
        NetError: a type that no picture or vector has, or an open shape.
    """
    sizes = input_shape(name, shape)
    if kind in _FLOATS:
        return rng.standard_normal(sizes).astype(_FLOATS[kind])
    if kind in _INTEGERS:
        dtype, end = _INTEGERS[kind]
        return rng.integers(0, end, sizes).astype(dtype)
    known = ", ".join(sorted({**_FLOATS, **_INTEGERS}))
    raise NetError(f"input '{name}' is a {kind}; known are {known}")


class OnnxRuntime:
    """The sessions of one process."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.on_gpu = job["runtime"] == "onnxruntime-cuda"
        self.threads = job["threads"]
        # Since 1.29 the packages for Linux report every session to their maker, and leave a file in
        # the temporary folder, unless this is set before the import.
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
        if self.on_gpu:
            # So that the first GPU of CUDA is the first of NVML too.
            os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
        try:
            import numpy
            import onnxruntime
        except ImportError as error:
            raise JobError(
                f"{sys.executable} cannot import {error.name}; install onnxruntime"
                f"{'-gpu' if self.on_gpu else ''} for it, or name another Python"
            ) from None
        self.numpy, self.ort = numpy, onnxruntime
        state = vars(onnxruntime.capi.onnxruntime_pybind11_state)
        # Its exceptions have no base class of their own.
        self.errors: tuple[type[Exception], ...] = (RuntimeError, ValueError)
        for value in state.values():
            if isinstance(value, type) and issubclass(value, Exception):
                self.errors += (value,)
        self.providers = ["CPUExecutionProvider"]
        self.gpu: NvmlGpu | None = None
        self.no_energy = "energy is read on NVIDIA GPUs only"
        if self.on_gpu:
            self._find_gpu()

    def _find_gpu(self) -> None:
        available = self.ort.get_available_providers()
        if "CUDAExecutionProvider" not in available:
            raise JobError(
                f"onnxruntime {self.ort.__version__} of {sys.executable} has no "
                f"CUDAExecutionProvider (it has {', '.join(available)}); install onnxruntime-gpu"
            )
        self.providers.insert(0, "CUDAExecutionProvider")
        self.gpu, self.no_energy = open_nvml()

    def start(self) -> dict[str, Any]:
        """What there is."""
        device = self.gpu.name if self.gpu else read_text("/proc/device-tree/model")
        return {
            "runtime": "onnxruntime-cuda" if self.on_gpu else "onnxruntime",
            "runtime_version": self.ort.__version__,
            "device": device or ("NVIDIA GPU" if self.on_gpu else cpu_name()),
            "energy": self.gpu is not None,
            "no_energy": self.no_energy,
        }

    def load(self, file: str, job: dict[str, Any]) -> TimedNet:
        """Open a file and warm it up.

        Raises:
            NetError: the runtime refuses it.
        """
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.execution_mode = self.ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        # Threads wait for work by spinning, as they do by default and so in deployment: waking a
        # sleeping thread for each kernel costs tens of microseconds. But they stop when a run
        # ends, or the idle threads of one session would take the cores of the one being timed.
        # With one thread there is no pool, and neither matters.
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        options.add_session_config_entry("session.force_spinning_stop", "1")
        try:
            session = self.ort.InferenceSession(file, options, providers=self.providers)
            if session.get_providers()[0] != self.providers[0]:
                raise JobError("onnxruntime found no usable GPU; check the driver, CUDA and cuDNN")
            net = TimedNet(session_call(self, session), self.gpu)
            net.warm_up(job["warm_up"])
        except self.errors as error:
            raise NetError(one_line(error)) from None
        return net


def session_call(runtime: OnnxRuntime, session: Session) -> Callable[[], object]:
    """What runs a session once on inputs of its own."""
    rng = runtime.numpy.random.default_rng(0)
    feed = {
        item.name: random_input(rng, item.name, item.type, item.shape)
        for item in session.get_inputs()
    }
    if not runtime.on_gpu:
        return lambda: session.run(None, feed)
    # On the GPU inputs and outputs stay there: copies would be timed otherwise, which a
    # pipeline of a camera hides behind the net before.
    binding = session.io_binding()
    for name, value in feed.items():
        on_gpu = runtime.ort.OrtValue.ortvalue_from_numpy(value, "cuda", 0)
        binding.bind_ortvalue_input(name, on_gpu)
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda")

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return call


class TimedNet:
    """A net of this process.

    Args:
        call: runs it once and waits for the result.
        gpu: whose energy counter is read, or None.
    """

    def __init__(self, call: Callable[[], object], gpu: NvmlGpu | None = None) -> None:
        self.call, self.gpu = call, gpu

    def warm_up(self, runs: int) -> None:
        """Run a few times: the first allocates; the fastest says how many runs fit a round."""
        self.one_run_ms = max(1e-4, min(self._times_ms(max(2, runs))))

    def round(self, runs: int, seconds_per_round: float) -> dict[str, Any]:
        """One round: its median and minimum."""
        # One run that does not count: the nets before have emptied the caches of this one's
        # weights, and a pipeline runs one net over and over.
        self.call()
        times = self._times_ms(runs_in_round(self.one_run_ms, runs, seconds_per_round))
        return {
            "median_ms": statistics.median(times),
            "minimum_ms": min(times),
            "runs": len(times),
        }

    def energy_mj(self) -> float | None:
        """Energy of one run by the counter of the GPU, or None where there is none."""
        if self.gpu is None:
            return None
        count, begin_mj = 0, self.gpu.energy_mj()
        end = time.perf_counter() + ENERGY_LOOP_S
        while time.perf_counter() < end:
            self.call()
            count += 1
        return (self.gpu.energy_mj() - begin_mj) / count

    def _times_ms(self, runs: int) -> list[float]:
        call, clock = self.call, time.perf_counter_ns
        times = []
        for _ in range(runs):
            begin = clock()
            call()
            times.append((clock() - begin) / 1e6)
        return times


class NvmlGpu:
    """The energy counter of a GPU."""

    def __init__(self, nvml: ModuleType, handle: object) -> None:
        self.nvml, self.handle = nvml, handle
        name = nvml.nvmlDeviceGetName(handle)
        self.name = name.decode() if isinstance(name, bytes) else name
        self.energy_mj()  # raises where the GPU has no counter

    def energy_mj(self) -> float:
        """Energy of the whole GPU board since the driver was loaded."""
        return float(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle))


def open_nvml() -> tuple[NvmlGpu | None, str]:
    """The GPU that CUDA counts first, or None and why its energy cannot be read."""
    try:
        import pynvml  # type: ignore[import-not-found, unused-ignore] # an extra of GPU machines
    except ImportError:
        return None, "pynvml is not installed (package nvidia-ml-py)"
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    try:
        pynvml.nvmlInit()
        if first.isdigit():
            return NvmlGpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(int(first))), ""
        return NvmlGpu(pynvml, pynvml.nvmlDeviceGetHandleByUUID(first)), ""
    except pynvml.NVMLError as error:
        return None, f"NVML has no energy of this GPU ({one_line(error)})"


# --- OpenVINO ---------------------------------------------------------------------------------


class OpenVino:
    """The compiled models of one process, on the processor."""

    def __init__(self, job: dict[str, Any]) -> None:
        # It reports every session to its maker, and leaves a file in the home folder, unless it
        # does not find the package that does so.
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
        try:
            import numpy
            import openvino
        except ImportError as error:
            raise JobError(
                f"{sys.executable} cannot import {error.name}; install openvino for it, or name "
                "another Python"
            ) from None
        self.numpy, self.openvino = numpy, openvino
        self.core = openvino.Core()
        self.options = {
            "INFERENCE_NUM_THREADS": job["threads"],
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            # The cores are chosen already; two processes that chose would take the same.
            "ENABLE_CPU_PINNING": False,
        }

    def start(self) -> dict[str, Any]:
        """What there is."""
        return {
            "runtime": "openvino",
            "runtime_version": self.openvino.__version__.split("-")[0],
            "device": read_text("/proc/device-tree/model") or cpu_name(),
            "energy": False,
            "no_energy": "energy is read on NVIDIA GPUs only",
        }

    def load(self, file: str, job: dict[str, Any]) -> TimedNet:
        """Compile a file and warm it up.

        Raises:
            NetError: the runtime refuses it.
        """
        rng = self.numpy.random.default_rng(0)
        try:
            request = self.core.compile_model(file, "CPU", self.options).create_infer_request()
            for port in request.model_inputs:
                shape = [size.get_length() if size.is_static else "" for size in port.partial_shape]
                kind = f"tensor({OPENVINO_TYPES.get(port.element_type.get_type_name(), '?')})"
                value = random_input(rng, port.any_name, kind, shape)
                request.set_tensor(port, self.openvino.Tensor(value))
            net = TimedNet(request.infer)
            net.warm_up(job["warm_up"])
        except RuntimeError as error:
            raise NetError(one_line(error)) from None
        return net


# --- trtexec ----------------------------------------------------------------------------------


def parse_trtexec(text: str) -> dict[str, Any]:
    """Read what ``trtexec`` printed.

    Returns:
        ``version`` as a list of integers (empty where it is not said), ``device`` or None, and
        of the performance summary ``median_ms``, ``minimum_ms`` (GPU Compute Time, which is what
        the kernels take), ``latency_median_ms`` and ``latency_minimum_ms``, or None for each.
    """
    result: dict[str, Any] = {"version": trtexec_version(text), "device": None}
    match = re.search(r"Selected Device: (.+?)\s*$", text, re.MULTILINE)
    if match:
        result["device"] = match.group(1)
    for key, titles in (("", "GPU Compute(?: Time)?"), ("latency_", "(?:Host )?Latency")):
        line = rf"\] {titles}: min = (\S+) ms, .*?median = (\S+) ms"
        # TensorRT up to 8.1 wrote a line for each figure.
        block = rf"\] {titles}\s*$(?:\s*^.*\] (?:(?:min: (\S+)|median: (\S+)|max:|mean:).*)$)+"
        found = re.search(line, text) or re.search(block, text, re.MULTILINE)
        numbers = [float(number) for number in found.groups()] if found else [None, None]
        result[f"{key}minimum_ms"], result[f"{key}median_ms"] = numbers
    return result


def trtexec_version(text: str) -> list[int]:
    """The version in the first line: ``v8201`` is 8.2.1, ``v100300`` is 10.3.0."""
    match = re.search(r"TensorRT\.trtexec \[TensorRT v([\d.]+)\]", text)
    if match is None:
        return []
    if "." in match.group(1):
        return [int(part) for part in match.group(1).split(".")]
    number = int(match.group(1))
    if number < 10000:
        return [number // 1000, number // 100 % 10, number % 100]
    return [number // 10000, number // 100 % 100, number % 100]


def precision_options(version: list[int], precisions: list[str]) -> list[str]:
    """The options for precisions: TensorRT 11 has none, there the file alone decides.

    With "typed" it decides in 10 as well; before, its types have to be allowed one by one.
    """
    if version[0] >= 11:
        return []
    if "typed" in precisions and version[0] == 10:
        return ["--stronglyTyped"]
    return [f"--{name}" for name in precisions if name != "typed"]


class Trtexec:
    """TensorRT's own timing tool, a process for each round."""

    def __init__(self, job: dict[str, Any]) -> None:
        found = [shutil.which("trtexec"), *(path for path in TRTEXEC_PLACES if Path(path).exists())]
        self.path = next((path for path in found if path is not None), "")
        if not self.path:
            places = " or ".join(TRTEXEC_PLACES)
            raise JobError(f"trtexec is neither in PATH nor at {places}; install TensorRT")
        self.about = parse_trtexec(self._output(["--help"]))
        if not self.about["version"]:
            raise JobError(f"{self.path} does not say its version; is it TensorRT's trtexec?")
        self.options = precision_options(self.about["version"], job["precisions"])

    def start(self) -> dict[str, Any]:
        """What there is."""
        return {
            "runtime": "trtexec",
            "runtime_version": ".".join(map(str, self.about["version"])),
            "device": read_text("/proc/device-tree/model") or "NVIDIA GPU",
            "energy": False,
            "no_energy": "trtexec does not read energy",
        }

    def load(self, file: str, job: dict[str, Any]) -> TrtexecNet:
        """Build the engine, once for all rounds.

        Raises:
            NetError: TensorRT refuses the file.
        """
        if not _folders:
            _folders.append(tempfile.mkdtemp(prefix="hwsearch-engines-", dir=job.get("folder")))
        engine = str(Path(_folders[0]) / (Path(file).stem + ".engine"))
        build = [f"--onnx={file}", f"--saveEngine={engine}", *self.options]
        first = self.timed([*build, "--warmUp=0", "--duration=0", f"--iterations={FEWEST_RUNS}"])
        return TrtexecNet(self, engine, first["median_ms"])

    def timed(self, arguments: list[str]) -> dict[str, Any]:
        """Run it and read the figures; ``NetError`` where it printed none."""
        output = self._output(arguments)
        result = parse_trtexec(output)
        if result["median_ms"] is None:
            wrong = re.search(r"\[E\] (.+)", output)
            raise NetError(one_line(wrong.group(1) if wrong else "trtexec printed no times"))
        return result

    def _output(self, arguments: list[str]) -> str:
        child = subprocess.Popen(
            [self.path, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            universal_newlines=True,
            errors="replace",
        )
        _children.append(child)
        try:
            return child.communicate()[0]
        finally:
            _children.remove(child)


class TrtexecNet:
    """One built engine."""

    def __init__(self, tool: Trtexec, engine: str, one_run_ms: float) -> None:
        self.tool, self.engine, self.one_run_ms = tool, engine, one_run_ms

    def round(self, runs: int, seconds_per_round: float) -> dict[str, Any]:
        """One round: its median and minimum of the GPU time."""
        count = runs_in_round(self.one_run_ms, runs, seconds_per_round)
        # The processor waits by spinning, for steadier times. No transfers: they would overlap
        # with the kernels, and on a Jetson take their memory bandwidth.
        steady = ["--useSpinWait", "--noDataTransfers"]
        limits = ["--warmUp=200", "--duration=0", f"--iterations={count}"]
        result = self.tool.timed([f"--loadEngine={self.engine}", *steady, *limits])
        return {
            "median_ms": result["median_ms"],
            "minimum_ms": result["minimum_ms"],
            "runs": count,
        }

    def energy_mj(self) -> float | None:
        """Not read."""
        return None


# --- the job ----------------------------------------------------------------------------------


class Events:
    """Where the lines go. Anything else that writes to stdout is sent to stderr."""

    def __init__(self) -> None:
        self.file = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def emit(self, event: str, **values: object) -> None:
        """Write one line, at once."""
        self.file.write(json.dumps({"event": event, **values}) + "\n")
        self.file.flush()


def one_line(error: object) -> str:
    """The first 300 characters of a message, without line breaks."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def load_group(
    runtime: Runtime, job: dict[str, Any], items: list[dict[str, str]], events: Events
) -> dict[str, Net]:
    """The nets of a group that the runtime takes, by id; the others are reported."""
    loaded: dict[str, Net] = {}
    for item in items:
        try:
            loaded[item["id"]] = runtime.load(item["file"], job)
        except NetError as error:
            events.emit("refused", id=item["id"], reason=str(error))
    return loaded


def medians_ms(rounds: list[dict[str, Any]]) -> list[float]:
    """The medians of some rounds."""
    return [result["median_ms"] for result in rounds]


def measure_group(
    runtime: Runtime,
    job: dict[str, Any],
    items: list[dict[str, str]],
    wanted: set[str],
    events: Events,
    end: float,
) -> None:
    """Time the nets of one group in interleaved rounds.

    ``wanted`` are those to report; after ``end`` (of ``time.monotonic``) rounds are left out.
    """
    loaded = load_group(runtime, job, items, events)
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in loaded}
    for number in range(job["rounds"] + job["extra_rounds"]):
        if number >= FEWEST_ROUNDS and time.monotonic() > end:
            break
        names = list(loaded)
        if number >= job["rounds"]:
            names = [name for name in names if not is_settled(medians_ms(rounds[name]))]
        if number % 2:
            names.reverse()  # to and fro, so that no net always follows the same one
        for name in names:
            try:
                result = loaded[name].round(job["runs"], job["seconds_per_round"])
            except NetError as error:
                events.emit("refused", id=name, reason=str(error))
                del loaded[name]
                continue
            rounds[name].append(result)
            events.emit("round", id=name, round=number, **result)
    for name, net in loaded.items():
        latency_ms = min(medians_ms(rounds[name]))
        if name == job["anchor"]:
            events.emit("anchor", id=name, latency_ms=latency_ms)
        if name in wanted:
            events.emit(
                "net",
                id=name,
                latency_ms=latency_ms,
                rounds_ms=medians_ms(rounds[name]),
                minimum_ms=min(result["minimum_ms"] for result in rounds[name]),
                energy_mj=net.energy_mj(),
            )


def measure(runtime: Runtime, job: dict[str, Any], events: Events) -> None:
    """Time all nets of a job, the anchor again in every group."""
    sizes = []
    for item in job["nets"]:
        try:
            sizes.append(Path(item["file"]).stat().st_size)
        except OSError as error:
            raise JobError(f"{item['file']} cannot be read ({error.strerror})") from None
    anchor = [item for item in job["nets"] if item["id"] == job["anchor"]]
    unwanted = set(job.get("only_anchor", []))
    todo = [index for index, item in enumerate(job["nets"]) if item["id"] not in unwanted]
    limit = group_limit_bytes()
    time_limit_s = job["time_limit_s"]
    end = math.inf if time_limit_s is None else time.monotonic() + time_limit_s
    left = len(todo)
    for group in make_groups([sizes[index] for index in todo], limit, MOST_NETS):
        # Each net has an equal part of what is left of the time.
        now = time.monotonic()
        share_end = now + (end - now) * len(group) / left
        left -= len(group)
        items = [job["nets"][todo[position]] for position in group]
        wanted = {item["id"] for item in items}
        items += [item for item in anchor if item["id"] not in wanted]
        measure_group(runtime, job, items, wanted, events, share_end)


def run(job: dict[str, Any], events: Events) -> None:
    """Do a job; raises ``JobError`` where this machine cannot."""
    cores = pin(job["threads"]) if job["runtime"] != "trtexec" else []
    kinds: dict[str, Callable[[dict[str, Any]], Runtime]] = {
        "trtexec": Trtexec,
        "openvino": OpenVino,
    }
    runtime: Runtime = kinds.get(job["runtime"], OnnxRuntime)(job)
    about = {
        "cpu": cpu_name(),
        "cpu_features": cpu_features(),
        "power_mode": power_mode(),
        "cores": cores,
        "pid": os.getpid(),
    }
    events.emit("start", **runtime.start(), **about)
    if job["mode"] == "measure":
        gc.disable()  # a collection in the middle of a run would be timed
        measure(runtime, job, events)
    events.emit("done")


def main(arguments: list[str]) -> int:
    """Read the job and do it; the exit code is 0, or 3 after an ``error`` line."""
    events = Events()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    text = Path(arguments[0]).read_text("utf-8") if arguments else sys.stdin.buffer.readline()
    job = json.loads(text)
    if job.get("end_with_stdin"):
        end_with_stdin()
    try:
        run(job, events)
    except JobError as error:
        events.emit("error", message=str(error))
        return 3
    except BrokenPipeError:
        return 3  # nobody reads the results any more
    finally:
        remove_leftovers()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
