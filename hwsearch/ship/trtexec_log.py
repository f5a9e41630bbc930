"""Latencies that a person measured with ``trtexec`` on the device, read from its log."""

import itertools
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hwsearch.errors import RunError, UserError
from hwsearch.hardware.measure.runner import parse_trtexec

#: What every call of ``trtexec`` begins with.
_BEGIN: Final = re.compile(r"^&&&& RUNNING TensorRT\.trtexec ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class TrtexecLog:
    """What a log says.

    Attributes:
        version: of TensorRT, as "10.3.0"; "" where the log does not say it.
        device: the GPU; None where the log does not say it.
        medians_ms: the median of the GPU compute time of each round.
    """

    version: str
    device: str | None
    medians_ms: tuple[float, ...]

    @property
    def latency_ms(self) -> float:
        """The least of the medians, as when hwsearch measures by itself."""
        return min(self.medians_ms)

    @property
    def runtime(self) -> str:
        """For people."""
        return f"TensorRT {self.version}".strip()


def read_log(path: Path) -> TrtexecLog:
    """Read a log; of several calls in it those that loaded an engine count, if there are any.

    Raises:
        RunError: the file cannot be read.
        UserError: it holds no times of ``trtexec``.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); give the log's path") from None
    starts = [match.start() for match in _BEGIN.finditer(text)] or [0]
    calls = [text[begin:end] for begin, end in itertools.pairwise([*starts, len(text)])]
    loading = [call for call in calls if "--loadEngine" in call.partition("\n")[0]]
    found = [parse_trtexec(call) for call in loading or calls]
    timed = [each for each in found if each["median_ms"] is not None]
    if not timed:
        raise UserError(
            f"{path} holds no times of trtexec; give the log of a run that was not cut off, as "
            "build_tensorrt.sh writes it"
        )
    # TensorRT names the device when it builds, and again at each load.
    device = next((each["device"] for each in timed if each["device"]), None)
    return TrtexecLog(
        version=".".join(str(part) for part in timed[0]["version"]),
        device=device,
        medians_ms=tuple(each["median_ms"] for each in timed),
    )
