"""Line charts as inline SVG.

The drawing stretches with the page (`preserveAspectRatio="none"`, strokes that do not scale); the labels are HTML laid over it in per cent,
so they keep the size of text on every screen.
"""
import dataclasses
import math

from vlmjax.report.html import Html, el
from vlmjax.report.numbers import short

SIDE = 1000          # units of the drawing in both directions
MOST_POINTS = 400    # finer than the pixels of a chart; keeps the page small for long runs

Points = list[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Line:
    points: Points
    color: str            # a CSS class, see style.py
    name: str | None = None
    faint: bool = False


def finite(points: Points) -> Points:
    return [(x, y) for x, y in points if math.isfinite(y)]


def smoothing_window(n: int) -> int:
    """How many neighbours a smoothed point averages: about a twentieth of the curve, odd, 1 where there is nothing to smooth."""
    return n // 20 | 1 if n >= 60 else 3 if n >= 10 else 1


def smooth(points: Points, window: int, log: bool = False) -> Points:
    """Centred running mean. Towards the ends the window shrinks to a third: it neither lags behind a steep start nor follows the noise."""
    values = [math.log(y) if log else y for _, y in points]
    sums = [0.0]
    for value in values:
        sums.append(sums[-1] + value)
    result = []
    for i, (x, _) in enumerate(points):
        reach = max(min(window // 2, i, len(points) - 1 - i), window // 6)
        start, stop = max(i - reach, 0), min(i + reach + 1, len(points))
        mean = (sums[stop] - sums[start]) / (stop - start)
        result.append((x, math.exp(mean) if log else mean))
    return result


def thin(points: Points) -> Points:
    """At most MOST_POINTS points that keep each stretch's lowest and highest."""
    size = math.ceil(len(points) / (MOST_POINTS / 2))
    if size <= 2:
        return points
    kept = [points[0]]
    for start in range(0, len(points), size):
        part = points[start:start + size]
        kept += sorted({min(part, key=lambda p: p[1]), max(part, key=lambda p: p[1])})
    return [*kept, points[-1]]


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers in [low, high]."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10, 20) if (high - low) / (power * factor) <= most)
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Powers of ten in [low, high]; also 2 and 5 times them where there would be too few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for factors, stride in ((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3), ((1,), 5):
        found = [factor * 10.0 ** e for e in range(first, last + 1, stride) for factor in factors]
        found = [value for value in found if low * 0.999 <= value <= high * 1.001]
        if len(found) <= most:
            break
    return found or [low]


def y_range(values: list[float], log: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if log:
        return low / 1.15, high * 1.15
    if low >= 0 and low < 0.4 * high:      # a curve that falls far is read against zero
        return 0.0, high * 1.05
    pad = 0.06 * (high - low) or abs(high) * 0.1 or 1.0
    return low - pad, high + pad


def wants_log(points: Points) -> bool:
    """A loss that falls fifty-fold is a flat line at the bottom of a linear axis."""
    values = sorted(y for _, y in finite(points))
    return bool(values) and values[0] > 0 and values[int(0.98 * (len(values) - 1))] > 50 * values[int(0.02 * (len(values) - 1))]


def line_chart(title: str, lines: list[Line], log: bool = False, small: bool = False, remark: str = "", x_name: str = "step") -> Html:
    """Lines over a common axis, with ticks, a legend of the named lines and a remark at the right of the title."""
    drawn = [dataclasses.replace(line, points=thin([(x, y) for x, y in finite(line.points) if y > 0 or not log])) for line in lines]
    points = [point for line in drawn for point in line.points]
    if not points:
        return el("figure", el("figcaption", el("b", title)), el("p", "No finite value was recorded.", class_="note"), class_="chart")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    bottom, top = y_range([y for _, y in points], log)
    scale = math.log if log else float
    across = lambda x: (x - left) / ((right - left) or 1)
    up = lambda y: (scale(y) - scale(bottom)) / (scale(top) - scale(bottom))
    y_ticks = (log_ticks if log else ticks)(bottom, top, 4 if small else 5)
    x_ticks = [x for x in ticks(left, right, 4 if small else 6) if x == int(x)] or [left]
    drawing = [el("line", x1=0, x2=SIDE, y1=f"{SIDE * (1 - up(y)):.1f}", y2=f"{SIDE * (1 - up(y)):.1f}", class_="grid") for y in y_ticks]
    for line in drawn:
        path = " ".join(f"{SIDE * across(x):.1f},{SIDE * (1 - up(y)):.1f}" for x, y in line.points)
        drawing.append(el("polyline", points=path, class_=f"{line.color} faint" if line.faint else line.color))
    values = ", ".join(f"{line.name or title} from {short(line.points[0][1])} to {short(line.points[-1][1])}"
                       for line in drawn if line.points and not line.faint)
    y_labels = [el("span", short(y, 3), style=f"top:{100 * (1 - up(y)):.2f}%") for y in y_ticks]
    x_labels = [el("span", short(x, 6), style=f"left:{100 * across(x):.2f}%") for x in x_ticks]
    svg = el("svg", drawing, viewBox=f"0 0 {SIDE} {SIDE}", preserveAspectRatio="none", role="img", aria_label=f"{title}: {values}")
    return el(
        "figure",
        el("figcaption", el("b", title), el("span", "log scale", class_="scale") if log else None, el("span", remark, class_="remark")),
        el("div",
           el("div", y_labels, class_="y-axis", aria_hidden="true"), el("div", svg, class_="drawing"),
           el("div", x_labels, class_="x-axis", aria_hidden="true"),
           class_="plot small" if small else "plot"),
        el("div", [el("span", line.name, class_=f"key {line.color}{' faint' if line.faint else ''}") for line in drawn if line.name],
           el("span", x_name, class_="x-name"), class_="legend"),
        class_="chart")
