"""The command ``hwsearch`` with clocks that count processor time, its own and its children's.

::

    python benchmarks/search/cpu_clock.py run --target host --budget 0.3ms --time-limit 8m

Arms that run on a machine beside something else are compared by the processor time that they take:
then ``--time-limit`` has to mean it too. A child counts from when it has ended and was waited for.
With one thread on an idle core both are the same, but for what the tool waits for.
"""

# Modules that wait for something bind the clock when they are imported; these keep the real one,
# since the time that a process sleeps is no processor time and such a wait would never end.
import concurrent.futures.thread
import os
import queue
import selectors
import subprocess
import threading
import time

__all__ = ["cpu_seconds", "main"]
_WAITING = (concurrent.futures.thread, queue, selectors, subprocess, threading)


def cpu_seconds() -> float:
    """Processor time of this process and of its children that have ended, in seconds."""
    # os.times() counts in steps of 10 ms, which is enough for whole children only.
    times = os.times()
    return time.process_time() + times.children_user + times.children_system


def main() -> None:
    """Replace the clocks, then run the command."""
    time.perf_counter = time.monotonic = cpu_seconds
    from hwsearch.cli.main import main as command

    command()


if __name__ == "__main__":
    main()
