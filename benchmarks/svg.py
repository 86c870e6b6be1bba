"""Small charts as SVG: bars, and lines over powers of ten; readable on light pages and on dark ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, BAR, LEFT, TOP = 820, 26, 310, 64
COLOURS = 6
# A chart brings its own ground, so it can be read also where the page's colours are not the reader's.
STYLE = """\
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1f2328 }
.ground { fill: #ffffff } .title { font-weight: 600; font-size: 15px } .quiet { fill: #59636e }
.axis { stroke: #818b98; stroke-width: 1 } .limit { stroke: #818b98; stroke-dasharray: 5 4 }
.ours { fill: #0969da } .peer { fill: #bc4c00 } .floor { fill: #818b98 }
.spread { stroke: #1f2328; stroke-width: 1.5 }
.line { fill: none; stroke-width: 2 }
.c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 }
.c3 { stroke: #8250df } .c4 { stroke: #9a6700 } .c5 { stroke: #cf222e }
.d0 { fill: #0969da } .d1 { fill: #bc4c00 } .d2 { fill: #1a7f37 }
.d3 { fill: #8250df } .d4 { fill: #9a6700 } .d5 { fill: #cf222e }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .ground { fill: #0d1117 } .quiet { fill: #9198a1 } .spread { stroke: #f0f6fc }
.ours { fill: #4493f8 } .peer { fill: #f0883e }
.c0 { stroke: #4493f8 } .c1 { stroke: #f0883e } .c2 { stroke: #3fb950 }
.c3 { stroke: #ab7df8 } .c4 { stroke: #d29922 } .c5 { stroke: #f85149 }
.d0 { fill: #4493f8 } .d1 { fill: #f0883e } .d2 { fill: #3fb950 }
.d3 { fill: #ab7df8 } .d4 { fill: #d29922 } .d5 { fill: #f85149 }
}"""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: what it stands for.
        role: its colour: ours, peer or floor.
        low: the least of all rounds; *high* the most.
        said: the figure beside it.
    """

    label: str
    role: str
    value: float
    low: float
    high: float
    said: str


@dataclass(frozen=True, slots=True)
class Line:
    """One line, through points of a size and a value."""

    label: str
    points: Sequence[tuple[float, float]]


def drawing(title: str, subtitle: str, height: float, shapes: list[str]) -> str:
    """Put shapes under a title."""
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{STYLE}</style>",
        f'<rect class="ground" width="{WIDTH}" height="{height:.0f}" rx="6"/>',
        words(16, 26, title, "title"),
        words(16, 46, subtitle, "quiet"),
    ]
    return "\n".join([*head, *shapes, "</svg>", ""])


def words(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    """Write at a place."""
    return (
        f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """Draw a straight line."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def bars(title: str, subtitle: str, chosen: Sequence[Bar]) -> str:
    """Draw horizontal bars from zero, each with the spread of its rounds."""
    scale = (WIDTH - LEFT - 90) / max([bar.high for bar in chosen], default=1)
    shapes = [
        shape
        for number, bar in enumerate(chosen)
        for shape in one_bar(bar, TOP + number * BAR, scale)
    ]
    bottom = TOP + len(chosen) * BAR
    axis = stroke(LEFT, TOP - 6, LEFT, bottom, "axis")
    return drawing(title, subtitle, bottom + 16, [*shapes, axis])


def one_bar(bar: Bar, y: float, scale: float) -> list[str]:
    """Draw one bar with its label, its figure and the spread of its rounds."""
    low, high, middle = LEFT + bar.low * scale, LEFT + bar.high * scale, y + BAR / 2 - 3
    size = f'width="{bar.value * scale:.1f}" height="{BAR - 8}"'
    return [
        words(LEFT - 10, middle + 4, bar.label, anchor="end"),
        f'<rect class="{bar.role}" x="{LEFT}" y="{y}" {size} rx="2"/>',
        stroke(low, middle, high, middle, "spread"),
        words(high + 8, middle + 4, bar.said),
    ]


@dataclass(frozen=True, slots=True)
class Frame:
    """The field that lines are drawn in: powers of ten across, factors up, both by logarithms.

    Attributes:
        sizes: what stands below the field, the first at its left end and the last at its right.
        lowest: the factor at its bottom; *highest* the one at its top.
    """

    sizes: Sequence[float]
    lowest: float
    highest: float
    left: float = 60
    right: float = WIDTH - 240
    top: float = TOP + 6
    bottom: float = TOP + 266

    def x(self, size: float) -> float:
        """Return the place of a size."""
        share = between(self.sizes[0], size, self.sizes[-1])
        return self.left + (self.right - self.left) * share

    def y(self, value: float) -> float:
        """Return the place of a factor."""
        return self.bottom - (self.bottom - self.top) * between(self.lowest, value, self.highest)

    def axes(self) -> list[str]:
        """Draw the axes and what stands beside them."""
        return [
            stroke(self.left, self.bottom, self.right, self.bottom, "axis"),
            stroke(self.left, self.top, self.left, self.bottom, "axis"),
            *(
                words(self.left - 8, self.y(value) + 4, f"{value:.3g}x", "quiet", "end")
                for value in ticks(self.lowest, self.highest)
            ),
            *(
                words(self.x(size), self.bottom + 20, f"{size:,.0f}", "quiet", "middle")
                for size in self.sizes
            ),
        ]

    def limit(self, value: float) -> list[str]:
        """Draw the limit that lines should stay below."""
        y, said = self.y(value), f"goal: at most {value:g}x"
        return [
            stroke(self.left, y, self.right, y, "limit"),
            words(self.right - 4, y - 6, said, "quiet", "end"),
        ]

    def line(self, line: Line, number: int) -> list[str]:
        """Draw one line, its points, and its name at the right."""
        spots = [(self.x(size), self.y(value)) for size, value in line.points]
        way = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        colour, place = number % COLOURS, self.top + 10 + number * 20
        key = f'x="{self.right + 20:.0f}" y="{place - 9:.0f}" width="10" height="10"'
        return [
            f'<polyline class="line c{colour}" points="{way}"/>',
            *(f'<circle class="d{colour}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in spots),
            f'<rect class="d{colour}" {key}/>',
            words(self.right + 38, place, line.label),
        ]


def curves(title: str, subtitle: str, lines: Sequence[Line], limit: float) -> str:
    """Draw lines over powers of ten, with the limit that they should stay below."""
    points = [point for line in lines for point in line.points]
    sizes = sorted({size for size, _ in points}) or [1.0, 10.0]
    values = [limit, 1.0, *(value for _, value in points)]
    frame = Frame(sizes, min(values) * 0.8, max(values) * 1.25)
    drawn = [shape for number, line in enumerate(lines) for shape in frame.line(line, number)]
    return drawing(title, subtitle, frame.bottom + 36, [*frame.axes(), *frame.limit(limit), *drawn])


def between(low: float, value: float, high: float) -> float:
    """Return how far from *low* to *high* a value lies, by its logarithm: 0 to 1."""
    return math.log(value / low) / math.log(high / low) if high > low else 0.0


def ticks(lowest: float, highest: float) -> list[float]:
    """Choose round factors from *lowest* to *highest*."""
    powers = range(math.floor(math.log10(lowest)), math.ceil(math.log10(highest)) + 1)
    steps = (1, 2, 5) if highest / lowest > 4 else (0.6, 0.8, 1, 1.2, 1.5, 2, 3)
    found = [step * 10.0**power for power in powers for step in steps]
    return [value for value in dict.fromkeys(found) if lowest <= value <= highest]
