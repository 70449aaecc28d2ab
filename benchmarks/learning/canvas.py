"""A panel of an SVG: axes with ticks, and marks in the units of the data."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT, LEFT, TOP = 300, 220, 52, 34
"""Of the plotted area, and the margins before it, in pixels."""
PANEL_WIDTH, PANEL_HEIGHT = WIDTH + LEFT + 24, HEIGHT + TOP + 46
Range = tuple[float, float]


@dataclass
class Panel:
    """One plot; `left` and `top` say where it stands in the picture, in pixels."""

    title: str
    x_label: str
    y_label: str
    x: Range
    y: Range
    left: float
    top: float
    marks: list[str] = field(default_factory=list)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point of the data."""
        (x0, x1), (y0, y1) = self.x, self.y
        across, up = (x - x0) / (x1 - x0), (y - y0) / (y1 - y0)
        return self.left + LEFT + across * WIDTH, self.top + TOP + (1 - up) * HEIGHT

    def dot(self, x: float, y: float, color: str, *, hollow: bool = False) -> None:
        """A circle at a point."""
        across, down = self.place(x, y)
        fill = "white" if hollow else color
        self.marks.append(f'<circle cx="{across:.1f}" cy="{down:.1f}" r="4" fill="{fill}" stroke="{color}"/>')

    def line(self, points: Sequence[tuple[float, float]], color: str, *, dashed: bool = False) -> None:
        """A line through points."""
        path = " ".join(f"{across:.1f},{down:.1f}" for across, down in (self.place(*point) for point in points))
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self.marks.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"{dashes}/>')

    def bar(self, x: float, y: float, width: float, color: str) -> None:
        """A bar from 0 to y around x."""
        (left, top), (right, bottom) = self.place(x - width / 2, y), self.place(x + width / 2, 0.0)
        self.marks.append(
            f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" '
            f'fill="{color}" fill-opacity="0.35"/>'
        )

    def text(
        self, x: float, y: float, text: str, *, anchor: str = "middle", shift: tuple[float, float] = (0, 0)
    ) -> None:
        """Words at a point, moved by pixels."""
        across, down = self.place(x, y)
        self.marks.append(_text(across + shift[0], down + shift[1], text, anchor))

    def drawn(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        """The panel with its frame, its ticks and all its marks."""
        left, top, right, bottom = self.left + LEFT, self.top + TOP, self.left + LEFT + WIDTH, self.top + TOP + HEIGHT
        frame = f'<rect x="{left}" y="{top}" width="{WIDTH}" height="{HEIGHT}" fill="none" stroke="#888"/>'
        below = [_text(self.place(tick, 0)[0], bottom + 15, f"{tick:g}", "middle") for tick in x_ticks]
        beside = [_text(left - 6, self.place(self.x[0], tick)[1] + 4, f"{tick:g}", "end") for tick in y_ticks]
        middle = (top + bottom) / 2
        upright = (
            f'<g transform="rotate(-90 {left - 36} {middle})">{_text(left - 36, middle, self.y_label, "middle")}</g>'
        )
        words = [_text((left + right) / 2, top - 10, self.title, "middle"), upright]
        return "\n".join(
            [
                frame,
                *below,
                *beside,
                *words,
                _text((left + right) / 2, bottom + 33, self.x_label, "middle"),
                *self.marks,
            ]
        )


def picture(panels: Sequence[str], columns: int, rows: int) -> str:
    """The whole file, white behind everything."""
    width, height = columns * PANEL_WIDTH, rows * PANEL_HEIGHT
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">'
    )
    return "\n".join([opening, f'<rect width="{width}" height="{height}" fill="white"/>', *panels, "</svg>\n"])


def _text(across: float, down: float, text: str, anchor: str) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
