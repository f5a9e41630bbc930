"""Where the labels of a panel stand: near their points, over as little as possible."""

import math
from typing import TYPE_CHECKING, Final

from hwsearch.report.panel import Panel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

#: Where a label may stand around its point, in points; the first free place is taken.
_OFFSETS: Final = tuple(
    (distance * math.cos(math.radians(angle)), distance * math.sin(math.radians(angle)))
    for distance in (16, 30, 48, 70, 95)
    for angle in (-45, -135, 45, 135, -90, 90, 0, 180)
)

_BAR_PLACES: Final = 8


def _obstacles(axis: "Axes", panel: Panel) -> list[tuple[float, float]]:
    """Pixels that a label must not cover: points, their bars and the limit at a few places."""
    bottom, top = axis.get_ylim()
    heights = (bottom + (top - bottom) * part / 40 for part in range(41))
    points: list[tuple[float, float]] = [
        (panel.limit, height) for height in heights for _ in range(3)
    ]
    for entry in panel.front.scored:
        x, ends = panel.x(entry), panel.x_range(entry)
        if x is None or ends is None:
            continue
        y = 100 * entry.accuracy
        low, high = (100 * end for end in entry.accuracy_ci95)
        # The point itself counts three times: a bar may be crossed sooner than a marker. Places
        # on a bar lie so close together that a label can hardly stand between them.
        left, right = ends
        step = (right - left) / _BAR_PLACES
        points += [(x, y)] * 3 + [(left + step * part, y) for part in range(_BAR_PLACES + 1)]
        points += [(x, low), (x, (low + y) / 2), (x, (y + high) / 2), (x, high)]
    points += [(x, y) for x, y, _ in panel.other_points]
    pixels = (axis.transData.transform(point) for point in points)
    return [(float(x), float(y)) for x, y in pixels]


def place_labels(axis: "Axes", panel: Panel, labels: "list[Annotation]", *, dpi: float) -> None:
    """Move each label, in order, to the place around its point that covers the least.

    The layout of the figure must stand: a label is placed in pixels.
    """
    obstacles = _obstacles(axis, panel)
    taken: list[Bbox] = []
    for label in labels:
        at_x, at_y = axis.transData.transform(label.xy)
        boxes = _label_boxes(label, at_x, at_y, dpi)
        # One covered point is worth as much as a place three steps further down the list.
        burdens = [
            3 * _burden(box, axis.bbox, taken, obstacles) + place for place, box in enumerate(boxes)
        ]
        box = boxes[burdens.index(min(burdens))]
        x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
        label.set_position(((x - at_x) * 72 / dpi, (y - at_y) * 72 / dpi))
        taken.append(box)


def _label_boxes(label: "Annotation", at_x: float, at_y: float, dpi: float) -> "list[Bbox]":
    """Where a label could stand, in pixels, the places near its point first."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    # The extent of the annotation itself would include its line.
    extent = Text.get_window_extent(label)
    half_width, half_height = extent.width / 2, extent.height / 2
    boxes = []
    for dx, dy in _OFFSETS:
        # The offset leads to the nearest side of the label, not to its centre.
        x = at_x + dx * dpi / 72 + (math.copysign(half_width, dx) if abs(dx) > 1 else 0.0)
        y = at_y + dy * dpi / 72 + (math.copysign(half_height, dy) if abs(dy) > 1 else 0.0)
        boxes.append(
            Bbox.from_extents(x - half_width, y - half_height, x + half_width, y + half_height)
        )
    return boxes


def _burden(
    box: "Bbox", inside: "Bbox", taken: "list[Bbox]", obstacles: list[tuple[float, float]]
) -> int:
    """How bad a place is: outside the panel, over other labels, over points."""
    within = inside.x0 <= box.x0 and box.x1 <= inside.x1
    within = within and inside.y0 <= box.y0 and box.y1 <= inside.y1
    overlaps = sum(bool(box.padded(3).overlaps(other)) for other in taken)
    covered = sum(bool(box.padded(8).contains(x, y)) for x, y in obstacles)
    return (0 if within else 100) + 20 * overlaps + covered
