"""Charts as SVG that is a part of the page: its text and colours are those of the page."""

from __future__ import annotations

import io
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import Any

import numpy as np

from kerasext.common import optional_package
from kerasext.evaluation import CalibrationCurve

_MOST_POINTS = 400  # of a curve: more are not seen at this size

# Colours that stand for variables of the page's style, which differ between light and dark.
_VARIABLES = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--accent)",
    "#050505": "var(--warm)",
}
_INK, _MUTED, _LINE, _ACCENT, _WARM = _VARIABLES

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _LINE,
    "axes.labelcolor": _MUTED,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "legend.frameon": False,
    "legend.labelcolor": _MUTED,
    "legend.fontsize": 9,
}


def confidence_histogram(counts: np.ndarray) -> ET.Element:
    """How many confidences are in bins of one width from 0 to 1.

    Args:
        counts: Array of shape `(bins,)`.
    """

    def draw(axes: Any) -> None:
        edges = np.linspace(0, 1, len(counts) + 1)
        axes.bar(edges[:-1], counts, np.diff(edges) * 0.9, align="edge", color=_ACCENT)
        axes.set(xlabel="Confidence", ylabel="Predictions", xlim=(0, 1))
        ticker = optional_package("matplotlib.ticker", needed_by="write_report")
        axes.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))  # 200k
        axes.yaxis.get_major_locator().set_params(integer=True)

    return _chart("histogram", draw)


def reliability_diagram(
    curve: CalibrationCurve, before: CalibrationCurve | None = None
) -> ET.Element:
    """Accuracy over mean confidence, one dot for each bin that has rows.

    Args:
        curve: `CalibrationCurve`.
        before: `CalibrationCurve` of the same rows without the calibration. Defaults to `None`.
    """

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], "--", color=_MUTED, linewidth=1, label="as sure as right")
        if before is not None:
            used = before.counts > 0
            x, y = before.confidence[used], before.accuracy[used]
            axes.plot(x, y, "o-", color=_WARM, markersize=3, linewidth=1, label="not calibrated")
        used = curve.counts > 0
        x, y = curve.confidence[used], curve.accuracy[used]
        share = curve.counts[used] / max(curve.counts.sum(), 1)
        if before is None:
            axes.vlines(x, x, y, color=_WARM, linewidth=1.5, label="difference")
        name = "bin" if before is None else "calibrated"
        axes.scatter(x, y, 20 + 240 * share, color=_ACCENT, linewidth=0, zorder=3, label=name)
        axes.set(xlabel="Mean confidence", ylabel="Accuracy", xlim=(0, 1.02), ylim=(0, 1.02))
        axes.legend(loc="upper left", markerscale=0.8)

    return _chart("reliability", draw)


def risk_coverage_curve(
    coverage: np.ndarray, risk: np.ndarray, threshold: tuple[float, float] | None = None
) -> ET.Element:
    """The share that is wrong among the most confident rows, over how many those are.

    Args:
        coverage: Array of shape `(points,)`, ascending in [0, 1].
        risk: Array of shape `(points,)`.
        threshold: Tuple of the coverage and the risk where the model abstains. Defaults to `None`.
    """

    def draw(axes: Any) -> None:
        shown = np.unique(np.linspace(0, len(coverage) - 1, _MOST_POINTS).astype(int))
        x, y = np.asarray(coverage)[shown], np.asarray(risk)[shown]
        axes.fill_between(x, y, color=_ACCENT, alpha=0.12, linewidth=0)
        axes.plot(x, y, color=_ACCENT, linewidth=1.8)
        if threshold is not None:
            axes.axvline(threshold[0], color=_WARM, linewidth=1, linestyle="--")
            axes.scatter(*threshold, 40, color=_WARM, linewidth=0, zorder=3, label="threshold")
            axes.legend(loc="upper left")
        axes.set(xlabel="Coverage: share kept", ylabel="Risk: share wrong", xlim=(0, 1))
        axes.set_ylim(0, max(float(y.max(initial=0)) * 1.1, 0.01))

    return _chart("risk", draw)


def set_sizes(counts: np.ndarray) -> ET.Element:
    """How many prediction sets have each size.

    Args:
        counts: Array of shape `(classes + 1,)`: sets of 0, 1, 2, ... classes.
    """

    def draw(axes: Any) -> None:
        largest = int(np.flatnonzero(counts).max(initial=1))
        sizes = np.arange(largest + 1)
        # One outline, because a bar for each of thousands of sizes would make a large page.
        axes.stairs(counts[sizes], np.arange(largest + 2) - 0.5, fill=True, color=_ACCENT)
        axes.set(xlabel="Classes in the set", ylabel="Sets", xlim=(-0.6, largest + 0.6))
        ticker = optional_package("matplotlib.ticker", needed_by="write_report")
        axes.yaxis.set_major_formatter(ticker.EngFormatter(sep=""))
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)

    return _chart("sizes", draw)


def _chart(name: str, draw: Callable[[Any], None]) -> ET.Element:
    matplotlib = optional_package("matplotlib", needed_by="write_report")
    figure_module = optional_package("matplotlib.figure", needed_by="write_report")
    drawn = io.BytesIO()
    # Ids are hashes of what they name, and the same for the same file: of the salt, too.
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever style somebody has
        matplotlib.rcParams.update({**_STYLE, "svg.hashsalt": name})
        figure = figure_module.Figure((4.6, 2.9), layout="constrained")
        draw(figure.subplots())
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(drawn, format="svg", metadata=metadata, transparent=True)
    return _of_the_page(ET.fromstring(drawn.getvalue()), name)  # noqa: S314


def _of_the_page(svg: ET.Element, name: str) -> ET.Element:
    """The picture without what belongs to a file of its own, its ids different from others'."""
    for parent in svg.iter():
        parent.tag = parent.tag.rpartition("}")[2]
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
        for full_key in list(parent.attrib):
            value = parent.attrib.pop(full_key).replace("url(#", f"url(#{name}-")
            key = full_key.rpartition("}")[2]
            if key in {"id", "href"}:
                hash_sign = "#" if key == "href" else ""
                value = f"{hash_sign}{name}-{value.removeprefix('#')}"
            for colour, variable in _VARIABLES.items():
                value = value.replace(colour, variable)
            parent.set(key, value)
        if parent.tag == "text":
            parent.set("style", parent.get("style", "") + "; font-family: inherit")
    for key in ("width", "height", "version"):
        svg.attrib.pop(key, None)
    return svg
