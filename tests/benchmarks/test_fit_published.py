from pathlib import Path

import fit_published
import pytest
import tables
import yaml

from hwsearch.files import packaged_folder, read_model
from hwsearch.hardware.profile import HardwareProfile

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SHIPPED = packaged_folder("hw_profiles")

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the published measurements (../shared/data) are not here"
)


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


@needs_data
def test_main_when_run_twice_writes_the_same_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("first", "second"):
        (tmp_path / folder).mkdir()
        arguments = [str(DATA), "jetson-orin-nano", "--into", str(tmp_path / folder)]
        fit_published.main(arguments)
    texts = [(tmp_path / f / "jetson-orin-nano.yaml").read_text() for f in ("first", "second")]
    assert texts[0] == texts[1]
    title, row, *_ = capsys.readouterr().out.splitlines()
    assert " ".join(title.split()) == "profile nets latency MAPE rho covers energy MAPE rho covers"
    assert row.split()[:2] == ["jetson-orin-nano", "6"]


@needs_data
def test_fit_when_made_again_keeps_all_but_the_fit(tmp_path: Path) -> None:
    fit_published.main([str(DATA), "jetson-orin-nano", "--into", str(tmp_path)])
    new, old = (fitted(folder / "jetson-orin-nano.yaml") for folder in (tmp_path, SHIPPED))
    assert new.model_copy(update={"fit": None}) == old.model_copy(update={"fit": None})
    assert new.fit is not None
    assert new.fit.latency.networks == 6
    assert new.fit.energy is None
    reference = new.fit.latency.provenance.reference
    assert "Intervals are widened by 73 % (one sigma)" in reference
    assert reference.endswith("../shared/data jetson-orin-nano`.")
    head = (SHIPPED / "jetson-orin-nano.yaml").read_text().splitlines()[:4]
    assert (tmp_path / "jetson-orin-nano.yaml").read_text().splitlines()[:4] == head


@needs_data
@pytest.mark.parametrize("name", ["raspberry-pi-4", "jetson-agx-orin-cpu"])
def test_fit_when_the_table_has_energies_fits_both(name: str) -> None:
    source = fit_published.published_sources()[name]
    profile = fit_published.fit_published(name, source, DATA)
    assert profile.fit is not None
    assert profile.fit.energy is not None
    assert profile.fit.latency.networks == profile.fit.energy.networks == 84
    assert profile.fit.latency.cross_validation.mape_percent < 12
    assert profile.fit.energy.cross_validation.mape_percent < 10
    assert profile.evidence == "measured"


@needs_data
def test_sources_when_read_then_every_measurement_is_of_the_right_device() -> None:
    setups = {setup[-1]: setup for setup in tables.mlperf(DATA)}
    boards = {"raspberry-pi": "rpi4", "odroid": "odroid_n2plus", "khadas": "khadas_vim4"}
    for name, mlperf in fit_published.MLPERF.items():
        device, runtime, backend, _ = setups[mlperf]
        profile = fitted(SHIPPED / f"{name}.yaml")
        assert device == boards.get(profile.family, device)
        assert runtime.upper() == profile.runtime.replace(" ", "").upper()
        assert backend in f"{profile.runtime_version} {mlperf}".lower()
        version = profile.runtime_version.split()[0]
        assert f"v{version}" in mlperf


@needs_data
def test_xavier_when_read_leaves_the_anomalous_networks_out() -> None:
    rows = fit_published.published_sources()["jetson-agx-xavier"].read(DATA)
    assert len(rows) == 23
    assert not [row for row in rows if "densenet" in row.group]


@needs_data
def test_nano_when_measured_twice_says_how_far_apart() -> None:
    assert 1 < fit_published.nano_noise_floor(DATA) < 3


@needs_data
@pytest.mark.slow
@pytest.mark.benchmark  # traces some six hundred networks of timm
def test_desktop_when_read_then_networks_are_those_of_the_table() -> None:
    rows = fit_published.desktop(DATA)
    assert len(rows) > 500
    assert len({row.group for row in rows}) > 60
    assert max(row.network.macs for row in rows) < 14e9


def test_fit_when_the_folder_has_no_rows_says_so(tmp_path: Path) -> None:
    source = fit_published.Source(read=lambda _: [], reference="none", evidence="measured")
    with pytest.raises(ValueError, match="holds no measurements for host; is it the folder of"):
        fit_published.fit_published("host", source, tmp_path)


@needs_data
@pytest.mark.slow  # traces networks of timm and torchvision
def test_rows_of_the_edge_tpu_whose_weights_cannot_have_travelled_are_left_out() -> None:
    board = "Coral Dev Board (Edge TPU, i.MX8M host)"
    every = tables.edge_published(DATA).by_setup[board, "TFLite + Edge TPU"]
    kept = fit_published._coral(DATA)
    [out] = [row for row in every if row not in kept]
    assert out.latency_ms == 69
    # 8 MB of the weights stay on the chip.
    assert (out.network.size_bytes - 8e6) / 69e-3 > 0.5e9
