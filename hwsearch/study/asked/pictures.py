"""The pictures of a run, as its settings say."""

from pathlib import Path

from hwsearch.accuracy.data.dataset import DataSet
from hwsearch.accuracy.data.sources import load_data
from hwsearch.study.asked.settings import RunSettings


def load_pictures(settings: RunSettings) -> DataSet:
    """Load the data set of a run at all sides of its space; raises what ``load_data`` does."""
    return load_data(
        settings.data,
        px=settings.space.input_px,
        seed=settings.seed,
        root=None if settings.data_root is None else Path(settings.data_root),
        download=settings.download,
        flip=settings.flip,
    )
