"""How large the numbers on a page are.

Which of two numbers is larger is no matter of their characters, and a network as small as this one doesn't learn it from
them. So the tower tells, beside a value's characters, what number they spell, as a number (xVal, arXiv:2310.02989), by a
scale on which a cent and a million are both within reach.
"""

import math
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from pipeline.vlms.embedded.alphabet import CHARACTERS

NUMBER = re.compile(
    r"(?:(?<!\w)(?P<minus>[-–(]))?(?:[$€£] ?)?(?P<whole>\d{1,3}(?:[.,' ]\d{3})+|\d+)(?:[.,](?P<fraction>\d{1,2}))?(?!\d)"
)
"""Digits with or without separators: three digits after a separator belong to thousands, one or two are a fraction."""

REACH = 12
"""Places of 4 px before a number from which it is the next one: a currency's name may stand there."""
GAP = 4
"""Places without a character that part two words; less may be a space between two letters."""
THOUSAND = 3.0
"""Decimal logarithm of what counts 1."""
LARGEST = 1e30
"""More counts as much: a line can hold more digits than a float has."""


def spelled(text: str) -> Iterator[tuple[int, float]]:
    """Where each number of a line begins, its sign and currency sign included, and the number.

    >>> list(spelled("EUR 1.234,50 - (20)"))
    [(4, 1234.5), (15, -20.0)]
    """
    for match in NUMBER.finditer(text):
        whole = re.sub(r"\D", "", match["whole"])
        number = float(f"{whole}.{match['fraction'] or 0}")
        yield match.start(), -number if match["minus"] else number


def magnitude(number: float) -> float:
    """A number's sign and size: as numbers are ordered, so are these; 0 is 0, and 999 is 1."""
    return math.copysign(math.log10(1 + min(abs(number), LARGEST)) / THOUSAND, number)


def magnitudes(classes: Tensor) -> Tensor:
    """The number that begins at each place or next after it.

    Args:
        classes: [B, Y, X], the class of the character at each place of each line; 0 is none.

    Returns:
        [B, Y, X, 2], its `magnitude` and 1; zeros where none begins within `REACH` places.
    """
    told = torch.zeros(*classes.shape, 2)
    for page, lines in enumerate(classes.cpu().numpy()):
        for row in lines.any(1).nonzero()[0]:
            text, places = _line(lines[row].tolist())
            before = -1
            for start, number in spelled(text):
                place = places[start]
                told[page, row, max(before + 1, place - REACH) : place + 1] = torch.tensor([magnitude(number), 1.0])
                before = place
    return told.to(classes.device)


def _line(classes: list[int]) -> tuple[str, list[int]]:
    """The text of a line of places, with a line break where words lie apart, and each character's place."""
    text = ""
    places: list[int] = []
    for place, number in enumerate(classes):
        if not number:
            continue
        if places and place - places[-1] > GAP:
            text += "\n"
            places.append(place)
        text += CHARACTERS[number - 1]
        places.append(place)
    return text, places
