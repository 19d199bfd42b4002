"""What the tests of the CPU's products share."""

import torch


def numbers(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def run(linear, x):
    out = torch.full((len(x), linear.n_out), float("nan"))
    assert linear(x, out) is out
    return out
