"""float32 or wider."""

import pytest
import torch

from lrc_tl.numerics.precision import unit_of, wide_dtype, wide_of


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_what_is_narrower_than_float32_is_widened_and_nothing_else(dtype, wide):
    rows = torch.tensor([[1.0, -2.5], [0.125, 3.0]], dtype=dtype)
    assert wide_dtype(dtype) == wide_of(rows).dtype == wide
    assert wide_of(rows).tolist() == rows.tolist()
    assert (wide_of(rows) is rows) == (dtype == wide)


def test_a_unit_vector_of_float32_has_unit_length_in_float64_too():
    generator = torch.Generator().manual_seed(0)
    stored = torch.randn(300, generator=generator)
    stored /= stored.norm()
    like = torch.zeros(1, dtype=torch.float64)
    assert abs(float(stored.double().norm()) - 1) > 1e-12  # what unit_of mends
    unit = unit_of(stored, like)
    assert unit.dtype == torch.float64
    assert float(unit.norm()) == pytest.approx(1, abs=1e-15)
    torch.testing.assert_close(unit, stored.double(), rtol=1e-6, atol=0)


def test_each_row_gets_unit_length():
    rows = torch.tensor([[3.0, 4.0], [0.0, -2.0]])
    torch.testing.assert_close(unit_of(rows, rows), torch.tensor([[0.6, 0.8], [0.0, -1.0]]))
