"""The chart for the README: sagas a second of each side, as an SVG without fonts and scripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from bench.report import LABELS, by_scenario
from bench.results import Figure, Results

_SCENARIOS = ("jitter-256", "steps-64", "compensation-64", "engines-64")
_WIDTH, _LEFT, _LINE, _TITLE = 760, 190, 22, 36
_OURS, _THEIRS, _NOBODY = "#2e7d32", "#78909c", "#cfd8dc"


def draw(results: Results, path: Path) -> None:
    """Draw those scenarios that were measured; no file when none was."""
    shown = [(name, found) for name, found in by_scenario(results) if name in _SCENARIOS]
    if not shown:
        return
    height = sum(_TITLE + _LINE * len(found) for _, found in shown) + 16
    chart = _element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {_WIDTH} {height}")
    chart.attrib |= {"font-family": "system-ui, sans-serif", "font-size": "13"}
    chart.append(_element("rect", width=_WIDTH, height=height, fill="#ffffff"))
    top = 0
    for name, found in shown:
        top += _TITLE
        title = f"{results.titles.get(name, name)}: sagas a second"
        chart.append(_text(title, 12, top - 12, weight="bold"))
        chart.extend(_bars(found, top))
        top += _LINE * len(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    ET.indent(chart)
    path.write_text(ET.tostring(chart, encoding="unicode") + "\n")


def _bars(found: Sequence[Figure], top: int) -> Iterator[ET.Element]:
    most = max(figure.per_second for figure in found)
    for number, figure in enumerate(found):
        y = top + number * _LINE
        width = round(figure.per_second / most * (_WIDTH - _LEFT - 90), 1)
        bar = {"x": _LEFT, "y": y + 3, "width": width, "height": _LINE - 6}
        yield _text(LABELS.get(figure.side, figure.side), 12, y + 15)
        yield _element("rect", **bar, fill=_fill(figure.side))
        yield _text(f"{figure.per_second:,.0f}", _LEFT + width + 6, y + 15)


def _fill(side: str) -> str:
    if side == "floor":
        return _NOBODY
    return _THEIRS if side.startswith(("dtm", "dbos", "temporal")) else _OURS


def _element(tag: str, **attributes: float | str) -> ET.Element:
    return ET.Element(tag, {key: str(value) for key, value in attributes.items()})


def _text(words: str, x: float, y: float, *, weight: str = "normal") -> ET.Element:
    element = _element("text", x=x, y=y, fill="#212121")
    element.attrib["font-weight"] = weight
    element.text = words
    return element
