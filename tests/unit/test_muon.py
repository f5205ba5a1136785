"""The optimizer of processors without instructions for bf16."""

import torch

from ops.train.muon import FloatMuon, orthogonal

COEFFICIENTS = 3.4445, -4.7750, 2.0315


def test_steps_are_those_of_torch_but_for_its_rounding():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((48, 80), (80, 48), (40, 40))]
    theirs = [torch.nn.Parameter(weight.detach().clone()) for weight in ours]
    first = [weight.detach().clone() for weight in ours]
    settings = {"lr": 0.03, "weight_decay": 0.02, "momentum": 0.95, "adjust_lr_fn": "match_rms_adamw", "ns_steps": 4}
    optimizers = FloatMuon(ours, **settings), torch.optim.Muon(theirs, **settings)
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for mine, other, before in zip(ours, theirs, first, strict=True):
        assert (mine - other).norm() < 0.02 * (mine - before).norm()


def test_what_has_no_gradient_stays():
    still = torch.nn.Parameter(torch.ones(4, 4))
    FloatMuon([still], adjust_lr_fn="match_rms_adamw").step()
    assert (still == 1).all()


def test_singular_values_come_near_one_in_float32():
    torch.manual_seed(0)
    update = orthogonal(torch.randn(30, 50) @ torch.randn(50, 70), COEFFICIENTS, 5)
    assert update.shape == (30, 70)
    assert update.dtype == torch.float32
    assert 0.5 < torch.linalg.svdvals(update).min() < torch.linalg.svdvals(update).max() < 1.5
