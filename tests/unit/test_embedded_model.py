"""The embedded model's classes, tokenizer and processing; no weights of the checkpoint are needed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.vlms.embedded.alphabet import CHARACTERS, OPTION_LETTER, OR_NOT_FOUND, SINGLE_WORD, WHOLE_ANSWERS
from pipeline.vlms.embedded.modeling import build_model, encode_views, load, prompt_embeddings, reading_order
from pipeline.vlms.embedded.processing import (
    crop_view_size,
    expand_views,
    grid_size,
    page_view_size,
    render_prompt,
    view_pixels,
)
from pipeline.vlms.embedded.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    model = build_model(tokenizer, width=64, layers=2, layout_layers=1).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-1, 1)
            module.running_var.uniform_(0.5, 2)
    return model


def prompt_ids(tokenizer, grids, question):
    return torch.tensor([tokenizer.encode(expand_views(render_prompt(len(grids), question), grids))])


@torch.no_grad()
def logits(model, tokenizer, views):
    ids = prompt_ids(tokenizer, [(v.shape[1] // 16, v.shape[2] // 32) for v in views], "What is it?" + SINGLE_WORD)
    embeddings = prompt_embeddings(model, ids, torch.cat(encode_views(model, views)))
    return ids, model(inputs_embeds=embeddings).logits


@pytest.fixture(scope="module")
def views():
    generator = torch.Generator().manual_seed(1)
    return [torch.rand(1, 96, 128, generator=generator), torch.rand(1, 32, 64, generator=generator)]


def test_a_reloaded_model_gives_identical_logits(model, tokenizer, views, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer_again = load(tmp_path)
    assert torch.equal(logits(model, tokenizer, views)[1], logits(again, tokenizer_again, views)[1])
    assert not any(p.requires_grad for p in again.parameters())


def test_the_published_forward_pass_agrees_with_ours(model, tokenizer, views):
    ids, ours = logits(model, tokenizer, views)
    padded = torch.zeros(2, 1, 96, 128)
    padded[0], padded[1, :, :32, :64] = views[0], views[1]
    with torch.no_grad():
        sizes = torch.tensor([[96, 128], [32, 64]])
        theirs = model(input_ids=ids, pixel_values=padded, image_sizes=sizes).logits
    torch.testing.assert_close(ours, theirs)


def test_gradients_reach_the_visual_tokens_and_leave_the_weights_alone(model, tokenizer, views):
    tokens = torch.cat([t.detach() for t in encode_views(model, views)]).requires_grad_()
    ids = prompt_ids(tokenizer, [(6, 4), (2, 2)], "What is it?")
    out = model(inputs_embeds=prompt_embeddings(model, ids, tokens)).logits[0, -1].log_softmax(-1)
    (gradient,) = torch.autograd.grad(-(out.exp() * out).sum(), tokens)
    assert gradient.shape == (28, 64)
    assert gradient.abs().sum() > 0
    assert all(p.grad is None for p in model.parameters())


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
    with pytest.raises(ValueError, match="2 views, 1 grids"):
        expand_views(render_prompt(2, "Total?"), [(1, 1)])


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


@given(st.integers(8, 3000), st.integers(8, 3000))
def test_view_sizes_keep_their_bounds(width, height):
    page, crop = page_view_size(width, height), crop_view_size(width, height)
    assert max(page) <= 992
    assert page[0] <= width
    assert crop[0] <= 640
    assert crop[1] <= 480
    assert crop[0] <= 1.5 * width + 1


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
    tower = build_model(build_tokenizer(), width=64, layers=1, layout_layers=1).model.vision_tower
    size = tower.config.character_size
    with torch.no_grad():
        tower.place_codes.weight.zero_()
        tower.slots = torch.nn.Identity()
    places = torch.zeros(2, 1, 2, 16, dtype=torch.long)
    places[:, 0, 0, 5:8:2] = torch.tensor([1, 2])
    places[0, 0, 1, 1] = 3
    places[1, 0, 1, 4] = 3
    slots = tower.compose(places).unflatten(-1, (-1, size))  # two before, then those of the cell
    code = tower.character_codes.weight
    assert torch.allclose(slots[:, 0, 2:4], code[1:3].expand(2, 2, size))
    assert torch.allclose(slots[0, 0, 4], code[3])
    assert not slots[1, 0, 4].any()
