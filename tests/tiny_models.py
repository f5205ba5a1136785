"""Tiny random models of every family, made of the real configuration classes and saved as the hub's folders are.

Widths are a few dozen, vocabularies are the ASCII characters, and weights are large enough for the signal in one cell to
stand out and for gradients to be far from rounding. Nothing is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
)
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig

from pipeline.vlms.embedded.configuration import ReaderTowerConfig
from pipeline.vlms.embedded.modeling import build_model
from pipeline.vlms.embedded.tokenizer import build_tokenizer

CONTEXT = 1024
"""Positions of every tiny language model except the embedded one's 8192."""

_WIDTH = 32
_TEXT = {
    "hidden_size": _WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.2,
}
_VISION = {
    "hidden_size": _WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "patch_size": 14,
    "initializer_range": 0.2,
}

_IMAGES_IN_CONTENT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def build_llava(folder: Path) -> None:
    """LLaVA-1.5: 6 x 6 tokens; like the hub's, the image processor's file says centre-crop."""
    tokenizer = _tokenizer("<image>", bos="<s>", eos="</s>")
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(image_size=84, **_VISION),
        text_config=LlamaConfig(**_TEXT, **_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=36,
    )
    images = {
        "image_processor_type": "CLIPImageProcessor",
        "processor_class": "LlavaProcessor",
        "size": {"shortest_edge": 84},
        "crop_size": {"height": 84, "width": 84},
        "do_center_crop": True,
        "resample": 3,
    }
    _save(folder, LlavaForConditionalGeneration(config), tokenizer, images)


def build_llava_next(folder: Path) -> None:
    """LLaVA-1.6: tiles of 4 x 4 tokens on the hub's five canvases."""
    tokenizer = _tokenizer("<image>", bos="<s>", eos="</s>")
    pinpoints = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
    config = LlavaNextConfig(
        vision_config=CLIPVisionConfig(image_size=56, **_VISION),
        text_config=MistralConfig(sliding_window=None, **_TEXT, **_ids(tokenizer)),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    images = {
        "image_processor_type": "LlavaNextImageProcessor",
        "processor_class": "LlavaNextProcessor",
        "size": {"shortest_edge": 56},
        "crop_size": {"height": 56, "width": 56},
        "do_center_crop": True,
        "do_pad": True,
        "image_grid_pinpoints": pinpoints,
        "resample": 3,
    }
    _save(folder, LlavaNextForConditionalGeneration(config), tokenizer, images)


def build_internvl(folder: Path) -> None:
    """InternVL-3.5: up to six tiles of 2 x 2 tokens; like the hub's, the image processor's file says no tiles."""
    template = _IMAGES_IN_CONTENT.replace("IMAGE", "<IMG_CONTEXT>\n")
    tokenizer = _tokenizer(
        "<IMG_CONTEXT>", "<img>", "</img>", "<|im_start|>", "<|im_end|>", eos="<|im_end|>", template=template
    )
    vision = {**_VISION, "patch_size": [14, 14], "image_size": [56, 56], "layer_scale_init_value": 1.0}
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**vision),
        text_config=Qwen3Config(head_dim=8, **_TEXT, **_ids(tokenizer)),
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        image_seq_length=4,
    )
    images = {
        "image_processor_type": "GotOcr2ImageProcessorFast",
        "processor_class": "InternVLProcessor",
        "size": {"height": 56, "width": 56},
        "crop_size": None,
        "crop_to_patches": False,
        "min_patches": 1,
        "max_patches": 6,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "data_format": "channels_first",
        "input_data_format": None,
        "return_tensors": None,
        "device": None,
        "disable_grouping": None,
        "resample": 3,
    }
    _save(folder, InternVLForConditionalGeneration(config), tokenizer, images)


def build_qwen2_5_vl(folder: Path) -> None:
    """Qwen2.5-VL: up to 48 merged cells of 28 px, one block of windowed attention."""
    template = _IMAGES_IN_CONTENT.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>")
    tokenizer = _tokenizer(
        "<|image_pad|>",
        "<|video_pad|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|im_start|>",
        "<|im_end|>",
        eos="<|im_end|>",
        template=template,
    )
    token = tokenizer.convert_tokens_to_ids
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 2,
            "hidden_size": _WIDTH,
            "intermediate_size": 48,
            "num_heads": 2,
            "out_hidden_size": _WIDTH,
            "window_size": 56,
            "fullatt_block_indexes": [1],
            "initializer_range": 0.2,
        },
        text_config={**_TEXT, "rope_parameters": rope, **_ids(tokenizer)},
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
    )
    images = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2_5_VLProcessor",
        "min_pixels": 56 * 56,
        "max_pixels": 48 * 28 * 28,
        "patch_size": 14,
        "temporal_patch_size": 2,
        "merge_size": 2,
    }
    _save(folder, Qwen2_5_VLForConditionalGeneration(config), tokenizer, images)


def build_embedded(folder: Path) -> None:
    """The embedded model's classes at a small width."""
    tokenizer = build_tokenizer()
    sizes = {"layout_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 64}
    model = build_model(tokenizer, ReaderTowerConfig(n_slots=4, signature_size=8, **sizes), layers=3, heads=4)
    for name, weight in model.named_parameters():
        # Its own initialisation is meant for training: at first next to nothing depends on anything.
        if weight.dim() > 1 and "language_model" in name:
            torch.nn.init.normal_(weight, std=0.2)
    # What a reader names depends on what stands around. Of one that has learned nothing this may count for more than what is
    # there: tests of where a token looks would find its neighbour.
    tower = model.model.vision_tower
    for block in tower.reader.blocks:
        torch.nn.init.constant_(block.norm.weight, 0.1)
    torch.nn.init.normal_(tower.reader.head.weight, std=0.3)
    # Strided convolutions reach up and left of the place that they stand for; one that has learned allows for it.
    with torch.no_grad():
        for layer in (tower.reader.stem[0], tower.reader.stem[1], tower.reader.stem[-1]):
            layer[0].weight[:, :, 0] = 0
            layer[0].weight[:, :, :, 0] = 0
    _save(folder, model, tokenizer, None)


def build_clip(folder: Path) -> Path:
    """CLIP with 4 x 4 patches of 14 px and one token a character, the same weights every time."""
    tokenizer = _tokenizer(bos="<s>", eos="</s>")
    tokenizer.model_max_length = 48
    tower = {"hidden_size": _WIDTH, "intermediate_size": 48, "num_attention_heads": 2, "num_hidden_layers": 2}
    ids = _ids(tokenizer)
    config = CLIPConfig(
        text_config={**tower, **ids, "max_position_embeddings": 48, "initializer_factor": 4.0},
        vision_config={**tower, "image_size": 56, "patch_size": 14, "initializer_factor": 4.0},
        projection_dim=24,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        _save(folder, CLIPModel(config), tokenizer, None)
    return folder


BUILDERS: dict[str, Callable[[Path], None]] = {
    "embedded": build_embedded,
    "llava": build_llava,
    "llava_next": build_llava_next,
    "internvl": build_internvl,
    "qwen2_5_vl": build_qwen2_5_vl,
}
FAMILIES = tuple(BUILDERS)


def build(family: str, folder: Path) -> Path:
    """Save a tiny model of a family into a folder; the same weights every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        BUILDERS[family](folder)
    return folder


def _tokenizer(*special: str, eos: str, bos: str | None = None, template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a character; a beginning-of-text token is written by the tokenizer, as LLaMA's does."""
    control = list(dict.fromkeys(["<pad>", "<unk>", *([bos] if bos else []), eos, *special]))
    names = [*control, "\n", *(chr(code) for code in range(0x20, 0x7F))]
    tokenizer = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in control])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(f"{bos} $A", None, [(bos, names.index(bos))])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", bos_token=bos, eos_token=eos
    )
    fast.chat_template = template
    return fast


def _ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerFast, images: dict[str, Any] | None) -> None:
    """Write the folder; the image processor's file with the keys and the class name that the hub's has."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if images is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(images), encoding="utf-8")


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture of coloured noise."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())
