"""The paper's eye on a tiny random CLIP: what it reads, what LoRA is and costs, what it leaves behind, how it fails."""

from __future__ import annotations

import builtins
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from transformers import CLIPModel, CLIPVisionConfig, CLIPVisionModel

from pipeline.answer import answer_page
from pipeline.config import SpotEConfig
from pipeline.errors import EyeUnavailable, ModelUnavailable
from pipeline.geometry import Box
from pipeline.methods import build_method
from pipeline.methods.spot_e.eye_clip import ClipEye, ClipTower, key_words, load_tower
from pipeline.methods.spot_e.method import SpotE
from pipeline.presets import method_config
from pipeline.records import Question, Usage
from tests.fakes import encoded
from tests.spotlights import LitVlm, grey_page
from tests.tiny_models import build_clip, noise

TOTAL = Question("total", "What is the total amount due on the invoice?")
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    load_tower.cache_clear()
    yield
    load_tower.cache_clear()


def tower(folder: Path, seed: int = 0) -> ClipTower:
    return load_tower(str(folder), None, 4, 4, seed, CPU)


def sharper(number: int, lit: float, rest: float) -> float:
    return 0.5 + 0.4 * (lit - rest) if number < 3 else 0.9


def model() -> LitVlm:
    return LitVlm(grey_page(), Box(56, 56, 112, 112), sharper)


def settings(folder: Path, **changes: object) -> dict[str, str]:
    small = {
        "eye": "clip", "clip": folder, "lora_rank": 4, "action_cells": 4, "crop_grid": 2, "steps": 2, "group": 4,
        "extra_samples": 1, "learning_rate": 0.05,
    }  # fmt: skip
    return {key: str(value) for key, value in (small | changes).items()}


def method(vlm: LitVlm, folder: Path, **changes: object) -> SpotE:
    built = build_method(vlm, method_config("spot-e", "lit", None, settings(folder, **changes)))
    assert isinstance(built, SpotE)
    return built


# --------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("Is there a bear in the photo?", "bear photo"),
        ("What is the total amount due?", "total amount due"),
        ("When does contract no. 12-B/7 end?", "contract no 12-B/7 end"),
        ("What is it?", "What is it?"),
        ("Wie heißt der Käufer?", "Wie heißt der Käufer"),
    ],
)
def test_the_words_that_name_something_are_kept(question: str, words: str) -> None:
    assert key_words(question) == words


# ----------------------------------------------------------------------------------------------------------- relevance


def test_relevance_is_the_cosine_of_patch_and_words(folder: Path) -> None:
    """Eq. 10 against the parts of transformers' own class, LoRA at its beginning: B is zero, so nothing is added."""
    own = CLIPModel.from_pretrained(folder)
    eye, image = tower(folder), noise(90, 70)
    pixels = eye.pixels(image)
    with torch.no_grad():
        found = eye.cosines(pixels, eye.words("a photo of a total"), "plain")
        states = own.vision_model(pixel_values=pixels).last_hidden_state[:, 1:]
        patches = F.normalize(own.visual_projection(own.vision_model.post_layernorm(states)), dim=-1)
        tokens = eye.tokenizer(["a photo of a total"], return_tensors="pt")
        words = F.normalize(own.get_text_features(tokens["input_ids"], tokens["attention_mask"]).pooler_output, dim=-1)
    assert found.shape == (1, 4, 4)
    assert torch.allclose(found.flatten(), (patches[0] @ words[0]).flatten(), atol=1e-5)
    assert found.abs().max() <= 1


def test_a_view_is_squashed_not_cropped_and_normalised_as_clip_was_trained(folder: Path) -> None:
    """A page thrice as wide as high keeps its left and right edges."""
    pixels = np.zeros((40, 120, 3), np.uint8)
    pixels[:, :10] = 255
    found = tower(folder).pixels(Image.fromarray(pixels))
    assert found.shape == (1, 3, 56, 56)
    assert float(found[0, 0, 28, 0]) == pytest.approx((1 - 0.48145466) / 0.26862954, abs=0.02)
    assert float(found[0, 2, 28, 55]) == pytest.approx(-0.40821073 / 0.27577711, abs=0.02)


def test_the_value_path_leaves_out_the_last_blocks_attention(folder: Path) -> None:
    """Every patch of it depends on its own state in the last block only."""
    eye = tower(folder)
    pixels = eye.pixels(noise(56, 56))
    with torch.no_grad():
        vision = eye.model.vision_model
        states = vision(pixel_values=pixels, output_hidden_states=True).hidden_states
        last = vision.encoder.layers[1]
        assert torch.allclose(last(states[1], attention_mask=None), states[2], atol=1e-5)
        plain, value = (eye.cosines(pixels, eye.words("total"), dense) for dense in ("plain", "value"))
    assert plain.shape == value.shape
    assert not torch.allclose(plain, value, atol=1e-3)


def test_long_questions_are_cut_to_what_clip_reads(folder: Path) -> None:
    found = tower(folder).words("very long " * 40)
    assert found.shape == (24,)
    assert float(found.norm()) == pytest.approx(1.0)


def test_the_field_is_normalised_once_and_follows_lora(folder: Path) -> None:
    """At theta_0 its 2nd and 98th percentile are -1 and 1; afterwards it is not normalised again."""
    vlm = model()
    page = encoded(vlm, grey_page())
    page.view.page.image.paste(noise(112, 112))
    config = method(vlm, folder).search
    with ClipEye(config).look(page, TOTAL, "", lambda: None) as relevance:
        with torch.no_grad():
            before = relevance.field()
        assert before.shape == (8, 8)
        assert np.percentile(before.numpy(), (2, 98)) == pytest.approx((-1, 1), abs=1e-4)
        with torch.no_grad():
            for parameter in relevance.parameters:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            after = relevance.field()
        assert not torch.allclose(before, after, atol=0.1)
    with ClipEye(config).look(page, TOTAL, "", lambda: None) as relevance, torch.no_grad():
        assert torch.equal(relevance.field(), before)


# ---------------------------------------------------------------------------------------------------------------- LoRA


def test_lora_tunes_the_attention_of_the_vision_tower_and_nothing_else(folder: Path) -> None:
    eye = tower(folder)
    trainable = [name for name, parameter in eye.model.named_parameters() if parameter.requires_grad]
    assert len(trainable) == len(eye.lora) == 2 * 4 * 2
    assert all("vision_model.encoder.layers" in name and "self_attn" in name and "lora_" in name for name in trainable)
    assert sum(parameter.numel() for parameter in eye.lora) == 2 * 4 * 2 * (32 * 4)


def test_rank_sixteen_on_vit_b_16_is_1_18_million_parameters() -> None:
    """What the text says; the paper's tables print 6.8 M, which is ViT-L/14 with its perceptrons."""
    from peft import LoraConfig, inject_adapter_in_model

    config = SpotEConfig()
    with torch.device("meta"):
        vision = CLIPVisionModel(CLIPVisionConfig(hidden_size=768, intermediate_size=3072, patch_size=16))
        tuned = LoraConfig(r=config.lora_rank, target_modules=["q_proj", "k_proj", "v_proj", "out_proj"])
        inject_adapter_in_model(tuned, vision)
    assert sum(value.numel() for name, value in vision.named_parameters() if "lora_" in name) == 1_179_648


def test_tuning_moves_lora_and_the_end_of_a_question_brings_it_back(folder: Path) -> None:
    vlm = model()
    vlm.page.image.paste(noise(112, 112))
    spot_e = method(vlm, folder)
    eye = tower(folder)
    page = encoded(vlm, vlm.page)
    first, other, again = (spot_e.find(page, question) for question in (TOTAL, Question("d", "Which date?"), TOTAL))
    assert first.drift > 0.05
    assert first.rewards == again.rewards != other.rewards
    assert all(torch.equal(now, then) for now, then in zip(eye.lora, eye.initial, strict=True))
    assert all(parameter.grad is None for parameter in eye.model.parameters())
    assert first.gradient_norm is None
    (answer,) = answer_page(vlm, vlm.page, [TOTAL], method_config("spot-e", "lit", None, settings(folder)))
    assert (answer.failure, answer.signals.gradient_norm, answer.text) == (None, None, "12.50")


def test_lora_is_reset_when_the_question_fails(folder: Path) -> None:
    vlm = model()
    beats = iter(range(5))

    def pulse() -> None:
        if next(beats) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        method(vlm, folder).find(encoded(vlm, vlm.page), TOTAL, pulse)
    eye = tower(folder)
    assert all(torch.equal(now, then) for now, then in zip(eye.lora, eye.initial, strict=True))


def test_the_control_leaves_lora_alone(folder: Path) -> None:
    vlm = model()
    vlm.page.image.paste(noise(112, 112))
    assert method(vlm, folder, update=False).find(encoded(vlm, vlm.page), TOTAL).drift == 0


@pytest.mark.parametrize("dense", ["plain", "value"])
def test_its_passes_are_not_the_vlms(folder: Path, dense: str) -> None:
    """1 + 1 + 0 for the eye + T N + 1 + E + answer and refusal; nothing is differentiated in the VLM."""
    vlm = model()
    config = method_config("spot-e", "lit", None, settings(folder, dense=dense))
    (answer,) = answer_page(vlm, vlm.page, [TOTAL], config)
    assert answer.failure is None
    forward = 1 + 1 + 2 * 4 + 1 + 1 + 1 + 1
    assert vlm.usage == Usage(forward, 0, 1 + 2 * 4 + 1 + 1, forward * 64, 6)


def test_lora_depends_on_the_seed_alone_and_loading_leaves_no_trace(folder: Path) -> None:
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = [value.clone() for value in tower(folder, seed=1).lora]
    load_tower.cache_clear()
    torch.rand(7)
    torch.set_rng_state(states[0])
    second, other = (tower(folder, seed=seed).lora for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]


def test_clip_is_loaded_once_for_many_pages(folder: Path) -> None:
    vlm = model()
    for _ in range(3):
        method(vlm, folder).find(encoded(vlm, vlm.page), TOTAL)
    assert load_tower.cache_info().misses == 1


# ------------------------------------------------------------------------------------------------------------- failures


def refusal(folder: Path) -> str:
    """Why the eye could not be had: every question carries it, and the call goes on."""
    vlm = model()
    answers = list(answer_page(vlm, vlm.page, [TOTAL, TOTAL], method_config("spot-e", "lit", None, settings(folder))))
    failures = [answer.failure for answer in answers]
    assert failures[0] == failures[1]
    assert failures[0] is not None
    assert (failures[0].code, failures[0].retryable) == ("eye_unavailable", False)
    return failures[0].message


def test_missing_weights_say_what_to_do(tmp_path: Path) -> None:
    message = refusal(tmp_path / "nowhere")
    assert "no such folder" in message
    assert "--set clip=FOLDER" in message
    assert "or choose --set eye=vlm" in message
    vlm = model()
    with pytest.raises(EyeUnavailable) as caught:
        method(vlm, tmp_path / "nowhere").find(encoded(vlm, vlm.page), TOTAL)
    assert isinstance(caught.value, ModelUnavailable)
    assert caught.value.exit_code == 3


def test_only_safetensors_of_clip_are_read(tmp_path: Path, folder: Path) -> None:
    pickled, other, torn = (Path(shutil.copytree(folder, tmp_path / name)) for name in ("pickled", "other", "torn"))
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    assert "holds no *.safetensors weights" in refusal(pickled)
    text = (other / "config.json").read_text().replace('"model_type": "clip"', '"model_type": "siglip"')
    (other / "config.json").write_text(text)
    assert "holds a model of type 'siglip', not clip" in refusal(other)
    (torn / "model.safetensors").write_bytes((torn / "model.safetensors").read_bytes()[:500])
    assert "cannot be loaded as CLIP" in refusal(torn)


def test_weights_that_do_not_cover_the_model_are_refused(tmp_path: Path, folder: Path) -> None:
    partial = Path(shutil.copytree(folder, tmp_path / "partial"))
    weights = load_file(partial / "model.safetensors")
    del weights["visual_projection.weight"]
    save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
    assert "lacks 1 of CLIP's weights, visual_projection.weight" in refusal(partial)


def test_a_missing_library_says_how_to_install_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = builtins.__import__

    def without_peft(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "peft":
            raise ImportError("No module named 'peft'")
        return own(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without_peft)
    message = refusal(folder)
    assert "pip install 'exhibit[clip]'" in message
    assert "or choose --set eye=vlm" in message


def test_the_eye_is_part_of_the_configurations_digest(folder: Path) -> None:
    digests = {
        method_config("spot-e", "lit", None, changes).sha256
        for changes in ({}, {"eye": "clip"}, {"eye": "clip", "clip": "x/y"}, {"eye": "clip", "clip_revision": "main"})
    }
    assert len(digests) == 4
