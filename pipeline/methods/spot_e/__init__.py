"""SPOT-E: a spotlight on the page, tuned per question until the frozen model's answer is decisive.

Yin et al., "SPOT-E: Test-Time Entropy Shaping with Visual Spotlights for Frozen VLMs", arXiv:2606.20244v1; equation numbers
in this package are that paper's. The authors have released no code, and the paper leaves much open. Settled here:

    noise            added to the relevance field on a coarse grid of action cells, before the sigmoid: the only place where
                     the policy has a density. pi_theta = N(mean over each action cell of the field, noise^2). Log-densities
                     and KL are means over the cells; with sums every ratio would be clipped.
    normalisation    raw relevance would give a nearly flat mask (Eq. 12). The fused map is brought to [-1, 1] by its 2nd
                     and 98th percentile before any tuning; both stay fixed for the question, or tuning would be undone by
                     them.
    views            the page and an even grid of overlapping windows.
    dimming B        x -> dim x, no blur: nothing becomes less legible than a darker copy.
    answer span      what follows the last "Final answer:", which is forced behind a marked output that lacks it; all of a
                     bare answer, as our model writes them, and of an output that leaves even a forced marker empty. White
                     space, a final period and the end token never count. An output that says nothing is its own span.
    anchors          by rank over the whole output including its end token, which is the one anchor of a bare answer that is
                     not in its answer span.
    Best-of-N pool   all sampled masks, the tuned policy's mean and a few more samples of it; ties go to the earlier one.
    baseline         scored by the same call as the candidates, so that the untouched page's reward is zero and rounding
                     does not look like disruption.
    equal rewards    no step at all, not even of the penalty or of Adam's momentum: such a group says nothing.
    key words        the question without stop words; the paper does not say how it finds them.
    eye              ``clip`` is the paper's. ``vlm`` needs no other model: the frozen VLM's entropy gradient on the page
                     and on the windows (arXiv:2604.08456), as saliency per page area, is the initial field, and theta is an
                     offset per action cell. Adam moves each of them by about its rate, so theirs is a third of the noise,
                     not LoRA's 5e-4, with which eight steps would end where they began.
    evidence         regions where the chosen mask is at least half as bright as at its brightest, by their sum of mask.
                     None for an answer from the untouched page.
    steps            the untouched page with the initial mask, the best mask of each update's group, the choice; a step's
                     token entropy is the mean over the answer span (Eq. 3).
"""
