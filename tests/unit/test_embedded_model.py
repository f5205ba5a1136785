"""The embedded model's classes, tokenizer and processing; no weights of the checkpoint are needed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.vlms.embedded.alphabet import CHARACTERS, OPTION_LETTER, OR_NOT_FOUND, SINGLE_WORD, WHOLE_ANSWERS
from pipeline.vlms.embedded.configuration import NUMBER, ReaderTowerConfig
from pipeline.vlms.embedded.modeling import build_model, encode_views, grid_places, load, prompt_embeddings, reading_order
from pipeline.vlms.embedded.processing import (
    PAGE_SCALE,
    crop_view_size,
    expand_views,
    grid_size,
    inked_cells,
    page_view_size,
    render_prompt,
    view_pixels,
)
from pipeline.vlms.embedded.tokenizer import build_tokenizer

TINY = ReaderTowerConfig(layout_size=64, num_hidden_layers=1, num_attention_heads=1, intermediate_size=64)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    model = build_model(tokenizer, TINY, layers=2, heads=2).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


class _Called(torch.nn.Module):
    """A module that does what a function does."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *inputs):
        return self.function(*inputs)


def prompt_ids(tokenizer, views, question):
    counts = [int(inked_cells(view).sum()) for view in views]
    return torch.tensor([tokenizer.encode(expand_views(render_prompt(len(views), question), counts))])


@torch.no_grad()
def logits(model, tokenizer, views):
    ids = prompt_ids(tokenizer, views, "What is it?" + SINGLE_WORD)
    embeddings = prompt_embeddings(model, ids, torch.cat(encode_views(model, views)))
    return ids, model(inputs_embeds=embeddings).logits


@pytest.fixture(scope="module")
def views():
    """Two views of noise of 6 x 4 cells, two cells of the one and one of the other empty."""
    generator = torch.Generator().manual_seed(1)
    views = [view_pixels(torch.randint(0, 256, (96, 128), generator=generator).numpy().astype(np.uint8)) for _ in range(2)]
    views[0][:, 16:32, 32:96] = -1
    views[1][:, 80:, :32] = 0.5
    return views


def test_a_reloaded_model_gives_identical_logits(model, tokenizer, views, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer_again = load(tmp_path)
    assert torch.equal(logits(model, tokenizer, views)[1], logits(again, tokenizer_again, views)[1])
    assert not any(p.requires_grad for p in again.parameters())


def test_the_published_forward_pass_agrees_with_ours(model, tokenizer, views):
    ids, ours = logits(model, tokenizer, views)
    with torch.no_grad():
        theirs = model(input_ids=ids, pixel_values=torch.stack(views)).logits
    torch.testing.assert_close(ours, theirs)


def test_gradients_reach_the_visual_tokens_and_leave_the_weights_alone(model, tokenizer, views):
    tokens = torch.cat([t.detach() for t in encode_views(model, views)]).requires_grad_()
    ids = prompt_ids(tokenizer, views, "What is it?")
    out = model(inputs_embeds=prompt_embeddings(model, ids, tokens)).logits[0, -1].log_softmax(-1)
    (gradient,) = torch.autograd.grad(-(out.exp() * out).sum(), tokens)
    assert gradient.shape == (2 * 24 - 3, TINY.hidden_size)
    assert gradient.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())


def test_paper_becomes_no_token(views):
    inked = inked_cells(torch.stack(views))
    assert inked.shape == (2, 6, 4)
    assert (~inked).nonzero().tolist() == [[0, 1, 1], [0, 1, 2], [1, 5, 0]]
    assert inked_cells(torch.stack(views).bfloat16()).equal(inked)
    assert inked_cells(torch.full((1, 32, 64), -1.0)).tolist() == [[True, False], [False, False]], "a view is never nothing"


def test_faint_print_is_ink_and_light_noise_is_paper():
    rng = np.random.default_rng(0)
    paper = 240 - rng.normal(0, 4, (16, 96)).clip(-12, 12)
    paper[4:9, 10:12] -= 60
    paper[2:4, 80:90] -= 60
    assert inked_cells(view_pixels(paper.astype(np.uint8))).tolist() == [[True, False, True]]


@given(st.text(alphabet=CHARACTERS.replace("<", ""), min_size=1, max_size=40))
def test_text_survives_the_tokenizer(text):
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_whole_answers_are_one_token_and_only_as_whole_answers(tokenizer):
    for answer in WHOLE_ANSWERS:
        (token,) = tokenizer.encode(answer)
        assert tokenizer.decode([token]) == answer
        assert token not in tokenizer.encode(f"a note, {answer} thing")
    assert len(tokenizer.encode("notes")) == 5


@pytest.mark.parametrize("sentence", [SINGLE_WORD, OPTION_LETTER, OR_NOT_FOUND])
def test_fixed_sentences_are_one_token(tokenizer, sentence):
    assert len(tokenizer.encode("Total?" + sentence)) == len("Total?") + 1
    assert tokenizer.decode(tokenizer.encode("Total?" + sentence)) == "Total?" + sentence


def test_the_chat_template_writes_the_documented_prompt(tokenizer):
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "Total?"}]
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    assert written == render_prompt(2, "Total?")


def test_views_that_do_not_fit_the_prompt_are_refused():
    with pytest.raises(ValueError, match="2 views, 1 counts"):
        expand_views(render_prompt(2, "Total?"), [1])


@given(st.integers(1, 400), st.integers(1, 400))
def test_pixels_are_padded_with_white_to_whole_cells(width, height):
    grey = np.zeros((height, width), np.uint8)
    pixels = view_pixels(grey)
    rows, columns = grid_size(width, height)
    assert pixels.shape == (1, rows * 16, columns * 32)
    assert (pixels[0, :height, :width] == 1).all()
    assert pixels.sum() == height * width - (pixels == -1).sum()


def test_pictures_and_arrays_give_the_same_pixels():
    grey = np.arange(48 * 33, dtype=np.uint32).reshape(48, 33).astype(np.uint8)
    assert torch.equal(view_pixels(grey), view_pixels(Image.fromarray(grey)))


@given(st.integers(8, 9000), st.integers(8, 9000))
def test_view_sizes_keep_their_bounds(width, height):
    page, crop = page_view_size(width, height), crop_view_size(width, height)
    assert min(page) <= 1312
    assert max(page) <= 1856
    assert page[0] <= width
    assert crop[0] <= 640
    assert crop[1] <= 480
    assert crop[0] <= width


@pytest.mark.parametrize("size", [(1654, 2339), (2339, 1654), (2000, 2600), (2339, 3307), (3307, 2339)])
def test_print_of_one_size_is_shown_as_large_on_a4_as_on_a3(size):
    assert page_view_size(*size) == tuple(round(side * PAGE_SCALE) for side in size)


def test_reading_order_of_certain_characters_is_their_order():
    order, total = reading_order(torch.tensor([[[0.0, 1.0, 0.0, 1.0]]]), 3)
    assert order[0, 0, 1].tolist() == [1, 0, 0]
    assert order[0, 0, 3].tolist() == [0, 1, 0]
    assert order[0, 0, 0].tolist() == [0, 0, 0]
    assert total[0, 0].tolist() == [0, 0, 1]


def test_reading_order_of_uncertain_characters_is_a_probability():
    order, total = reading_order(torch.tensor([[[0.5, 0.5, 1.0]]]), 4)
    assert order[0, 0, 2].tolist() == [0.25, 0.5, 0.25, 0]
    assert total[0, 0].tolist() == [0, 0.25, 0.5, 0.25]


def test_a_cell_holds_the_first_letter_of_the_next_one_where_a_word_goes_on():
    """Two cells, "ab" up to the edge and "c" behind it: the slot after "b" holds "c"; a distant "c" is another word."""
    tower = build_model(build_tokenizer(), TINY, layers=1, heads=2).model.vision_tower
    places = torch.zeros(2, 1, 2, 16, dtype=torch.long)
    places[:, 0, 0, 5:8:2] = torch.tensor([1, 2])
    places[0, 0, 1, 1] = 3
    places[1, 0, 1, 4] = 3
    slots = tower.compose(places)  # two before, then those of the cell
    code = torch.cat([tower.character_codes.weight, tower.signature.letters.weight], dim=1)
    assert torch.allclose(slots[:, 0, 2:4, :-NUMBER], code[1:3].expand(2, 2, -1))
    assert torch.allclose(slots[0, 0, 4, :-NUMBER], code[3])
    assert not slots[1, 0, 4].any()


def test_what_one_glance_of_three_misreads_is_outvoted(views):
    """One glance at noise names "b" at a place, the others "a", as surely; each is of the picture shifted otherwise."""
    tower = build_model(build_tokenizer(), TINY, layers=1, heads=2).model.vision_tower
    seen = []

    def reader(pixels):
        seen.append(pixels)
        logits = torch.zeros(1, 6, 4, 16, tower.config.n_characters)
        logits[..., 0] = 20.0
        logits[0, 2, 2, 5, 1 if len(seen) < 3 else 2] = 25.0
        return logits

    tower.reader = _Called(reader)
    named = tower.read(views[0][None])
    assert named[0, 2, 2, 5].argmax() == 1
    assert named[0, 2, 2, 5, 1] == pytest.approx(0.8, abs=0.01)
    assert torch.allclose(named.sum(-1), torch.ones(()))
    assert len({tuple(glance.flatten().tolist()) for glance in seen}) == len(seen) == 3


def test_cells_are_laid_out_alike_whether_all_or_some_are_kept():
    """Which cells are there is told by their rows and columns: a batch that keeps all, in another order, is the same."""
    tower = build_model(build_tokenizer(), TINY, layers=1, heads=2).model.vision_tower.eval()
    slots = tower.compose(torch.randint(0, 5, (2, 2, 3, 16)))
    order = torch.stack([torch.randperm(6), torch.arange(6)])
    places = grid_places(2, 3, slots.device)
    with torch.no_grad():
        whole = tower.lay_out(slots, places).tokens
        kept = tower.lay_out(slots[torch.arange(2)[:, None], order], places[order]).tokens
    torch.testing.assert_close(kept, whole[torch.arange(2)[:, None], order], atol=1e-5, rtol=1e-4)
