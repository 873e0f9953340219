"""Products with Jacobians against the Jacobians themselves, on every model class."""

import pytest
import torch
from test_jacobian import (  # noqa: F401  (fixtures)
    gemma_bridge,
    hugging_face,
    model,
    native_bridge,
    relative,
    tokens,
)

import lrc_tl as lrc
from lrc_tl.lre.jacobian import jacobian_grid
from lrc_tl.lre.jacobian_products import JacobianProducts
from lrc_tl.passes.prefix_cache import prefix_cache, prefix_caches

PAIRS = [(0, 1), (1, 1), (0, 2), (1, 2)]


def random_rows(number, seed=0):
    return torch.randn(number, 12, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tolerance(one):  # Bridges compute norms and softmax in float32, and rotations are rounded differently
    return 1e-5 if hasattr(one, "original_model") else 1e-9


@pytest.mark.parametrize("subject_position", [0, 3])
@pytest.mark.parametrize(("n_object", "aggregation"), [(1, "mean"), (3, "mean"), (3, "first_token")])
def test_products_from_both_sides_are_those_of_the_exact_jacobian(model, subject_position, n_object, aggregation):  # noqa: F811
    at = tokens(subject_position, n_object)
    exact = dict(jacobian_grid(model, at, PAIRS, object_aggregation=aggregation))
    products = JacobianProducts(model, at, PAIRS, object_aggregation=aggregation)
    rows = random_rows(5)
    for layer in (0, 1):
        found = products.forward(layer, rows)
        assert set(found) == {object_ for subject, object_ in PAIRS if subject == layer}
        for object_layer, product in found.items():
            expected = rows @ exact[layer, object_layer].jacobian.T
            assert (product - expected).norm() <= tolerance(model) * expected.norm()
    for layer in (1, 2):
        found = products.reverse(layer, rows)
        assert set(found) == {subject for subject, object_ in PAIRS if object_ == layer}
        for subject_layer, product in found.items():
            expected = rows @ exact[subject_layer, layer].jacobian
            assert (product - expected).norm() <= tolerance(model) * expected.norm()
    assert exact[0, 2].jacobian.norm() > 0.01
    for pair, one in exact.items():
        assert torch.equal(products.subject(pair[0]), one.subject)
        torch.testing.assert_close(products.object(pair[1]), one.object)


def test_at_equal_layers_products_are_those_of_the_identity_or_zero(model):  # noqa: F811
    rows = random_rows(3)
    for at, share in [(tokens(5, 1), 1.0), (tokens(5, 2), 0.5), (tokens(3, 2), 0.0)]:
        products = JacobianProducts(model, at, [(1, 1)])
        torch.testing.assert_close(products.forward(1, rows)[1], share * rows)
        torch.testing.assert_close(products.reverse(1, rows)[1], share * rows)


def test_rows_at_once_do_not_change_the_products(model):  # noqa: F811
    at, rows = tokens(2, 2), random_rows(7)
    whole = JacobianProducts(model, at, [(0, 2)])
    with pytest.raises(ValueError, match=r"memory_limit is 1 bytes, but one row .* takes about (\d+)") as error:
        JacobianProducts(model, at, [(0, 2)], memory_limit=1)
    one_row = int(str(error.value).split("about ")[1].split(";")[0])
    thin = JacobianProducts(model, at, [(0, 2)], memory_limit=3 * one_row)
    assert relative(thin.forward(0, rows)[2], whole.forward(0, rows)[2]) < 1e-6
    assert relative(thin.reverse(2, rows)[0], whole.reverse(2, rows)[0]) < 1e-6


def test_inference_mode_around_it_does_not_zero_the_products(model):  # noqa: F811
    at = tokens(2, 1)
    expected = JacobianProducts(model, at, [(0, 2)]).forward(0, random_rows(2))[2]
    with torch.inference_mode():
        found = JacobianProducts(model, at, [(0, 2)]).forward(0, random_rows(2))[2]
    assert expected.norm() > 0.01
    assert torch.equal(found, expected)


def test_no_hook_and_no_replaced_method_is_left_behind(model):  # noqa: F811
    before = {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()}
    own = [set(module.__dict__) for module in model.modules()]
    JacobianProducts(model, tokens(2, 1), [(0, 2)]).forward(0, random_rows(1))
    assert {name: len(point.fwd_hooks) for name, point in model.hook_dict.items()} == before
    assert [set(module.__dict__) for module in model.modules()] == own


def test_an_object_that_is_read_before_the_subject_is_refused(model):  # noqa: F811
    at = lrc.relations.TokenizedPrompt(
        prompt=lrc.Prompt(text="cat is", subject="cat", object="x"),
        text_ids=(1, 2, 3),
        object_ids=(4,),
        subject_position=5,
    )
    with pytest.raises(ValueError, match="read at position 2, before the subject at 5"):
        JacobianProducts(model, at, [(0, 2)])


def test_prefixes_of_different_lengths_are_cached_together_as_they_are_alone(model):  # noqa: F811
    all_tokens = [tokens(position, 2) for position in (4, 0, 2, 5)]
    prefixes = [at.input_ids[: at.subject_position] for at in all_tokens]
    caches = prefix_caches(model, prefixes, stop_at_layer=3)
    for at, prefix, cache in zip(all_tokens, prefixes, caches, strict=True):
        alone = prefix_cache(model, torch.tensor([prefix], dtype=torch.long), stop_at_layer=3)
        assert (cache is None) == (alone is None)
        found = JacobianProducts(model, at, [(0, 2)], cache=cache).forward(0, random_rows(2))[2]
        expected = JacobianProducts(model, at, [(0, 2)]).forward(0, random_rows(2))[2]
        assert relative(found, expected) < 1e-6


def test_rows_that_are_no_table_are_refused_with_their_shape(model):  # noqa: F811
    products = JacobianProducts(model, tokens(3, 1), PAIRS)
    for product in (products.forward, products.reverse):
        with pytest.raises(TypeError, match=r"`rows` is a tensor of float64 and shape \(12,\); it must be Float"):
            product(1, random_rows(1)[0])
