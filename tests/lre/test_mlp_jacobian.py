"""MLPs with their Jacobians in the reverse pass: the derivative of norm, MLP and norm, made once where it pays."""

import pytest
import torch
from test_lean_reverse import AT, KINDS, model_of, plainly

import lrc_tl as lrc
from lrc_tl.lre import jacobian, mlp_jacobian
from lrc_tl.lre.jacobian import jacobian_grid
from lrc_tl.lre.jacobian_graph import mlp_jacobian_size
from lrc_tl.lre.lean_reverse import lean_reverse
from lrc_tl.models.hooked_model import hooked_transformer

pytestmark = pytest.mark.skipif(
    hooked_transformer() is None, reason="this TransformerLens has no HookedTransformer"
)
GATED = next(iter(KINDS))
PAIRS = [(0, 1), (0, 2), (1, 2)]


@pytest.fixture
def made(monkeypatch):
    """Counts the Jacobians of MLPs that are made."""
    places = []
    transposed_jacobian = mlp_jacobian._MlpAt.transposed_jacobian

    def counted(self):
        places.append(self)
        return transposed_jacobian(self)

    monkeypatch.setattr(mlp_jacobian._MlpAt, "transposed_jacobian", counted)
    return places


def upper_half(block, x):
    """What a block adds to the residual behind its attention."""
    return block.apply_mlp(block.ln2(x))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "attention only"])
def test_pulling_back_through_the_upper_half_is_its_derivative(kind, made):
    block = model_of(kind).blocks[1]
    x = torch.randn(2, 3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.randn(5, 2, 3, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.stack(
        [torch.autograd.functional.vjp(lambda x: upper_half(block, x), x, row)[1] for row in rows]
    )
    leaf = x.clone().requires_grad_(True)
    with lean_reverse(_of_blocks(kind, block), [0], mlp_jacobians=True):
        out = upper_half(block, leaf)
    torch.testing.assert_close(out, upper_half(block, x))
    (found,) = torch.func.vmap(lambda row: torch.autograd.grad(out, leaf, row, retain_graph=True))(rows)
    torch.testing.assert_close(found, expected)
    assert len(made) == 6


def _of_blocks(kind, block):
    model = model_of(kind)
    model.blocks[0] = block
    return model


def test_jacobians_are_made_once_for_all_object_layers_and_rows(made, monkeypatch):
    model = model_of(GATED)
    monkeypatch.setattr(jacobian, "rows_at_once", lambda *args, **options: 5)
    found = dict(jacobian_grid(model, AT, PAIRS, memory_limit=10**9))  # more than a quarter of the tiny weights
    assert len(made) == 5 + 2  # from the subject on in layer 1; at the object's two tokens in layer 2
    plainly(monkeypatch)
    for pair, plain in jacobian_grid(model, AT, PAIRS):
        torch.testing.assert_close(found[pair].jacobian, plain.jacobian)


@pytest.mark.parametrize("name", ["mlp.hook_post", "ln2.hook_scale", "ln2_post.hook_normalized"])
def test_a_hook_that_changes_what_flows_changes_the_jacobian_as_ever(name, made, monkeypatch):
    model = model_of(GATED)

    def run():
        with model.hooks(fwd_hooks=[(f"blocks.1.{name}", lambda activation, hook: activation.detach() * 0.7)]):
            return lrc.lre.subject_object_jacobian(model, AT, subject_layer=0, object_layer=2).jacobian

    found = run()
    plainly(monkeypatch)
    torch.testing.assert_close(found, run())


def test_it_pays_from_the_rows_on_whose_products_it_takes_away():
    model = model_of(GATED)  # width 12, MLP of 20, two weights before the nonlinearity and one behind it
    products_without = 3 * 12 * 20
    products_with = 12 * 12
    for n_rows in (1, 4, 5, 12, 40):
        cheaper = n_rows * products_with + 12 * 12 * 20 < n_rows * products_without
        assert mlp_jacobian.is_worth_it(model, n_rows) is cheaper
    assert not mlp_jacobian.is_worth_it(model_of("attention only"), 10**6)


def test_where_they_would_take_too_much_memory_the_reverse_pass_goes_without_them(made):
    model = model_of(GATED)
    with pytest.raises(ValueError, match="one row of the Jacobian takes about") as error:
        dict(jacobian_grid(model, AT, PAIRS, memory_limit=1))
    row = int(str(error.value).split("takes about ")[1].split(";")[0])
    kept = mlp_jacobian_size(model, AT, PAIRS)
    assert kept == (5 + 2) * 12 * 12 * 8 == mlp_jacobian.bytes_kept(model, 5 + 2)
    little = dict(jacobian_grid(model, AT, PAIRS, memory_limit=max(row, 4 * kept - 1)))
    assert not made
    enough = dict(jacobian_grid(model, AT, PAIRS, memory_limit=4 * kept + row))
    assert made
    for pair in PAIRS:
        torch.testing.assert_close(little[pair].jacobian, enough[pair].jacobian)
