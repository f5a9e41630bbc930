from pathlib import Path

import fit_published
import pytest
import yaml
from published import DATA, NEEDS_DATA

from hwsearch.files import packaged_folder, read_model
from hwsearch.hardware.profile import HardwareProfile

SHIPPED = packaged_folder("hw_profiles")


def fitted(path: Path) -> HardwareProfile:
    return read_model(path, HardwareProfile)


def test_sources_when_listed_then_each_is_of_a_shipped_profile_with_a_fit() -> None:
    sources = fit_published.published_sources()
    with_fit = {
        path.stem
        for path in SHIPPED.glob("*.yaml")
        if "fit" in yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    }
    # The host is fitted to measurements of this project (measure_host.py), not to published ones.
    assert set(sources) == with_fit - {"host"}


def test_main_when_no_table_is_for_a_name_says_which_there_are(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no table is for jetson-nanoo\. Did you mean 'jetson-n"):
        fit_published.main([str(tmp_path), "jetson-nanoo"])


@NEEDS_DATA
def test_fit_when_made_twice_is_the_same_and_keeps_all_but_the_fit(tmp_path: Path) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        arguments = [str(DATA), "jetson-orin-nano", "--into", str(tmp_path / folder)]
        fit_published.main(arguments)
    texts = [(tmp_path / f / "jetson-orin-nano.yaml").read_text() for f in ("first", "second")]
    assert texts[0] == texts[1]
    new, old = (fitted(f / "jetson-orin-nano.yaml") for f in (tmp_path / "first", SHIPPED))
    assert new.model_copy(update={"fit": None}) == old.model_copy(update={"fit": None})
    assert new.fit is not None
    assert new.fit.latency.networks == 6
    assert new.fit.energy is None
    assert (
        texts[0].splitlines()[0] == (SHIPPED / "jetson-orin-nano.yaml").read_text().split("\n")[0]
    )


def test_fit_when_the_folder_has_no_rows_says_so(tmp_path: Path) -> None:
    source = fit_published.Source(read=lambda _: [], reference="none", evidence="measured")
    with pytest.raises(ValueError, match="holds no measurements for host; is it the folder of"):
        fit_published.fit_published("host", source, tmp_path)
