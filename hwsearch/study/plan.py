"""What a run is going to do, said before it is done."""

from hwsearch.study.asked.admission import value_of
from hwsearch.study.asked.effort import (
    BASE_SHARE,
    LEAST_FINALISTS,
    MOST_FINALISTS,
    TRIAL_SHARE,
)
from hwsearch.study.candidates.pricing_context import PricingContext
from hwsearch.study.candidates.training_context import TrainingContext
from hwsearch.units import format_duration_s, format_quantity

#: Copies of its weights that a network in training has: gradients, momentum, averages.
_COPIES = 4


def plan_text(training: TrainingContext, left_s: float | None) -> str:
    """One line on how a run shares its time.

    Args:
        training: of the run.
        left_s: seconds of its limit; None where the effort decides.
    """
    settings = training.settings
    backbones = len(settings.space.backbones)
    several = f"{backbones} backbones" if backbones > 1 else "1 backbone"
    if left_s is None:
        lengths, recipe = settings.lengths, training.base_recipe
        passes, finals = (
            max(1, round(training.passes(steps))) for steps in (recipe.steps, training.final_steps)
        )
        return (
            f"plan ({settings.effort} effort): {several}, base networks of {passes} passes over "
            f"{len(training.data.train)} pictures ({recipe.steps} steps of {recipe.batch_size}), "
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
        f"{len(training.data.train)} pictures, {for_trials} for trials{count}, {for_finals} for "
        f"{LEAST_FINALISTS} to {MOST_FINALISTS} finalists and their files"
    )


def dry_run_text(pricing: PricingContext, training: TrainingContext, left_s: float | None) -> str:
    """The plan, memory, and the least and largest predicted cost of the space, a line each."""
    data, variants = training.data, list(pricing.backbones.variants())
    small = [pricing.cheapest(knobs)[0] for knobs in variants]
    dense = [pricing.plain_cost(knobs) for knobs in variants]
    sides = [data.at(px) for px in pricing.settings.space.input_px]
    pictures = sum(
        split.images.nbytes for one in sides for split in (one.train, one.validation, one.test)
    )
    weights = max(pricing.backbones.blueprint(knobs).describe({}).size_bytes for knobs in variants)
    lines = [
        plan_text(training, left_s),
        f"memory: {format_quantity('size', pictures)} of pictures, up to "
        f"{format_quantity('size', _COPIES * weights)} for each network in training",
    ]
    for quantity in pricing.settings.quantities:
        least = format_quantity(quantity, min(value_of(cost, quantity) for cost in small))
        most = format_quantity(quantity, max(value_of(cost, quantity) for cost in dense))
        lines.append(
            f"predicted {quantity} on {pricing.profile.name}: {least} (the smallest network) to "
            f"{most} (the largest, dense in fp32)"
        )
    return "\n".join(lines)
