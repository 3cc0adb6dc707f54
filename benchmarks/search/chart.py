"""Curves of the search benchmark as SVG, without a library: lines, labels, two axes."""

import math
from collections.abc import Mapping
from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 800, 380, 50, 340, 20, 40
COLOURS = (
    "#0b7285", "#3bc9db", "#e8590c", "#5f3dc4", "#2b8a3e", "#c2255c", "#1864ab", "#868e96",
    "#212529", "#82c91e",
)  # fmt: skip


def chart(curves: Mapping[str, Mapping[int, float]]) -> str:
    """Score in points over target calls, on a logarithmic axis; one line for each name."""
    calls = sorted({c for curve in curves.values() for c in curve})
    scores = [s for curve in curves.values() for s in curve.values()]
    low, high = math.floor(min(scores)) - 1, math.ceil(max(scores)) + 1

    def x(c: int) -> float:
        span = math.log(calls[-1] / calls[0]) or 1.0
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(c / calls[0]) / span

    def y(score: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (score - low) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="sans-serif" font-size="12">',
        "<title>Score on withheld rows by target calls</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    parts += [_text(x(c), HEIGHT - BOTTOM + 18, str(c), "middle") for c in calls]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, "target calls", "middle"))
    for score in range(low, high + 1, max(1, (high - low) // 6)):
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(score):.1f}" y2="{y(score):.1f}" '
            'stroke="#dee2e6"/>'
        )
        parts.append(_text(LEFT - 8, y(score) + 4, str(score), "end"))
    ranked = sorted(curves, key=lambda name: -curves[name][calls[-1]])
    for place, name in enumerate(ranked):
        colour = COLOURS[list(curves).index(name) % len(COLOURS)]
        points = " ".join(f"{x(c):.1f},{y(s):.1f}" for c, s in sorted(curves[name].items()))
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
        label = f"{name} ({curves[name][calls[-1]]:.1f})"
        parts.append(_text(WIDTH - RIGHT + 12, TOP + 14 + 20 * place, label, "start", colour))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _text(x: float, y: float, text: str, anchor: str, colour: str = "#212529") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text {place} fill="{colour}">{escape(text)}</text>'
