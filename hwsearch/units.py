"""The only reader of quantities with a unit: budgets ("10ms", "5mJ", "4MB", "30fps"), durations.

Units are case-sensitive, since "4Mb" is four megabits and "5MJ" would run a town.
"""

import math
import re
from dataclasses import dataclass
from typing import Final, Literal

from hwsearch.errors import UnitError

Quantity = Literal["latency", "energy", "size"]

#: The unit in which each quantity is kept and compared.
CANONICAL_UNIT: Final[dict[Quantity, str]] = {"latency": "ms", "energy": "mJ", "size": "B"}

_FACTORS: Final[dict[str, tuple[Quantity, float]]] = {
    "us": ("latency", 1e-3),
    "ms": ("latency", 1.0),
    "s": ("latency", 1e3),
    "uJ": ("energy", 1e-3),
    "mJ": ("energy", 1.0),
    "J": ("energy", 1e3),
    "B": ("size", 1.0),
    "kB": ("size", 1e3),
    "MB": ("size", 1e6),
    "GB": ("size", 1e9),
    "KiB": ("size", 1024.0),
    "MiB": ("size", 1024.0**2),
    "GiB": ("size", 1024.0**3),
}
_ALLOWED: Final = "time (us, ms, s, fps), energy (uJ, mJ, J) or size (B, kB, MB, GB, KiB, MiB, GiB)"
_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\d\s]*)\s*")
_DURATIONS: Final = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """An upper limit on one quantity of a model.

    Attributes:
        limit: in ms, mJ or bytes (``CANONICAL_UNIT``).
        text: as the user wrote it.
    """

    quantity: Quantity
    limit: float
    text: str

    @property
    def unit(self) -> str:
        """The unit of ``limit``."""
        return CANONICAL_UNIT[self.quantity]


def parse_budget(text: str) -> Budget:
    """Read one budget.

    A rate ("30fps") is a latency: at batch 1 each picture may take 1/30 s.

    Raises:
        UnitError: no number, no unit, an unknown unit, or a limit that is not positive and finite.
    """
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise UnitError(f"budget '{text}' is not a number with a unit; give {_ALLOWED}, as in 10ms")
    number, unit = float(match[1]), match[2]
    if not unit:
        raise UnitError(f"budget '{text}' has no unit; give {_ALLOWED}, as in {match[1]}ms")
    if unit != "fps" and unit not in _FACTORS:
        hint = _hint(match[1], unit)
        raise UnitError(f"budget '{text}' has no known unit{hint}; give {_ALLOWED}")
    if not (number > 0 and math.isfinite(number)):
        raise UnitError(f"budget '{text}' is not above zero; give a positive limit, as in 10ms")
    if unit == "fps":
        return Budget(quantity="latency", limit=1e3 / number, text=text.strip())
    quantity, factor = _FACTORS[unit]
    return Budget(quantity=quantity, limit=number * factor, text=text.strip())


def parse_budgets(texts: tuple[str, ...]) -> tuple[Budget, ...]:
    """Read several budgets; each quantity may be limited once.

    Raises:
        UnitError: no budget, an unreadable one, or two for the same quantity.
    """
    if not texts:
        raise UnitError("no budget was given; give at least one, as in --budget 10ms")
    budgets = tuple(parse_budget(text) for text in texts)
    seen: dict[Quantity, Budget] = {}
    for budget in budgets:
        if budget.quantity in seen:
            raise UnitError(
                f"budgets '{seen[budget.quantity].text}' and '{budget.text}' both limit "
                f"{budget.quantity}; keep one of them"
            )
        seen[budget.quantity] = budget
    return budgets


def parse_duration_s(text: str) -> float:
    """Read a duration such as "90s", "20m" or "1.5h" into seconds.

    Raises:
        UnitError: no number, no unit, an unknown unit, or a duration that is not positive.
    """
    match = _NUMBER.fullmatch(text)
    if match is None or match[2] not in _DURATIONS:
        raise UnitError(f"duration '{text}' is not a number with a unit (s, m, h); write 20m")
    seconds = float(match[1]) * _DURATIONS[match[2]]
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UnitError(f"duration '{text}' is not above zero; write 20m or 90s")
    return seconds


def format_quantity(quantity: Quantity, value: float) -> str:
    """Write a value of ``CANONICAL_UNIT`` for people, three significant digits: "8.21 ms"."""
    if quantity == "size":
        for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
            if value >= factor:
                return f"{_three_digits(value / factor)} {unit}"
        return f"{value:.0f} B"
    return f"{_three_digits(value)} {CANONICAL_UNIT[quantity]}"


def _three_digits(value: float) -> str:
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def _hint(number: str, unit: str) -> str:
    if unit in {"Mb", "Gb", "kb"}:
        return f" ('{unit}' are bits; did you mean {number}{unit[0]}B?)"
    by_lower = {known.lower(): known for known in (*_FACTORS, "fps")}
    meant = by_lower.get(unit.lower())
    return "" if meant is None else f" (did you mean {number}{meant}?)"


def format_duration_s(seconds: float) -> str:
    """Minutes and seconds, as in "8m20s" or "50s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
