"""ZoomEye: search the page's tree of rectangles for what the question needs, by asking the model yes or no.

Shen et al., "ZoomEye: Enhancing Multimodal LLMs with Human-Like Zooming Capabilities through Tree-Based Image Exploration",
arXiv:2411.16044. Nothing is differentiated: a node's confidence is the probability of yes against no. Built from a
description of the released code (om-ai-lab/ZoomEye at 6762d79), of which nothing is copied but prompts and numbers.

The released code, and with it the preset ``official``, differs from the default in this:

- it answers from one joint view (the hull of everything found; two distant crops side by side), the default from the
  page and a crop for each place, as the other methods do, so that methods differ in what they found, not in how it is shown;
- when the model names no objects, or the search finds nothing, it answers from the page as it is; the default looks for the
  question's own words instead, accepts the best node above the floor when nothing is left to visit, and says in the last
  step why it stopped;
- when the page alone says enough about one of several objects, it looks for none of them; the default for the others;
- lowered thresholds accumulate rounding errors (Qwen's ends one lowering early) and go below their floor once;
- patches are cut off at the right and lower border; the default moves them inside;
- its rectangle is drawn into the crop and covers the crop's rim; it is red even when the question speaks of red;
- "all addresses" becomes "addresse"; only "Yes" and "No" count, not their lower case.

Both differ from it in this: its demonstrations for naming objects are about photographs, ours about print; pronouns are
found by a list instead of a tagger; sentences that it writes between two pictures stand behind them; at most five objects
are looked for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from pipeline.config import MethodConfig, ZoomEyeConfig
from pipeline.errors import InternalError, MethodError
from pipeline.geometry import Box
from pipeline.methods.base import assemble, failed, prompt_text, refusal_margin
from pipeline.methods.zoom_eye.asking import YesNo
from pipeline.methods.zoom_eye.search import Find, Search
from pipeline.methods.zoom_eye.tree import merge_near
from pipeline.methods.zoom_eye.views import Viewer
from pipeline.methods.zoom_eye.words import Words, cue_request, question_cue, read_cues, rectangle_colour
from pipeline.records import Answer, Evidence, Question, Usage
from pipeline.vlms.base import Prompt, VisualTokens, Vlm
from pipeline.zoom import EncodedPage

MAX_CROPS = 4
"""Places shown for an answer; more are joined. The context of a model, and its attention, are limited."""
MAX_CUE_TOKENS = 256
"""Of the model's list of objects."""


class ZoomEye:
    """Tree search by yes and no.

    Evidence is what was cut out of the page and shown for the answer, best first; a page that answers as a whole gives
    none. Score and saliency are P(yes) / (P(yes) + P(no)) of the node that the crop was cut for (of the best, if several
    were joined): of "can the question be answered from this?", or of "does this show a …?" for all objects of a kind. Its
    cell is the node itself, the box's honest precision.

    A step is one node visited; for all objects of a kind, the whole sweep; or the one look at the page after which nothing
    was left to look for. Its views are the crops it is about (the small page beside a crop is not listed), its map holds
    what was learnt of the node's parts (P(yes) times area), its region is the part that promises most and, in the last step
    of each object, what was found. Token entropy and largest probability are means over the step's yes/no questions; nothing
    is measured of spatial entropy and gradients.

    Cost in forward passes: one for the model's list of objects (none with ``cues=question``); with several objects, one each
    to see what the page itself says (not for local views); for each object, one for each node visited and two for each
    part queued; for all objects of a kind, one for each node of the upper levels (21 of a tree of fours); one
    for the answer, and one for the refusal's score unless the answer is a refusal.
    """

    def __init__(self, vlm: Vlm, config: MethodConfig) -> None:
        if not isinstance(config.search, ZoomEyeConfig):
            raise InternalError("zoom-eye needs a configuration of its own")
        self.vlm, self.config, self.search = vlm, config.answer, config.search

    def answer(
        self, page: EncodedPage, questions: Sequence[Question], pulse: Callable[[], None] = lambda: None
    ) -> Iterator[Answer]:
        """Answer question by question; see `Method.answer`."""
        for question in questions:
            yield self._guarded(page, question, pulse)

    def _guarded(self, page: EncodedPage, question: Question, pulse: Callable[[], None]) -> Answer:
        started, before = time.perf_counter(), self.vlm.usage

        def spent() -> Usage:
            return self.vlm.usage - before + Usage(seconds=time.perf_counter() - started)

        try:
            return self._answer(page, question, pulse, spent)
        except MethodError as error:
            return failed(question, page, error, spent())

    def _answer(
        self, page: EncodedPage, question: Question, pulse: Callable[[], None], spent: Callable[[], Usage]
    ) -> Answer:
        pulse()
        colour = "red" if self.search.released else rectangle_colour(question.text)
        words = Words("document" if self.config.prompt == "document" else "paper", colour)
        viewer = Viewer(self.vlm, page, self.search, colour)
        asker = YesNo(self.vlm, released=self.search.released)
        search = Search(asker, viewer, words, question.text, pulse)
        finds = search.run(self._cues(question.text))
        views, boxes = self._views(viewer, finds)
        text = prompt_text(question, self.config)
        if self.search.released and self.search.view == "global-local":
            text = words.zoomed(text, len(views))
        prompt = Prompt(views, text)
        (generation,) = self.vlm.generate(self.vlm.read([prompt]), self.config.max_new_tokens)
        margin = refusal_margin(self.vlm, prompt, generation)
        return assemble(
            question,
            page,
            generation,
            margin,
            self.config,
            evidence=evidence(page.view.page.number, boxes, finds),
            steps=tuple(search.steps),
            usage=spent(),
        )

    def _cues(self, question: str) -> tuple[str, ...]:
        """What to look for."""
        cues: tuple[str, ...] = ()
        if self.search.cues != "question":
            reading = self.vlm.read([Prompt((), cue_request(question))])
            cues = read_cues(self.vlm.generate(reading, MAX_CUE_TOKENS)[0].text)
        if not cues and self.search.cues != "model":
            cues = (question_cue(question),)
        return cues

    def _views(self, viewer: Viewer, finds: Sequence[Find]) -> tuple[tuple[VisualTokens, ...], tuple[Box, ...]]:
        """What the answer is read from, and the boxes cut out of the page for it."""
        best_first = sorted(finds, key=lambda find: -find.confidence)
        if self.search.released:
            # A hull that takes in the page is the page.
            whole = any(find.node.depth == 0 for find in finds)
            return viewer.released_answer(() if whole else merge_near([find.box for find in best_first]))
        boxes = merge_near([find.box for find in best_first if find.node.depth], MAX_CROPS)
        return (viewer.page.tokens, *viewer.crops(boxes)), tuple(boxes)


def evidence(page: int, boxes: Sequence[Box], finds: Sequence[Find]) -> tuple[Evidence, ...]:
    """The boxes shown, each with the best of what was found in it; best first."""
    pieces = []
    for box in boxes:
        inside = [find for find in finds if find.node.depth and box.intersection(find.box)]
        best = max(inside, key=lambda find: find.confidence)
        pieces.append((best.probability, box, (float(best.node.box.width), float(best.node.box.height))))
    pieces.sort(key=lambda piece: -piece[0])
    return tuple(
        Evidence(rank, page, box, score=probability, saliency=probability, cell_px=cell)
        for rank, (probability, box, cell) in enumerate(pieces, start=1)
    )
