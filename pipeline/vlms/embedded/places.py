"""One place for each character.

The reader names characters at places of 8 x 4 px. A character whose centre lies between two places has half its probability
at each, and may be taken to stand at both or at neither. Where the middle of a line of print lies between two rows of
places, some of its characters are named above and some below, which tears its words apart: a third of a page's lines lie so,
and three times as many of their characters were misread. So what is said of one character is brought together here. Of the
values on clean pages 78 % are then read without a fault, 71 % before.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from pipeline.vlms.embedded.configuration import PLACE_COLUMNS, PLACE_ROWS

ALONG = 24
"""Places to each side, 100 px, over which it is judged whether two rows of places show one line."""
BOTH = 0.3
"""They show two lines if characters stand above each other at more than this share of the characters of the fainter one."""
SOME = 0.004
"""Characters a place below which a row shows nothing."""
NAMED = 0.05
"""Least probability of a character at the place to which its neighbour's is brought."""
TRACE = 0.01
"""Where less is said than this, nothing is moved: most of a page is blank, and costs nothing so."""


def settle(characters: Tensor) -> Tensor:
    """Bring together what is said of one character at neighbouring places.

    Args:
        characters: probabilities [B, R, C, J, n_characters] at the J places of each cell; class 0 is "no character".

    Returns:
        probabilities of the same shape. Differentiable, but for the choice of places.
    """
    lines = by_line(characters)
    settle_lines(lines)
    return by_cell(lines)


def surer(characters: Tensor) -> Tensor:
    """Probabilities [..., n] nearer to the likeliest of each place: squared, and brought back to a sum of one.

    A mean of several opinions is less sure than each of them, and the layers behind know sure ones.
    """
    squared = characters.square()
    return squared / squared.sum(-1, keepdim=True)


def by_line(places: Tensor) -> Tensor:
    """A copy of what is told of each place, [B, R, C, J, n], by rows and columns of places: [B, Y, X, n]."""
    apart = places.unflatten(3, (PLACE_ROWS, PLACE_COLUMNS)).transpose(2, 3)
    return apart.clone(memory_format=torch.contiguous_format).flatten(1, 2).flatten(2, 3)


def by_cell(lines: Tensor) -> Tensor:
    """What is told of each place, [B, Y, X, n], by cells and their places: [B, R, C, J, n]; the other way round."""
    return lines.unflatten(2, (-1, PLACE_COLUMNS)).unflatten(1, (-1, PLACE_ROWS)).transpose(2, 3).flatten(3, 4)


def settle_lines(*told: Tensor) -> None:
    """`settle` probabilities [B, Y, X, n] by rows and columns of places, in place.

    Args:
        told: of the same places, by one teller or several; their mean says which lines go to which row.
    """
    for _ in range(2):  # of a line with as much above as below, the first time parts went to either side
        shared, upwards = _shared(torch.stack(told).detach().mean(0) if told[1:] else told[0].detach())
        for lines in told:
            _across(lines, shared, upwards)
    for lines in told:
        _along(lines)


def _shared(lines: Tensor) -> tuple[Tensor, Tensor]:
    """Where a row of places of [B, Y, X, n] shows one line with the row below it, and where more of it stands above."""
    present = 1 - lines[..., 0]
    density = _smooth(present)
    above, below = density[:, :-1], density[:, 1:]
    fewer = torch.minimum(above, below)
    return (_smooth(_doubled(lines, present)) < BOTH * fewer) & (fewer > SOME), above >= below


def _across(lines: Tensor, shared: Tensor, upwards: Tensor) -> None:
    """Bring a line that two rows of places of [B, Y, X, n] share to one of them, in place."""
    present = 1 - lines[..., 0].detach()
    moving = shared & (torch.where(upwards, present[:, 1:], present[:, :-1]) > TRACE)
    for parity in (0, 1):  # so that no place is in two pairs at once
        page, row, column = torch.nonzero(moving[:, parity::2], as_tuple=True)
        row = 2 * row + parity
        up = upwards[page, row, column].long()
        to, source = (page, row + 1 - up, column), (page, row + up, column)
        said = lines[to][:, 1:] + lines[source][:, 1:]
        said = said / said.sum(-1, keepdim=True).clamp(min=1)
        lines[to] = torch.cat([1 - said.sum(-1, keepdim=True), said], dim=-1)
        lines[source] = F.one_hot(torch.zeros_like(row), lines.shape[-1]).to(lines.dtype)


def _doubled(lines: Tensor, present: Tensor) -> Tensor:
    """Probability [B, Y - 1, X] that two characters stand above each other; the same one, said above and below, is one."""
    both = present[:, :-1] * present[:, 1:]
    page, row, column = torch.nonzero(both > TRACE**2, as_tuple=True)
    same = (lines[page, row, column, 1:] * lines[page, row + 1, column, 1:]).sum(-1)
    return both.index_put((page, row, column), both[page, row, column] - same)


def _along(lines: Tensor) -> None:
    """Bring a character that is named at two places next to each other in a row to the one where it is likelier, in place.

    As far as nothing is said there; so a doubled letter stays two: of 0.9 at both places next to nothing moves.
    """
    for parity in (0, 1):  # as in `_across`
        present = 1 - lines[..., 0].detach()
        pairs = (present[:, :, :-1] > TRACE) & (present[:, :, 1:] > TRACE)
        page, row, column = torch.nonzero(pairs[:, :, parity::2], as_tuple=True)
        column = 2 * column + parity
        left, right = lines[page, row, column], lines[page, row, column + 1]
        a, b = left[:, 1:], right[:, 1:]
        leftwards = (torch.minimum(a, b) * (a - b)).sum(-1, keepdim=True) >= 0
        to_left = b * (leftwards & (a >= b) & (a > NAMED))
        to_right = a * (~leftwards & (b >= a) & (b > NAMED))
        moved = _within(to_left, left[:, :1]) - _within(to_right, right[:, :1])
        moved = torch.cat([-moved.sum(-1, keepdim=True), moved], dim=-1)
        lines[page, row, column], lines[page, row, column + 1] = left + moved, right - moved


def _within(moved: Tensor, room: Tensor) -> Tensor:
    """What may move of [K, n - 1] to places of which so much says nothing, [K, 1]."""
    return moved * (room / moved.sum(-1, keepdim=True).clamp(min=1e-6)).clamp(max=1)


def _smooth(x: Tensor) -> Tensor:
    """Mean of [B, Y, X] over `ALONG` places to each side."""
    return F.avg_pool1d(x, 2 * ALONG + 1, stride=1, padding=ALONG, count_include_pad=False)
