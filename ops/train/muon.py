"""Muon where bf16 has no instructions."""

import torch
from torch import Tensor


class FloatMuon(torch.optim.Muon):
    """torch's Muon with its Newton-Schulz iteration in float32.

    torch rounds each gradient to bf16 for it, whatever the processor: where that has no instructions for bf16, a step of the
    embedded model takes 20 s instead of less than one. Whichever adjustment of the rate is named, it is "match_rms_adamw": a
    step of the size that AdamW would take.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step; see `torch.optim.Muon`."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(weight.grad)
                momentum = state["momentum_buffer"]
                momentum.lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] * 0.2 * max(weight.shape) ** 0.5
                weight.add_(orthogonal(update, group["ns_coefficients"], group["ns_steps"]), alpha=-rate)


def orthogonal(matrix: Tensor, coefficients: tuple[float, float, float], steps: int) -> Tensor:
    """The nearest matrix whose singular values are about one, in the matrix's own dtype.

    Args:
        matrix: [m, n].
        coefficients: of the quintic (Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks").
        steps: of the Newton-Schulz iteration.
    """
    a, b, c = coefficients
    tall = len(matrix) > matrix.shape[1]
    wide = matrix.T if tall else matrix
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if tall else wide
