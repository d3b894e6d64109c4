"""SVG as text: boxes, words and arrows in colours that follow the reader's light or dark setting."""

from __future__ import annotations

from html import escape

STYLE = """\
svg { font-family: system-ui, sans-serif; font-size: 13px; }
.paper { fill: #ffffff; } .box { fill: #f2f4f7; stroke: #8a93a0; } .line { stroke: #5b6472; fill: none; }
text { fill: #1d2530; } .small { font-size: 11px; fill: #56606e; } .code { font-family: ui-monospace, monospace; }
.bold { font-weight: 600; } .tip { fill: #5b6472; }
.a { fill: #9cc4f0; } .b { fill: #f2c18d; } .c { fill: #a9d8a4; } .d { fill: #dcb3e6; } .e { fill: #f0a8a8; }
.none { fill: none; stroke: #8a93a0; } .mark { fill: none; stroke: #c02020; stroke-width: 2; }
@media (prefers-color-scheme: dark) {
.paper { fill: #1b1f26; } .box { fill: #2a303a; stroke: #77808d; } .line { stroke: #a9b2bf; }
text { fill: #e6eaf0; } .small { fill: #a9b2bf; } .tip { fill: #a9b2bf; }
.a { fill: #2f5f94; } .b { fill: #8f5d24; } .c { fill: #38733a; } .d { fill: #744184; } .e { fill: #8c3b3b; }
.none { stroke: #77808d; } .mark { stroke: #ff7b72; }
}
"""


class Picture:
    """A drawing of a width and height in pixels. title: what it shows, for those who do not see it."""

    def __init__(self, width: int, height: int, title: str) -> None:
        self._parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{STYLE}</style>",
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
            '<path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>',
            f'<rect class="paper" width="{width}" height="{height}" rx="6"/>',
        ]

    def box(self, x: float, y: float, width: float, height: float, kind: str = "box", radius: float = 3) -> None:
        """A rectangle; kind: a class of STYLE."""
        size = f'width="{_short(width)}" height="{_short(height)}"'
        corner = f' rx="{_short(radius)}"' if radius else ""
        self._parts.append(f'<rect class="{kind}" x="{_short(x)}" y="{_short(y)}" {size}{corner}/>')

    def text(self, x: float, y: float, words: str, kind: str = "", anchor: str = "start") -> None:
        """A line of text whose baseline is at y; anchor: where x lies in it, "start", "middle" or "end"."""
        more = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor != "start" else "")
        self._parts.append(f'<text x="{_short(x)}" y="{_short(y)}"{more}>{escape(words)}</text>')

    def line(self, points: list[tuple[float, float]], arrow: bool = False, kind: str = "line") -> None:
        """A line through points, with a tip at its end where it is an arrow."""
        path = "L".join(f"{_short(x)} {_short(y)}" for x, y in points)
        tip = ' marker-end="url(#tip)"' if arrow else ""
        self._parts.append(f'<path class="{kind}" d="M{path}"{tip}/>')

    def __str__(self) -> str:
        return "\n".join([*self._parts, "</svg>"]) + "\n"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0")
