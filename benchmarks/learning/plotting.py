"""The figure of the docs: gains, prompts that got worse and the spread of the reward, a row for each scaling."""

import math
from collections.abc import Iterable

from benchmarks.learning.canvas import PANEL_HEIGHT, PANEL_WIDTH, Panel, Range, picture
from benchmarks.learning.measuring import Figures
from benchmarks.learning.objectives import weights_of

COLORS = {"raw sum": "#d62728", "best-weighted sum": "#ff7f0e", "and": "#1f77b4"}
SEARCHED = "#888888"


def drawn(result: Figures) -> str:
    """The figure of a result as SVG."""
    scales = list(result["weights"])
    panels = []
    for row, scale in enumerate(scales):
        compared, searched = ([run for run in result[of] if run["scale"] == scale] for of in ("compared", "searched"))
        top = row * PANEL_HEIGHT
        panels += [
            _gains(scale, compared, _frontier(searched), top),
            _worse(scale, compared, top),
            _spread(scale, compared, top),
        ]
    return picture(panels, columns=3, rows=len(scales))


def _frontier(searched: list[Figures]) -> list[tuple[float, float, float]]:
    """(weight of detail, gain of detail, gain of brevity) of the weighted sums of the search."""
    return sorted(((weights_of(run["arm"]) or (math.nan,))[0], *_gain(run)) for run in searched)


def _gains(scale: str, compared: list[Figures], frontier: list[tuple[float, float, float]], top: float) -> str:
    points = [*map(_gain, compared), *((x, y) for _, x, y in frontier)]
    x, y = _range(x for x, _ in points), _range(y for _, y in points)
    panel = Panel(f"scale_rewards = {scale}", "gain of detail, nats", "gain of brevity, nats", x, y, 0, top)
    panel.line([(0, y[0]), (0, y[1])], "#ccc")
    panel.line([(x[0], 0), (x[1], 0)], "#ccc")
    panel.line([(x, y) for _, x, y in frontier], SEARCHED, dashed=True)
    for weight, across, up in frontier:
        panel.dot(across, up, SEARCHED, hollow=True)
        panel.text(across, up, f"{weight:g}", anchor="start", shift=(6, -5))
    for run in compared:
        panel.dot(*_gain(run), COLORS[run["name"]])
    for at, (name, color) in enumerate(COLORS.items()):
        panel.marks.append(f'<g fill="{color}">')
        panel.text(x[0], y[0], name, anchor="start", shift=(6, -8 - 15 * at))
        panel.marks.append("</g>")
    return panel.drawn(_ticks(x), _ticks(y))


def _worse(scale: str, compared: list[Figures], top: float) -> str:
    y = (0.0, 0.5 if max(run["held_out"]["share_worse"] for run in compared) < 0.5 else 1.0)
    title, y_label = f"scale_rewards = {scale}", "held-out prompts that got worse"
    panel = Panel(title, "arm", y_label, (0, len(COLORS)), y, PANEL_WIDTH, top)
    for at, (name, color) in enumerate(COLORS.items()):
        shares = [run["held_out"]["share_worse"] for run in compared if run["name"] == name]
        panel.bar(at + 0.5, sum(shares) / len(shares), 0.6, color)
        for seed, share in enumerate(shares):
            panel.dot(at + 0.5 + 0.6 * ((seed + 0.5) / len(shares) - 0.5), share, color)
        panel.text(at + 0.5, 0, name, shift=(0, 15))
    return panel.drawn([], _ticks(y))


def _spread(scale: str, compared: list[Figures], top: float) -> str:
    steps = len(compared[0]["log"]["reward_std"])
    highest = max(max(run["log"]["reward_std"]) for run in compared)
    y = (0.0, math.ceil(highest * 2) / 2)
    panel = Panel(f"scale_rewards = {scale}", "step", "spread of the reward", (0, steps), y, 2 * PANEL_WIDTH, top)
    for name, color in COLORS.items():
        logs = [run["log"]["reward_std"] for run in compared if run["name"] == name]
        panel.line([(step, sum(at) / len(at)) for step, at in enumerate(zip(*logs, strict=True), start=1)], color)
    return panel.drawn(_ticks((0, steps)), _ticks(y))


def _gain(run: Figures) -> tuple[float, float]:
    gain = run["held_out"]["gain"]
    return gain["detail"], gain["brevity"]


def _range(numbers: Iterable[float]) -> Range:
    """From below the least number to above the largest, 0 within."""
    found = [0.0, *numbers]
    margin = 0.08 * (max(found) - min(found)) or 1.0
    return min(found) - margin, max(found) + margin


def _ticks(of: Range) -> list[float]:
    """About five round numbers."""
    rough = (of[1] - of[0]) / 5
    unit = 10 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [round(at * step, 6) for at in range(math.ceil(of[0] / step), math.floor(of[1] / step) + 1)]
