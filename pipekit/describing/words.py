"""Short words for a message: a value, a place in an order, a time."""

from __future__ import annotations

import re

from .display import code, structure

LONGEST = 160
MERE_SIZE = re.compile(r'<\w+ of \d+>')
DESCRIBED_ARRAY = re.compile(r'<(\w+\[[\d, ]*\])>')


def brief(value: object) -> str:
    """A value, short enough for a line; arrays by their type and shape.

    Examples
    --------
    >>> import numpy as np
    >>> brief((np.zeros((1, 28, 28), np.float32), 3))
    '(float32[1, 28, 28], 3)'
    """
    text = code(value)
    if MERE_SIZE.fullmatch(text):
        text = structure(value)
    text = DESCRIBED_ARRAY.sub(r'\1', text).replace('\n', ' ')
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


def ordinal(number: int) -> str:
    """A number as the word for a place in an order.

    Examples
    --------
    >>> ordinal(1), ordinal(2), ordinal(3), ordinal(11), ordinal(24)
    ('1st', '2nd', '3rd', '11th', '24th')
    """
    ending = 'th' if number % 100 in (11, 12, 13) else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')
    return f'{number}{ending}'


def seconds(amount: float) -> str:
    """A time with its unit.

    Examples
    --------
    >>> seconds(0.0121), seconds(3.2e-6), seconds(2)
    ('12.1 ms', '3.2 µs', '2 s')
    """
    if amount >= 1:
        return f'{amount:.3g} s'
    return f'{amount * 1e3:.3g} ms' if amount >= 1e-3 else f'{amount * 1e6:.3g} µs'
