"""From measured nets to a profile: which bits pay, the fit, and what the profile is called."""

from collections.abc import Sequence
from dataclasses import dataclass

from hwsearch.calibrate.offers import Speed, offer, speeds
from hwsearch.hardware.file_model import Provenance
from hwsearch.hardware.learned.fit import fit_profile
from hwsearch.hardware.measurements import Measurement
from hwsearch.hardware.profile import HardwareProfile


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a profile says that it describes; all of it is text for people but the name."""

    name: str
    summary: str
    device: str
    runtime: str
    runtime_version: str
    power_mode: str


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """A profile fitted to measurements.

    Attributes:
        speeds: of every kind of kernels in the bits that were measured.
    """

    profile: HardwareProfile
    speeds: tuple[Speed, ...]


def fit_target(
    base: HardwareProfile,
    identity: Identity,
    measurements: Sequence[Measurement],
    *,
    provenance: Provenance,
    noise_floor_percent: float | None,
    seed: int = 0,
) -> Fitted:
    """Fit a profile twice: the first fit tells which bits pay, the second is kept.

    Args:
        base: rates before anything was measured; where it has a fit, its factors too.
        identity: of the profile that results.
        measurements: at least 5.
        provenance: of them.
        noise_floor_percent: how far two measurements of one net lie apart, None if unknown.
        seed: of folds, samples and trees.

    Raises:
        TargetError: as ``fit_profile``.
    """
    bare = _renamed(base, identity)
    start = None if base.fit is None else base
    # The fit takes energy on top of latency; the question here is time.
    latencies = [
        Measurement(network=one.network, latency_ms=one.latency_ms, group=one.group)
        for one in measurements
    ]
    first = fit_profile(bare, latencies, provenance=provenance, seed=seed, start=start)
    found = speeds(first, latencies)
    # The factors of a relative belong to its rates, so these change only where they must.
    offering = offer(bare, found, provenance=provenance, only_changes=start is not None)
    profile = fit_profile(
        offering,
        measurements,
        provenance=provenance,
        seed=seed,
        start=start,
        noise_floor_percent=noise_floor_percent,
    )
    return Fitted(profile=profile, speeds=found)


def _renamed(base: HardwareProfile, identity: Identity) -> HardwareProfile:
    """The rates under another name; other power modes were of the other device."""
    return base.model_copy(
        update={
            "name": identity.name,
            "summary": identity.summary,
            "device": identity.device,
            "runtime": identity.runtime,
            "runtime_version": identity.runtime_version,
            "power_mode": identity.power_mode,
            "aliases": (),
            "evidence": "measured",
            "power_modes": None,
            "fit": None,
        }
    )
