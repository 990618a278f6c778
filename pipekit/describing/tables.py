"""Tables for terminals and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


class Table:
    """Rows under a header, for a terminal (``str``) and for a notebook (``_repr_html_``).

    Examples
    --------
    >>> Table(['stage', 'gives'], [['take(3)', 'int']])
    stage    gives
    take(3)  int
    """

    def __init__(
        self,
        header: Sequence[str],
        rows: Sequence[Sequence[str]],
        notes: Sequence[str] = (),
        bars: Sequence[float] | None = None,
    ):
        self.header = list(header)
        self.rows = [list(row) for row in rows]
        self.notes = list(notes)
        self.bars = None if bars is None else list(bars)  # lengths from 0 to 1; a notebook draws them after the rows

    def __repr__(self) -> str:
        lines = [line for row in [self.header, *self.rows] for line in _lines(row)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = (map(str.ljust, line, widths) for line in lines)
        return '\n'.join(['  '.join(line).rstrip() for line in padded] + self.notes)

    def _repr_html_(self) -> str:
        import html  # here, because it is slow to load and only notebooks need it

        def row(tag: str, cells: Sequence[str], bar: float | None = None) -> str:
            style = 'style="text-align: left; white-space: pre; font-family: monospace; padding-right: 2em"'
            shown = ''.join(f'<{tag} {style}>{html.escape(cell)}</{tag}>' for cell in cells)
            if bar is not None:  # in the colour of the text, so that it shows on dark pages too
                box = f'display: inline-block; height: 0.8em; width: {10 * bar:.2f}em; background: currentColor'
                shown += f'<td style="text-align: left"><span style="{box}; opacity: 0.5"></span></td>'
            return f'<tr>{shown}</tr>'

        bars: Sequence[float | None] = self.bars or [None] * len(self.rows)
        body = ''.join(row('td', cells, bar) for cells, bar in zip(self.rows, bars, strict=True))
        notes = ''.join(f'<p>{html.escape(note)}</p>' for note in self.notes)
        header = [*self.header, ''] if self.bars else self.header
        return f'<table><thead>{row("th", header)}</thead><tbody>{body}</tbody></table>{notes}'


def _lines(row: Sequence[str]) -> list[tuple[str, ...]]:
    return list(zip_longest(*(cell.split('\n') for cell in row), fillvalue=''))
