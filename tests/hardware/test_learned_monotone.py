"""Fewer bits never cost more where a profile says so, whatever few measurements say."""

import numpy as np
import pytest
from learned_fixtures import padding, random_networks

from hwsearch.bits import FP16, FP32, INT8, LayerBits
from hwsearch.hardware.kernel_table import kernel_table
from hwsearch.hardware.kernels import KernelKind, NetworkDesc
from hwsearch.hardware.learned.effects import factors
from hwsearch.hardware.learned.terms import Cap, Effect, classify
from hwsearch.hardware.predictor import CostPredictor
from hwsearch.hardware.profile import HardwareProfile
from hwsearch.hardware.rates import TERMS
from hwsearch.hardware.targets import list_profiles

SAYING_SO = [one for one in list_profiles() if one.kernels.narrower_never_slower]
NETWORKS = random_networks(40, seed=5, blocks=("dense", "pointwise", "separable"))


def in_bits(network: NetworkDesc, bits: LayerBits) -> NetworkDesc:
    return network.with_bits({kernel.name: bits for kernel in network.weighted})


@pytest.mark.parametrize("profile", SAYING_SO, ids=lambda profile: profile.name)
@pytest.mark.parametrize(("wide", "narrow"), [(FP32, FP16), (FP16, INT8)])
def test_terms_when_the_rates_are_no_lower_cost_no_more_in_fewer_bits(
    profile: HardwareProfile, wide: LayerBits, narrow: LayerBits
) -> None:
    bare = profile.model_copy(update={"fit": profile.fit and _without_trees(profile)})
    predictor = CostPredictor(bare)
    compared = 0
    for network in NETWORKS:
        kernels = zip(
            network.kernels,
            predictor.kernels(in_bits(network, wide)),
            predictor.kernels(in_bits(network, narrow)),
            strict=True,
        )
        for kernel, before, after in kernels:
            if narrow not in profile.legal_bits(before.kind):
                continue
            blocks = [profile.compute.by_bits[bits].channel_block for bits in (wide, narrow)]
            padded = [padding(kernel, block) for block in blocks]
            # What the runtime pads more in fewer bits may cost more; the rest may not.
            if padded[1] > padded[0]:
                continue
            compared += 1
            assert after.latency_ms <= before.latency_ms * (1 + 1e-9)
            assert before.energy_mj is not None
            assert after.energy_mj is not None
            assert after.energy_mj <= before.energy_mj * (1 + 1e-9)
    assert compared > 10 or narrow not in profile.legal_bits(KernelKind.CONV)


def _without_trees(profile: HardwareProfile) -> object:
    assert profile.fit is not None
    return profile.fit.model_copy(
        update={
            name: model.model_copy(
                update={
                    "coefficients": model.coefficients.model_copy(
                        update={"residual": (), "residual_noise_log": None}
                    )
                }
            )
            for name in ("latency", "energy")
            if (model := getattr(profile.fit, name)) is not None
        }
    )


def test_factors_when_capped_stay_below_in_every_sample() -> None:
    one, other = Effect("one", 0.3), Effect("other", 0.3)
    effects = {"one": (0.5, -0.2, 0.9), "other": (0.1, 0.1, 0.1)}
    columns, caps = [(one,), (one,)], [(), (Cap((other,), 0.3),)]
    free, capped = factors(effects, columns, caps=caps)
    assert free == pytest.approx(np.exp([0.5, -0.2, 0.9]))
    assert capped == pytest.approx(np.exp([0.4, -0.2, 0.4]))


def test_classes_when_the_profile_does_not_say_so_have_no_wider_ones() -> None:
    target = next(profile for profile in list_profiles() if profile.name == "raspberry-pi-4")
    rows = classify(target, kernel_table([in_bits(NETWORKS[0], INT8)]))
    assert set(rows.wider) == {()}


def test_room_when_bits_are_halved_is_what_the_rates_gain() -> None:
    target = next(profile for profile in SAYING_SO if profile.name == "jetson-orin-nano")
    rows = classify(target, kernel_table([in_bits(NETWORKS[0], FP16)]))
    at = next(n for n, one in enumerate(rows.classes) if one.variant == "conv.stem")
    [wider] = rows.wider[at]
    assert wider.kernel_class.bits == FP32
    room = dict(zip(TERMS, wider.log_room, strict=True))
    assert room["floor"] == 0
    assert room["input"] == room["output"] == room["weight"] == pytest.approx(np.log(2))
    assert room["compute"] == room["waste"] > 0
