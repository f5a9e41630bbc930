"""The published measurements, which lie beside a checkout and in no repository."""

from pathlib import Path
from typing import Final

import pytest

DATA: Final = Path(__file__).resolve().parents[2].parent / "shared" / "data"
NEEDS_DATA: Final = pytest.mark.skipif(
    not DATA.is_dir(), reason="the published measurements (../shared/data) are not here"
)
