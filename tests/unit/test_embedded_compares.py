"""What the embedded model that ships says of two numbers on a page."""

import pytest
from PIL import Image, ImageDraw, ImageFont

from ops.train.faces import families
from pipeline.vlms.base import Prompt
from pipeline.vlms.embedded.alphabet import SINGLE_WORD
from pipeline.vlms.loading import load_vlm

PAGE = {"Subtotal": "$1,284.50", "Freight": "$96.00", "Sales tax": "$9.80", "Deposit": "$2,500.00"}


@pytest.fixture(scope="module")
def answer():
    vlm = load_vlm("embedded", device="cpu")
    image = Image.new("RGB", (1100, 420), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(families("train")["caladea"][0]), 30)
    for number, (label, value) in enumerate(PAGE.items()):
        draw.text((80, 60 + 80 * number), f"{label}:", "black", font)
        draw.text((420, 60 + 80 * number), value, "black", font)
    views = tuple(vlm.encode([image]))

    def ask(question):
        (generation,) = vlm.generate(vlm.read([Prompt(views, question + SINGLE_WORD)]), 12)
        return generation.text

    return ask


@pytest.mark.parametrize("more", ["larger", "higher"])
@pytest.mark.parametrize(("large", "small"), [("Subtotal", "Freight"), ("Deposit", "Sales tax"), ("Freight", "Sales tax")])
def test_which_of_two_numbers_is_larger_does_not_depend_on_how_it_is_asked(answer, large, small, more):
    less = {"larger": "smaller", "higher": "lower"}[more]
    assert answer(f"Is the {large} {more} than the {small}?") == "yes"
    assert answer(f"Is the {small} {more} than the {large}?") == "no"
    assert answer(f"Is the {large} {less} than the {small}?") == "no"
    assert answer(f"Is the {small} {less} than the {large}?") == "yes"
