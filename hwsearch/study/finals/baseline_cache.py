"""Baselines that were fine-tuned fully by an earlier run on the same data, read instead of trained.

They depend on neither the budget nor what was searched: of eight minutes on one core, in which half
of the time went to full fine-tuning, the baselines of two backbones took two thirds of that half.
A folder ``baselines`` in the cache holds the network as a run folder would, and its scores, which
are written last. The key hashes all that decides them. A lock beside them keeps the scores of one
process from being read with the weights of another, whose last digits may differ.
"""

import dataclasses
import hashlib
import logging
from pathlib import Path
from typing import Final

from torch import nn

from hwsearch.accuracy.cached_network import locked, store
from hwsearch.accuracy.training import Recipe
from hwsearch.deploy.network_file import load_network, network_bytes
from hwsearch.errors import RunError
from hwsearch.files import cache_folder
from hwsearch.space.candidate import Candidate, canonical_json
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.study.finals.finalize import FinalScore, full_recipe

_LOG = logging.getLogger(__name__)

#: Part of every key; grows when full fine-tuning gives other weights from the same recipe.
_VERSION: Final = 1


class BaselineCache:
    """Fully fine-tuned baselines of a run's data, base networks and runtime.

    Args:
        bench: of the run.
    """

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._paths: dict[str, Path] = {}

    def holds(self, candidate: Candidate) -> bool:
        """Whether a baseline was fine-tuned before; its base network is there."""
        return self._path(candidate).is_file()

    def read(self, candidate: Candidate) -> tuple[FinalScore, nn.Module] | None:
        """The scores and the network; None where they are not there, or corrupt.

        Raises:
            HostError: the cache cannot be written, and so not be locked.
        """
        path = self._path(candidate)
        try:
            with locked(path):
                final = FinalScore.from_json(path.read_text(encoding="utf-8"))
                model, card = load_network(path.with_suffix(".safetensors"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, RunError) as error:
            _LOG.warning("'%s' is corrupt (%s); the baseline is trained again", path, error)
            return None
        if card.candidate.id != candidate.id:
            _LOG.warning("'%s' is of another network; the baseline is trained again", path)
            return None
        return final, model

    def keep(self, final: FinalScore, model: nn.Module) -> None:
        """Store a baseline that was fine-tuned fully.

        Raises:
            HostError: the cache cannot be written.
        """
        path = self._path(final.candidate)
        content = network_bytes(model, self._bench.card(final.candidate))
        with locked(path):
            store(path.with_suffix(".safetensors"), content)
            store(path, final.to_json().encode())

    def _path(self, candidate: Candidate) -> Path:
        if candidate.id not in self._paths:
            self._paths[candidate.id] = (
                cache_folder() / "baselines" / f"{self._key(candidate)}.json"
            )
        return self._paths[candidate.id]

    def _key(self, candidate: Candidate) -> str:
        bench = self._bench
        recipe: Recipe = full_recipe(candidate, bench)
        parts = {
            "base": bench.prepared(candidate).base.key,
            "candidate": candidate.to_json(),
            "recipe": dataclasses.asdict(recipe),
            "scheme": bench.profile.activation_quantization,
            "fusion": repr(bench.fusion),
            "version": _VERSION,
        }
        return hashlib.sha256(canonical_json(parts).encode()).hexdigest()
