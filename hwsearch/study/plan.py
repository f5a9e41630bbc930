"""What a run is going to do, said before it is done."""

from hwsearch.study.asked.admission import value_of
from hwsearch.study.asked.effort import (
    BASE_SHARE,
    LEAST_FINALISTS,
    MOST_FINALISTS,
    TRIAL_SHARE,
)
from hwsearch.study.candidates.workbench import Workbench
from hwsearch.units import format_duration_s, format_quantity

#: Copies of its weights that a network in training has: gradients, momentum, averages.
_COPIES = 4


def plan_text(bench: Workbench, left_s: float | None) -> str:
    """One line on how a run shares its time.

    Args:
        bench: of the run.
        left_s: seconds of its limit; None where the effort decides.
    """
    settings, training = bench.settings, bench.settings.space.training
    backbones = len(settings.space.backbones)
    several = f"{backbones} backbones" if backbones > 1 else "1 backbone"
    if left_s is None:
        lengths, recipe = settings.lengths, bench.base_recipe
        passes = _passes(recipe.steps, bench)
        finals = _passes(bench.final_steps, bench)
        return (
            f"plan ({settings.effort} effort): {several}, base networks of {passes} passes over "
            f"{len(bench.data.train)} pictures ({recipe.steps} steps of {training.batch_size}), "
            f"{settings.trial_count} trials, up to {lengths.finalists} finalists of {finals} passes"
        )
    bases_s = BASE_SHARE * left_s
    trials_s = TRIAL_SHARE * (left_s - bases_s)
    count = "" if settings.trial_count is None else f", at most {settings.trial_count} trials"
    limit, for_bases, for_trials, for_finals = (
        format_duration_s(s) for s in (left_s, bases_s, trials_s, left_s - bases_s - trials_s)
    )
    return (
        f"plan ({limit} left of the limit): {for_bases} for base networks of {several} on "
        f"{len(bench.data.train)} pictures, {for_trials} for trials{count}, {for_finals} for "
        f"{LEAST_FINALISTS} to {MOST_FINALISTS} finalists and their files"
    )


def dry_run_text(bench: Workbench, left_s: float | None) -> str:
    """The plan, memory, and the least and largest predicted cost of the space, a line each."""
    data, variants = bench.data, list(bench.variants())
    small = [bench.cheapest(knobs)[0] for knobs in variants]
    dense = [bench.plain_cost(knobs) for knobs in variants]
    sides = [data.at(px) for px in bench.settings.space.input_px]
    pictures = sum(
        split.images.nbytes for one in sides for split in (one.train, one.validation, one.test)
    )
    weights = max(bench.blueprint(knobs).describe({}).size_bytes for knobs in variants)
    lines = [
        plan_text(bench, left_s),
        f"memory: {format_quantity('size', pictures)} of pictures, up to "
        f"{format_quantity('size', _COPIES * weights)} for each network in training",
    ]
    for quantity in bench.settings.quantities:
        least = format_quantity(quantity, min(value_of(cost, quantity) for cost in small))
        most = format_quantity(quantity, max(value_of(cost, quantity) for cost in dense))
        lines.append(
            f"predicted {quantity} on {bench.profile.name}: {least} (the smallest network) to "
            f"{most} (the largest, dense in fp32)"
        )
    return "\n".join(lines)


def _passes(steps: int, bench: Workbench) -> int:
    pictures = steps * bench.settings.space.training.batch_size
    return max(1, round(pictures / len(bench.data.train)))
