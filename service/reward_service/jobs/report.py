"""The summary of a job as one HTML page that loads nothing else."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2

WIDTH, HEIGHT = 640, 150
TEMPLATE = Path(__file__).with_name("report.html.jinja")
STATISTICS = ("count", "mean", "std", "min", "p1", "p5", "p25", "p50", "p75", "p95", "p99", "max")
Json = Mapping[str, Any]


def report(output: str, summary: Json, manifest: Json, pin: Json) -> str:
    """The page of one job."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    environment.filters |= {"number": number, "duration": duration}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        output=output,
        summary=summary,
        manifest=manifest,
        pin=pin,
        sections=[("reward", "Reward", summary["reward"]), *_term_sections(summary)],
        statistics=STATISTICS,
        bars=bars,
        width=WIDTH,
        height=HEIGHT,
    )


def _term_sections(summary: Json) -> list[tuple[str, str, Json]]:
    return [
        (f"{place}-{name}", f"{term}: {name}", numbers[name])
        for place, (term, numbers) in enumerate(summary["terms"].items())
        for name in ("raw", "baseline", "transformed")
        if name in numbers
    ]


def bars(histogram: Json) -> list[dict[str, float]]:
    """The rectangles of a histogram, the highest of full height."""
    counts = histogram["counts"]
    highest, step = max([*counts, 1e-9]), WIDTH / len(counts)
    heights = [HEIGHT * count / highest for count in counts]
    return [
        {
            "x": round(step * place, 2),
            "y": round(HEIGHT - high, 2),
            "width": round(step - 1, 2),
            "height": round(high, 2),
        }
        for place, high in enumerate(heights)
    ]


def number(value: float | None) -> str:
    """A number to read."""
    if value is None:
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"
