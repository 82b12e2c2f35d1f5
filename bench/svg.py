"""Two kinds of pictures, written by hand: horizontal stacked bars, and lines over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH = 760
_LEFT = 210
_RIGHT = 90
_TOP = 56
_ROW = 30
# Okabe and Ito's colours, which people of any colour vision tell apart.
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")
_STYLE = "font-family:Helvetica,Arial,sans-serif;font-size:12px;fill:#24292f"


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "normal") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-weight="{weight}">{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}"/>'


def _page(title: str, height: float, parts: Sequence[str]) -> str:
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" '
        f'aria-label="{escape(title, {chr(34): "&quot;"})}" style="{_STYLE}">'
    )
    lines = [head, _box(0, 0, WIDTH, height, "#ffffff"), _text(12, 22, title, weight="bold"), *parts, "</svg>", ""]
    return "\n".join(lines)


def bars(title: str, rows: Mapping[str, Mapping[str, float]], *, unit: str, digits: int = 2) -> str:
    """Draw one bar for each row, made of its parts, with the sum at its end.

    ``rows`` maps labels to values by part; all rows share one scale from zero.
    """
    names = list(dict.fromkeys(name for parts in rows.values() for name in parts))
    colours = dict(zip(names, COLOURS, strict=False))
    most = max(sum(parts.values()) for parts in rows.values()) or 1.0
    scale = (WIDTH - _LEFT - _RIGHT) / most
    drawn: list[str] = []
    if len(names) > 1:
        drawn += _legend(colours)
    for place, (label, parts) in enumerate(rows.items()):
        y, x = _TOP + place * _ROW, float(_LEFT)
        drawn.append(_text(_LEFT - 8, y + 15, label, anchor="end"))
        for name, value in parts.items():
            drawn.append(_box(x, y, value * scale, _ROW - 10, colours[name]))
            x += value * scale
        drawn.append(_text(x + 6, y + 15, f"{sum(parts.values()):,.{digits}f} {unit}"))
    return _page(title, _TOP + len(rows) * _ROW + 8, drawn)


def _legend(colours: Mapping[str, str]) -> list[str]:
    drawn: list[str] = []
    x = 12.0
    for name, colour in colours.items():
        drawn += [_box(x, 33, 10, 10, colour), _text(x + 14, 42, name)]
        x += 30 + 6.6 * len(name)
    return drawn


@dataclass(frozen=True, slots=True)
class Panel:
    """A line over ``x`` from zero, and the limit that it must not cross."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    limit: float


def panels(title: str, shown: Sequence[Panel], *, unit: str) -> str:
    """Draw one panel below the other, all over the same ``x``, whose unit is ``unit``."""
    height, left = 120.0, 60.0
    right = max(panel.x[-1] for panel in shown)
    scale = (WIDTH - left - 24) / right
    drawn: list[str] = []
    for place, panel in enumerate(shown):
        base = _TOP + place * (height + 46) + height
        rise = height / (panel.limit * 1.15)
        drawn.append(_text(left, base - height - 6, panel.label))
        points = " ".join(
            f"{left + x * scale:.1f},{base - y * rise:.1f}" for x, y in zip(panel.x, panel.y, strict=True)
        )
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{COLOURS[0]}" stroke-width="1.2"/>')
        for y, colour in ((panel.limit, COLOURS[5]), (0.0, "#24292f")):
            level = base - y * rise
            end = WIDTH - 24
            drawn.append(f'<path d="M{left} {level:.1f}H{end}" stroke="{colour}" stroke-width="1" fill="none"/>')
            drawn.append(_text(left - 6, level + 4, f"{y:g}", anchor="end"))
        drawn += [_text(left + tick * scale, base + 15, f"{tick:g}", anchor="middle") for tick in _ticks(right)]
    drawn.append(_text(WIDTH - 24, _TOP + len(shown) * (height + 46) - 16, unit, anchor="end"))
    return _page(title, _TOP + len(shown) * (height + 46) - 4, drawn)


def _ticks(right: float) -> list[float]:
    step = next(step for step in (1, 2, 5, 10, 20, 60, 120, 300, 600, 3_600) if right / step <= 12)
    return [tick * step for tick in range(int(right // step) + 1)]
