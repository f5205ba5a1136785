"""The engine on tiny random models of every family against the reference on transformers' own forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.config import GroundingConfig
from pipeline.presets import method_config
from pipeline.records import Box, Page
from pipeline.vlms.base import Prompt
from pipeline.vlms.engine import FrozenVlm
from pipeline.vlms.loading import load_vlm
from pipeline.zoom import zoom
from tests import reference
from tests.fakes import encoded, make_page, one_thread
from tests.reference import Rules
from tests.tiny_models import FAMILIES, build, noise


@dataclass(frozen=True)
class WholeForward:
    """A family as the reference knows a model: embeddings put in the place of the image tokens, one plain forward pass.

    Sequence and positions are the adapter's, which its own tests hold against transformers; blocks, caches, leaves and
    shared beginnings are not used. Logits are rounded to single precision, as the engine's are.
    """

    vlm: FrozenVlm
    end: int

    def look(self, page: Page, box: Box, crop: bool) -> Any:
        return self.vlm.encode([page.image.crop(box.xyxy)], crops=crop)[0]

    def states(self, shown: Sequence[Any], text: str, forced: Sequence[int], leaf: int) -> list[torch.Tensor]:
        assert leaf == 0
        return [view.embeddings for view in shown]

    def logits(
        self,
        shown: Sequence[Any],
        text: str,
        forced: Sequence[int],
        leaf: int,
        layer: int | None,
        states: Sequence[torch.Tensor],
    ) -> torch.Tensor:
        row = self.vlm._row(Prompt(tuple(shown), text), tuple(forced))
        language_model = self.vlm.model.model.language_model
        visual = iter(states)
        pieces = [
            language_model.embed_tokens(torch.tensor(piece.ids)) if piece.view is None else next(visual)
            for piece in row.pieces
        ]
        positions = row.positions[:, None] if len(row.positions) > 1 else row.positions
        hidden = language_model(inputs_embeds=torch.cat(pieces)[None], position_ids=positions, use_cache=False)
        return self.vlm.model.lm_head(hidden.last_hidden_state[0, -1 - len(forced) :]).float().double()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, FrozenVlm]]:
    """Every family in double precision."""
    folder = tmp_path_factory.mktemp("tiny")
    with one_thread():
        yield {family: load_vlm(str(build(family, folder / family)), dtype="float64") for family in FAMILIES}


RULES = {
    "paper": dict.fromkeys(FAMILIES, reference.PAPER),
    "document": {**dict.fromkeys(FAMILIES, reference.DOCUMENT), "embedded": reference.DOCUMENT_EMBEDDED},
    "official": {
        **dict.fromkeys(FAMILIES, reference.OFFICIAL_LLAVA),
        "internvl": reference.OFFICIAL_INTERNVL,
        "qwen2_5_vl": reference.OFFICIAL_QWEN,
    },
}


@pytest.mark.parametrize("size", [(90, 60), (40, 101)], ids=["wide", "tall"])
@pytest.mark.parametrize("preset", RULES)
@pytest.mark.parametrize("family", FAMILIES)
def test_engine_and_reference_agree_on_real_architectures(
    models: dict[str, FrozenVlm], family: str, preset: str, size: tuple[int, int]
) -> None:
    """Boxes, stop round and reason are equal; scores to the single precision of the logits."""
    vlm = models[family]
    page = make_page(noise(*size, seed=3))
    # A few rounds are enough, and crops must fit into the tiny context.
    settings = {"rounds": "3", "regions": "2"}
    rules = Rules(**{**vars(RULES[preset][family]), "rounds": 3, "k": 2})
    grounding = method_config("entropy-gradient", family, preset, settings).search
    assert isinstance(grounding, GroundingConfig)
    found = zoom(vlm, encoded(vlm, page), "Total?", grounding)
    model = WholeForward(vlm, vlm._end_ids[0])
    expected = reference.Search(model, page, "Total?", rules).run()
    assert (len(found.steps), found.steps[-1].stop_reason) == (len(expected.passes), expected.reason)
    assert [crop.view.box for crop in found.crops] == expected.crops
    for step, once in zip(found.steps, expected.passes, strict=True):
        assert [(region.view, region.box) for region in step.regions] == [(place.view, place.box) for place in once.places]
        ours = [region.saliency for region in step.regions]
        np.testing.assert_allclose(ours, [place.saliency for place in once.places], rtol=1e-4)
        assert step.token_entropy == pytest.approx(once.token_entropy, rel=1e-5)
        for saliency_map, values in zip(step.maps, once.maps, strict=True):
            np.testing.assert_allclose(saliency_map.values, values, rtol=1e-3, atol=1e-4 * values.max())
