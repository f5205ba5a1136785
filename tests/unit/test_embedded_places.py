"""Characters that the reader names at two neighbouring places are brought to one."""

import pytest
import torch

from pipeline.vlms.embedded.configuration import PLACE_COLUMNS, PLACES
from pipeline.vlms.embedded.modeling import reading_order
from pipeline.vlms.embedded.places import by_line, settle, settle_lines, surer

N, A, B, C = 5, 1, 2, 3


def page(named, rows=2, columns=4):
    """Probabilities [1, rows, columns, PLACES, N]; `named` gives those at a row and a column of places, by class."""
    lines = torch.zeros(1, rows, 2, columns, PLACE_COLUMNS, N)
    lines[..., 0] = 1
    for (y, x), probabilities in named.items():
        place = lines[0, y // 2, y % 2, x // PLACE_COLUMNS, x % PLACE_COLUMNS]
        for character, probability in probabilities.items():
            place[character] = probability
            place[0] -= probability
    return lines.transpose(2, 3).reshape(1, rows, columns, PLACES, N)


def at(characters, y, x):
    return characters[0, y // 2, x // PLACE_COLUMNS, (y % 2) * PLACE_COLUMNS + x % PLACE_COLUMNS]


def test_a_sure_line_stays_as_it_is():
    sure = page({(1, x): {A + x % 3: 1.0} for x in range(2, 30, 2)})
    assert torch.equal(settle(sure), sure)


def test_a_character_between_two_places_stands_at_the_likelier_one():
    settled = settle(page({(1, 4): {A: 0.55}, (1, 5): {A: 0.45}}))
    assert at(settled, 1, 4)[A] == pytest.approx(1.0)
    assert at(settled, 1, 5)[0] == pytest.approx(1.0)


def test_a_character_between_two_cells_is_brought_together_too():
    settled = settle(page({(1, PLACE_COLUMNS - 1): {A: 0.4}, (1, PLACE_COLUMNS): {A: 0.6}}))
    assert at(settled, 1, PLACE_COLUMNS)[A] == pytest.approx(1.0)


def test_a_doubled_letter_stays_two_and_different_letters_stay_where_they_are():
    settled = settle(page({(1, 4): {A: 0.95}, (1, 5): {A: 0.9}, (1, 8): {B: 0.6}, (1, 9): {C: 0.6}}))
    assert at(settled, 1, 4)[A] == pytest.approx(1.0)
    assert at(settled, 1, 5)[A] == pytest.approx(0.85)
    assert at(settled, 1, 8)[B] == pytest.approx(0.6)
    assert at(settled, 1, 9)[C] == pytest.approx(0.6)


@pytest.mark.parametrize("upper", [0, 1], ids=["within a cell", "between two cells"])
def test_a_line_between_two_rows_of_places_is_read_in_its_order(upper):
    """Some of its characters are named above and some below; row by row, those above would come first."""
    split = page({(upper + (x % 4 == 0), x): {A + (x // 3) % 3: 0.9} for x in range(0, 30, 3)})
    settled = settle(split)
    lines = by_line(settled)[0]
    held = (lines[..., 0] < 0.5).any(1)
    assert held.sum() == 1
    assert lines[held.nonzero()[0, 0]].argmax(-1)[::3][:10].tolist() == [A + k % 3 for k in range(10)]


@pytest.mark.parametrize("row", [0, 1])
def test_a_torn_line_is_brought_to_the_row_where_another_teller_has_all_of_it(row):
    torn, whole = torch.zeros(2, 1, 2, 32, N).unbind()
    torn[..., 0] = whole[..., 0] = 1
    for x in range(0, 30, 3):
        torn[0, x % 2, x] = whole[0, row, x] = torch.eye(N)[A + x % 3]
    expected = whole.clone()
    settle_lines(torn, whole)
    assert torch.equal(torn, expected)
    assert torch.equal(whole, expected)


def test_a_character_that_is_half_above_and_half_below_is_there():
    others = {(0, x): {B: 1.0} for x in range(0, 30, 3) if x != 9}
    settled = settle(page({**others, (0, 9): {A: 0.45}, (1, 9): {A: 0.45}}))
    assert at(settled, 0, 9)[A] == pytest.approx(0.9)


def test_two_lines_in_a_row_of_cells_stay_two():
    two = page({(y, x): {A + y: 0.9} for y in (0, 1) for x in range(0, 30, 2)})
    assert torch.allclose(settle(two), two)


def test_probabilities_stay_probabilities_and_gradients_pass():
    torch.manual_seed(0)
    logits = (2 * torch.randn(1, 3, 4, PLACES, N)).requires_grad_()
    settled = settle(logits.softmax(-1))
    assert settled.sum(-1).allclose(torch.ones(1))
    assert settled.min() > -1e-6
    settled[..., A].sum().backward()
    assert logits.grad.isfinite().all()
    assert logits.grad.abs().sum() > 0


def test_a_torn_word_costs_its_reading_order_without_settling():
    """What `compose` would make of the same cell as it comes from the reader, and of the settled one."""
    word = page({(x % 2, x): {A + x % 3: 0.9} for x in range(0, 8)}, rows=1, columns=1)

    def spelled(characters):
        order, _ = reading_order(1 - characters[..., 0], PLACES)
        return torch.einsum("brcjk,brcjn->brckn", order, characters[..., 1:])[0, 0, 0, :8].argmax(-1).tolist()

    assert spelled(word) != [k % 3 for k in range(8)]
    assert spelled(settle(word)) == [k % 3 for k in range(8)]


def test_what_is_surer_keeps_its_order_and_stays_a_probability():
    doubted = page({(1, 4): {A: 0.6, B: 0.3}, (1, 8): {C: 1.0}})
    sure = surer(doubted)
    assert torch.allclose(sure.sum(-1), torch.ones(()))
    assert torch.equal(sure.argsort(dim=-1, stable=True), doubted.argsort(dim=-1, stable=True))
    assert at(sure, 1, 4)[A] == pytest.approx(0.36 / 0.46)
    assert torch.equal(at(sure, 1, 8), at(doubted, 1, 8))
