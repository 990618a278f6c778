"""Matplotlib figures that a notebook displays by itself. Needs the extra ``plot``."""

from __future__ import annotations

from io import BytesIO

from ..errors import needs

with needs('plot', 'plotting'):
    from matplotlib.figure import Figure


class Picture(Figure):
    """A figure without a window and without global state; ``savefig(path)`` writes it to a file."""

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format='png', dpi=100)
        return file.getvalue()
