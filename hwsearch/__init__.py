"""hwsearch finds the deployable neural networks for a device.

>>> import hwsearch
>>> result = hwsearch.search(target="jetson", budget="10ms", data="digits")  # doctest: +SKIP
>>> network = hwsearch.load(result.folder)  # doctest: +SKIP
>>> cost = hwsearch.predict("resnet18", target="jetson", bits=8)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hwsearch.api import Result, export, load, predict, reprice, search, verify

__version__ = "0.1.0"

__all__ = ["Result", "__version__", "export", "load", "predict", "reprice", "search", "verify"]


def __getattr__(name: str) -> object:
    # Imported on first use: the search needs torch, `hwsearch --help` does not.
    if name in {"Result", "export", "load", "predict", "reprice", "search", "verify"}:
        from hwsearch import api

        return getattr(api, name)
    raise AttributeError(f"module 'hwsearch' has no attribute '{name}'")
