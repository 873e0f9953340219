"""Fits where a prompt is not finite or memory runs out: the rest counts, and what happened is said."""

import math
from functools import partial

import pytest
import torch
from test_activations import random_prompts

import lrc_tl as lrc

PLACE = {"subject_layer": 0, "object_layer": 2, "progress": False}
SOLVERS = ["exact", lrc.LowRank(rank=2, oversample=0, power_iterations=1)]


@pytest.fixture
def prompts():
    return random_prompts(6, seed=5)


@pytest.fixture
def spoilt(word_model, prompts):
    """The model, of which the pass over one prompt's subject is NaN from the middle layer on."""
    (token,) = word_model.tokenizer.encode(prompts[2].subject, add_special_tokens=False)
    others = [p for p in prompts if prompts[2].subject not in f"{p.text} {p.object}".split()]
    given = [*others[:2], prompts[2], *others[2:]]
    assert len(given) > 3
    weight = next(w for name, w in word_model.named_parameters() if w.shape[0] == 48 and "unembed" not in name)
    kept = weight.detach().clone()
    with torch.no_grad():
        weight[token] = math.nan
    yield word_model, given
    with torch.no_grad():
        weight.copy_(kept)


@pytest.mark.parametrize("solver", SOLVERS, ids=["exact", "low_rank"])
def test_a_prompt_that_is_not_finite_is_reported_and_not_counted(spoilt, solver):
    model, prompts = spoilt
    message = rf"1 of {len(prompts)} prompts are left out of the fit: the subject activation of '.*' at layer 0"
    with pytest.warns(UserWarning, match=message):
        lre = lrc.LinearRelationalEmbedding.fit(model, prompts, solver=solver, **PLACE)
    rest = [*prompts[:2], *prompts[3:]]
    expected = lrc.LinearRelationalEmbedding.fit(model, rest, solver=solver, **PLACE)
    # A low-rank fit reads prefixes in batches, whose size may change the last bits.
    torch.testing.assert_close(lre.weight, expected.weight)
    torch.testing.assert_close(lre.bias, expected.bias)
    assert (lre.n_prompts, lre.prompts_hash) == (len(rest), expected.prompts_hash)


def test_a_grid_leaves_the_prompt_out_of_all_pairs(spoilt):
    model, prompts = spoilt
    layers = {"subject_layers": [0, 1], "object_layers": [1, 2], "progress": False}
    with pytest.warns(UserWarning, match="1 of .* prompts are left out"):
        grid = lrc.fit_layer_grid(model, prompts, **layers)
    expected = lrc.fit_layer_grid(model, [*prompts[:2], *prompts[3:]], **layers)
    for pair, lre in grid.items():
        torch.testing.assert_close(lre.weight, expected[pair].weight, rtol=0, atol=0)


def test_a_jacobian_that_breaks_after_others_of_its_prompt_were_counted_leaves_no_trace(
    word_model, prompts, recwarn
):
    """The last object layer alone is broken for one prompt: its earlier Jacobians must not stay in the sums."""
    from lrc_tl.lre import layer_grid

    whole = layer_grid.jacobian_grid

    def broken_late(model, tokens, pairs, **options):
        for number, entry in enumerate(whole(model, tokens, pairs, **options)):
            if tokens.prompt is prompts[2] and number == 1:
                raise lrc.errors.NotFiniteError("the Jacobian is not finite")
            yield entry

    layers = {"subject_layers": [0], "object_layers": [1, 2], "progress": False}
    expected = lrc.fit_layer_grid(word_model, [*prompts[:2], *prompts[3:]], **layers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_grid, "jacobian_grid", broken_late)
        grid = lrc.fit_layer_grid(word_model, prompts, **layers)
    for pair, lre in grid.items():
        torch.testing.assert_close(lre.weight, expected[pair].weight, rtol=0, atol=0)
    assert len(recwarn) == 1


@pytest.mark.parametrize("solver", SOLVERS, ids=["exact", "low_rank"])
def test_where_no_prompt_is_finite_the_fit_is_refused(spoilt, solver):
    model, prompts = spoilt
    with pytest.raises(lrc.errors.NotFiniteError, match=r"the subject activation of .* at layer 0 is not finite"):
        lrc.LinearRelationalEmbedding.fit(model, [prompts[2]] * 2, solver=solver, **PLACE)


def test_directions_are_those_of_the_finite_prompts(spoilt):
    model, prompts = spoilt
    rest = [*prompts[:2], *prompts[3:]]
    lre = lrc.LinearRelationalEmbedding.fit(model, rest, **PLACE)
    expected = lre.concepts(model, rest, rank=3)
    lost = prompts[2].object not in expected
    with pytest.warns(UserWarning, match=rf"1 of {len(prompts)} prompts are left out") as caught:
        concepts = lre.concepts(model, prompts, rank=3)
    assert torch.equal(concepts.vectors, expected.vectors)
    assert lost == (f"with them the objects {prompts[2].object!r}" in str(caught[0].message))
    with pytest.warns(UserWarning, match="prompts are left out"):
        means = lrc.fit_concepts(model, prompts, method="mean", subject_layer=1, progress=False)
    assert torch.equal(
        means.vectors, lrc.fit_concepts(model, rest, method="mean", subject_layer=1, progress=False).vectors
    )


@pytest.fixture
def little_memory(monkeypatch):
    """Reverse passes over more rows than this run out of memory, as on a full GPU."""
    vmap = torch.func.vmap

    def limited(most, function):
        def run(rows):
            if len(rows) > most:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return vmap(function)(rows)

        return run

    def limit(most):
        monkeypatch.setattr(torch.func, "vmap", partial(limited, most))

    return limit


@pytest.mark.parametrize("solver", SOLVERS, ids=["exact", "low_rank"])
def test_a_fit_goes_on_in_smaller_chunks_and_gives_the_same(word_model, prompts, little_memory, solver, recwarn):
    expected = lrc.LinearRelationalEmbedding.fit(word_model, prompts, solver=solver, **PLACE)
    little_memory(3 if solver == "exact" else 1)
    lre = lrc.LinearRelationalEmbedding.fit(word_model, prompts, solver=solver, **PLACE)
    torch.testing.assert_close(lre.weight, expected.weight)
    sizes = [str(warning.message) for warning in recwarn]
    # Said once for each halving, and not again for every prompt.
    wanted = [(12, 6), (6, 3)] if solver == "exact" else [(3, 1)]
    for size, text in zip(wanted, sizes, strict=True):
        assert (
            f"memory ran out with {size[0]} rows of a Jacobian at once; they are run again with {size[1]}" in text
        )


def test_reading_goes_on_in_smaller_batches(word_model, prompts, monkeypatch):
    from lrc_tl.passes import batches

    expected = lrc.subject_activations(word_model, prompts, layer=1)
    known = lrc.filter_known(word_model, prompts, progress=False)
    whole = batches.hooked_pass

    def limited(model, ids, **given):
        if len(ids) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory")
        return whole(model, ids, **given)

    monkeypatch.setattr(batches, "hooked_pass", limited)
    with pytest.warns(UserWarning, match="memory ran out with 6 prompts at once; they are run again with 3"):
        torch.testing.assert_close(lrc.subject_activations(word_model, prompts, layer=1), expected)
    with pytest.warns(UserWarning, match="memory ran out with 6 prompts at once"):
        again = lrc.filter_known(word_model, prompts, progress=False)
    assert (again.prompts, again.answers) == (known.prompts, known.answers)


def test_a_fit_without_memory_for_one_row_leaves_nothing_on_the_model(word_model, prompts, monkeypatch):
    from left_behind import left_on

    def never(function):
        def run(rows):
            raise torch.OutOfMemoryError("CUDA out of memory.")

        return run

    monkeypatch.setattr(torch.func, "vmap", never)
    before = left_on(word_model)
    with (
        pytest.warns(UserWarning, match="run again with 1"),
        pytest.raises(lrc.errors.OutOfMemoryError, match="single one of the rows of a Jacobian"),
    ):
        lrc.LinearRelationalEmbedding.fit(word_model, prompts, **PLACE)
    assert left_on(word_model) == before
    assert not any(weight.requires_grad for weight in word_model.parameters())
