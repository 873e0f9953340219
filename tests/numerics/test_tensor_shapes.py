"""Tensors whose axes do not fit are refused, and the error names the argument."""

import pytest
import torch

from lrc_tl.numerics.direction_error import direction_errors, simulated
from lrc_tl.numerics.low_rank import Factors, numerical_rank
from lrc_tl.numerics.sketching import added_basis, factors_of, left_out_energy

CALLS = {
    "singular_values": lambda: numerical_rank(torch.tensor([2, 1]), (2, 2)),
    "weight": lambda: Factors.of(torch.ones(4)),
    "target": lambda: Factors.of(torch.eye(4)).solve(torch.ones(2, 4).long(), rank=1),
    "new": lambda: added_basis(torch.eye(4)[:, :2], torch.ones(3, 1)),
    "image": lambda: factors_of(torch.eye(4)[:, :2], torch.ones(5, 3)),
    "products": lambda: left_out_energy(torch.ones(4), n_rows=4),
    "targets": lambda: direction_errors(simulated(torch.arange(9.0, 0, -1), 2, 2, seed=0), torch.ones(9), rank=1),
    "values": lambda: simulated(torch.eye(3), 2, 2, seed=0),
}


@pytest.mark.parametrize(("argument", "call"), CALLS.items(), ids=CALLS)
def test_a_tensor_that_does_not_fit_is_named(argument, call):
    with pytest.raises(TypeError, match=f"`{argument}` is a tensor of .* it must be Float"):
        call()
