"""How sure the model is of a yes: one forward pass a question, nothing decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pipeline.errors import NonFiniteSaliency, OutOfMemory, YesNoAmbiguous
from pipeline.methods.zoom_eye.words import NO, YES
from pipeline.vlms.base import Prompt, Vlm
from pipeline.vlms.device import device_errors


@dataclass(frozen=True, slots=True)
class Belief:
    """A yes/no question's answer.

    Attributes:
        confidence: 2 P(yes) / (P(yes) + P(no)) - 1, from -1 to 1.
        token_entropy: Of the next token over the whole vocabulary, in nats.
        max_probability: The next token's largest.
    """

    confidence: float
    token_entropy: float
    max_probability: float

    @property
    def probability(self) -> float:
        """P(yes) where only yes and no are possible, 0-1."""
        return (1 + self.confidence) / 2


class YesNo:
    """Reads the probabilities of yes and no behind prompts.

    Args:
        vlm: A frozen model.
        released: Look at "Yes" and "No" only; otherwise lower case counts, too.

    Raises:
        YesNoAmbiguous: The model begins both words with the same token.
    """

    def __init__(self, vlm: Vlm, *, released: bool) -> None:
        self.vlm = vlm
        self._yes, self._no = (self._first_tokens(word, released) for word in (YES, NO))
        if set(self._yes) & set(self._no):
            raise YesNoAmbiguous(f"{vlm.identity.name} begins yes and no with the same token, so zoom-eye cannot ask it")

    def _first_tokens(self, word: str, released: bool) -> list[int]:
        spellings = (word,) if released else (word, word.lower())
        return sorted({self.vlm.continuation_ids(spelling)[0] for spelling in spellings})

    def beliefs(self, prompts: Sequence[Prompt]) -> list[Belief]:
        """Ask all prompts in one batch, or in halves where the device's memory does not hold it.

        Raises:
            NonFiniteSaliency: The model's logits are NaN or infinite.
            OutOfMemory: One prompt alone does not fit.
        """
        if not prompts:
            return []
        try:
            return self._batch(prompts)
        except OutOfMemory:
            if len(prompts) == 1:
                raise
        # Outside the handler: the error's traceback would keep what the failed batch had made.
        middle = len(prompts) // 2
        return self.beliefs(prompts[:middle]) + self.beliefs(prompts[middle:])

    def _batch(self, prompts: Sequence[Prompt]) -> list[Belief]:
        reading = self.vlm.read(prompts)
        with device_errors(f"{self.vlm.identity.device}, asking yes or no,"), torch.no_grad():
            logp = reading.logits[:, -1].double().log_softmax(-1)
            yes, no = logp[:, self._yes].logsumexp(-1), logp[:, self._no].logsumexp(-1)
            # p / (p + q) * 2 - 1 without ever leaving the logarithm
            confidence = torch.tanh((yes - no) / 2)
            entropy = torch.special.entr(logp.exp()).sum(-1)
            rows = torch.stack([confidence, entropy, logp.amax(-1).exp()], dim=1)
            if not bool(torch.isfinite(rows).all()):
                raise NonFiniteSaliency(
                    f"{self.vlm.identity.name} in {self.vlm.identity.dtype} gives no finite probability of yes or no; "
                    "another --dtype may help"
                )
            return [Belief(*row) for row in rows.tolist()]
