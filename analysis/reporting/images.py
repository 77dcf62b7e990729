"""Figures as data URIs, small enough together."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

from matplotlib.figure import Figure

from analysis.figures import style

_RESOLUTIONS = (144, 100, 72, 48)  # dots per inch; 100 is one pixel of the page


def data_uris(figures: Mapping[str, Figure], budget: int) -> dict[str, str]:
    """Render each figure as SVG or PNG, whichever is smaller, all of them within `budget` bytes.

    Where they are too large together, the resolution of pixels goes down until they are not.
    """
    for resolution in _RESOLUTIONS:
        uris = {name: _smaller(figure, resolution) for name, figure in figures.items()}
        if sum(map(len, uris.values())) <= budget:
            break
    return uris


def _smaller(figure: Figure, resolution: int) -> str:
    svg = _render(figure, "svg", resolution)
    png = _render(figure, "png", resolution)
    kind, data = ("svg+xml", svg) if len(svg) <= len(png) else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _render(figure: Figure, kind: str, resolution: int) -> bytes:
    buffer = io.BytesIO()
    metadata = {"Date": None} if kind == "svg" else None
    with style.applied():
        figure.savefig(buffer, format=kind, dpi=resolution, metadata=metadata)
    return buffer.getvalue()
