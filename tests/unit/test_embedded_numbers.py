"""Which number stands where, as the embedded model's tower tells it."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.vlms.embedded.alphabet import CHARACTER_CLASS
from pipeline.vlms.embedded.numbers import GAP, REACH, magnitude, magnitudes, spelled


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("$1,234.56", [1234.56]),
        ("1.234,56 €", [1234.56]),
        ("833 821.50", [833821.5]),
        ("2,967", [2967]),
        ("1234.5", [1234.5]),
        ("0.05", [0.05]),
        ("62239", [62239]),
        ("-$5.00 and (20)", [-5, -20]),
        ("–75.50", [-75.5]),
        ("2018-119", [2018, 119]),  # a dash inside a code is no sign
        ("No. 2: £45.00", [2, 45]),
        ("9.1 V", [9.1]),
        ("none", []),
        ("12.05.2012", [12.05, 2012]),
    ],
)
def test_numbers_are_read_as_they_are_written(text, numbers):
    assert [number for _, number in spelled(text)] == numbers


def test_a_number_begins_at_its_sign_and_currency():
    assert [start for start, _ in spelled("paid -$5.00, USD 7")] == [5, 17]


@given(st.lists(st.decimals(-(10**9), 10**9, places=2), min_size=2, max_size=2, unique=True))
def test_magnitudes_are_ordered_as_numbers_are(numbers):
    low, high = sorted(float(number) for number in numbers)
    assert magnitude(low) < magnitude(high)
    assert magnitude(-low) == -magnitude(low)


def test_a_line_full_of_digits_is_a_number_still():
    (told,) = magnitudes(line("9" * 400, step=1, places=400))[0, 0, :1]
    assert told.isfinite().all()


def line(text, at=0, step=2, places=200):
    """A line of places with a character in every `step`-th one; a tab is a gap that parts words."""
    classes = torch.zeros(1, 1, places, dtype=torch.long)
    for character in text:
        if character == "\t":
            at += GAP
            continue
        classes[0, 0, at] = CHARACTER_CLASS[character]
        at += step
    return classes


def test_the_next_number_is_told_where_a_currency_stands_before_it_and_no_farther():
    told = magnitudes(line("EUR 1.234,50", at=40))[0, 0]
    assert told[40, 0] == pytest.approx(magnitude(1234.5))
    first = next(place for place in itertools.count() if told[place, 1])
    assert told[first:49, 1].all()
    assert first == 48 - REACH
    assert not told[49:].any()


def test_words_that_lie_apart_are_not_one_number():
    told = magnitudes(line("1\t200"))[0, 0]
    assert told[0, 0] == pytest.approx(magnitude(1))
    assert told[2 + GAP, 0] == pytest.approx(magnitude(200))
    assert magnitudes(line("1 200"))[0, 0, 0, 0] == pytest.approx(magnitude(1200))


def test_lines_and_pages_are_told_apart():
    classes = torch.cat([line("7"), line("x")], dim=1)
    told = magnitudes(torch.cat([classes, classes.flip(1)]))
    assert told[..., 1].nonzero().tolist() == [[0, 0, 0], [1, 1, 0]]
