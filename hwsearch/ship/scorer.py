"""Scores ONNX files in a process of its own, so that a runtime that crashes takes nothing along.

Run as ``python -m hwsearch.ship.scorer`` with a job as a line of JSON on stdin: ``pictures`` (a
safetensors file with ``images``, uint8 (N, 3, S, S), and ``labels``, (N,)), ``threads`` and
``files``, a list of ``{"id", "file", "scale", "offset"}``. It prints a line of JSON per event:
``begin`` and then ``score`` (or ``refused``) for each file.

Neither torch nor anything else of hwsearch is imported: what it does to a picture is what the
hand-over scripts do.
"""

import json
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray


def say(event: str, **content: object) -> None:
    """Print an event at once."""
    sys.stdout.write(json.dumps({"event": event, **content}) + "\n")
    sys.stdout.flush()


def score(file: dict[str, Any], images: NDArray[Any], labels: NDArray[Any], threads: int) -> int:
    """How many pictures a file is right about; one at a time, as it is used.

    Raises:
        ValueError: a logit is not finite.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        file["file"], options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    scale, offset = (
        np.array(file[word], np.float32).reshape(1, 3, 1, 1) for word in ("scale", "offset")
    )
    correct = 0
    for image, label in zip(images, labels, strict=True):
        logits = session.run(None, {name: image[None].astype(np.float32) * scale + offset})[0]
        if not np.isfinite(logits).all():
            raise ValueError("a logit is not finite")
        correct += int(logits[0].argmax() == label)
    return correct


def main() -> None:
    """Score the files of the job on stdin."""
    from safetensors.numpy import load_file

    job = json.loads(sys.stdin.readline())
    held_out = load_file(job["pictures"])
    for file in job["files"]:
        say("begin", id=file["id"])
        try:
            correct = score(file, held_out["images"], held_out["labels"], job["threads"])
        except Exception as error:  # noqa: BLE001 - what the runtime raises is said of this file
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            say("refused", id=file["id"], reason=reason)
        else:
            say("score", id=file["id"], correct=correct, total=len(held_out["labels"]))


if __name__ == "__main__":
    main()
