"""Figures that a notebook shows without being told how."""

from __future__ import annotations

from io import BytesIO

from ..errors import needs

with needs('plot', 'a picture'):
    from matplotlib.figure import Figure


class Picture(Figure):
    """A figure that belongs to no window and no global state; ``savefig(path)`` writes it to a file.

    Examples
    --------
    >>> Picture()._repr_png_()[1:4]
    b'PNG'
    """

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.savefig(file, format='png', dpi=100)
        return file.getvalue()
