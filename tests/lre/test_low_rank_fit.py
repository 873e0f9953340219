"""Low-rank fits against exact ones on tiny models of both classes, and what is refused."""

import gc
import math
import weakref

import pytest
import torch

import lrc_tl as lrc
from lrc_tl.lre.fit_settings import solver_name, solver_named
from lrc_tl.lre.jacobian_products import JacobianProducts
from lrc_tl.models.hooked_model import hooked_transformer
from lrc_tl.numerics.direction_error import angles
from lrc_tl.storage.artifacts import read_artifact

D_MODEL = 48
PROMPTS = tuple(
    lrc.Prompt(text=f"{subject} is", subject=subject, object=object_, relation="kind of thing")
    for subject, object_ in [("cat", "pet"), ("dog", "pet"), ("oak", "tree")]
)
OPTIONS = {
    "n_layers": 3, "d_model": D_MODEL, "n_ctx": 32, "d_head": 12, "n_heads": 4, "d_mlp": 96, "d_vocab": 50,
    "act_fn": "gelu", "seed": 0, "positional_embedding_type": "rotary", "rotary_dim": 12,
    "normalization_type": "RMS", "initializer_range": 0.2,
}  # fmt: skip


@pytest.fixture(scope="module")
def bridge():
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    made = TransformerBridge.boot_native(TransformerBridgeConfig(**OPTIONS), dtype=torch.float64, device="cpu")
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def hooked():
    if hooked_transformer() is None:
        pytest.skip("this TransformerLens has no HookedTransformer")
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    made = HookedTransformer(HookedTransformerConfig(**OPTIONS, dtype=torch.float64, device="cpu"))
    return made.eval().requires_grad_(False)


@pytest.fixture(params=["bridge", "hooked"])
def model(request, monkeypatch):
    def tokenize(model, prompt):
        row = PROMPTS.index(prompt)
        ids = torch.randint(0, 50, (9,), generator=torch.Generator().manual_seed(row)).tolist()
        return lrc.relations.TokenizedPrompt(
            prompt=prompt, text_ids=tuple(ids[:6]), object_ids=tuple(ids[6 : 7 + row]), subject_position=row + 1
        )

    for module in ("lre.layer_grid", "passes.residuals"):
        monkeypatch.setattr(f"lrc_tl.{module}.tokenize_prompt", tokenize)
    return request.getfixturevalue(request.param)


def fit(model, **options):
    defaults = {"subject_layer": 0, "object_layer": 2, "progress": False}
    return lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **{**defaults, **options})


def low_rank(model, **options):
    return fit(model, solver=lrc.LowRank(**{"rank": 4, **options}))


def grid(model, **options):
    layers = {"subject_layers": [0, 1], "object_layers": [1, 2], "progress": False}
    return lrc.fit_layer_grid(model, PROMPTS, **{**layers, **options})


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def spy_on_products(monkeypatch):
    """Rows asked of each prompt's Jacobians, by direction."""
    rows = {"forward": 0, "reverse": 0}
    for name in rows:
        plain = getattr(JacobianProducts, name)

        def counted(self, layer, given, name=name, plain=plain):
            rows[name] += len(given)
            return plain(self, layer, given)

        monkeypatch.setattr(JacobianProducts, name, counted)
    return rows


@pytest.mark.parametrize(
    "options", [{}, {"oversample": 0, "power_iterations": 0}, {"oversample": 12, "power_iterations": 1}]
)
def test_a_low_rank_weight_is_the_exact_one_on_its_own_outputs_and_its_bias_is_exact(model, options):
    exact, found = fit(model), low_rank(model, **options)
    assert (exact.solver, found.solver) == ("exact", "low_rank")
    basis = found.svd.u
    assert basis.shape[1] == (4 + options["oversample"] if options else 16)  # by default whole rounds of eight
    torch.testing.assert_close(found.weight, basis @ (basis.T @ exact.weight), rtol=1e-5, atol=1e-6)
    assert relative(found.weight, exact.weight) > 0.01
    assert relative(found.bias, exact.bias) < 1e-6


def test_products_are_counted_for_each_prompt(model, monkeypatch):
    rows = spy_on_products(monkeypatch)
    found = low_rank(model, oversample=8, power_iterations=0)
    assert found.n_products == 2 * 12 + 1
    assert rows == {"forward": 3 * 13, "reverse": 3 * 12}
    assert fit(model).n_products == D_MODEL


def test_more_dimensions_and_more_rounds_come_nearer_to_the_exact_directions(model):
    exact = fit(model)
    acts = lrc.passes.object_activations(model, PROMPTS, layer=2)

    def worst(**options):
        return float(angles(low_rank(model, **options).invert(acts, rank=4), exact.invert(acts, rank=4)).max())

    assert worst(oversample=0, power_iterations=0) > worst(oversample=8, power_iterations=0)
    assert worst(oversample=16, power_iterations=0) > worst(oversample=16, power_iterations=3)


@pytest.mark.parametrize("min_cosine", [0.99, 0.9999])
def test_the_safe_setting_goes_on_until_every_direction_has_the_cosine_asked_for(model, min_cosine):
    exact, safe = fit(model).concepts(model, PROMPTS, rank=4), low_rank(model, min_cosine=min_cosine)
    found = safe.concepts(model, PROMPTS, rank=4)
    assert set(safe.direction_errors) == {"pet", "tree"}
    assert max(safe.direction_errors.values()) <= math.acos(min_cosine)
    for name, direction in exact.items():
        assert float(direction.vector @ found[name].vector) >= min_cosine
    assert safe.n_products < D_MODEL + 30


def test_the_fast_setting_says_where_its_directions_are_off(model):
    exact = fit(model).concepts(model, PROMPTS, rank=4)
    fast = low_rank(model, oversample=0, power_iterations=0)
    for name, direction in fast.concepts(model, PROMPTS, rank=4).items():
        assert float(angles(direction.vector, exact[name].vector)) <= fast.direction_errors[name]


def test_a_safe_fit_that_would_never_be_cheap_computes_the_rest_of_the_jacobian(model, monkeypatch):
    exact = fit(model)
    rows = spy_on_products(monkeypatch)
    found = low_rank(model, rank=16, min_cosine=1 - 1e-12)
    assert rows["reverse"] == 3 * D_MODEL
    assert (found.solver, found.rank_limit) == ("exact", None)
    assert found.n_products == (rows["forward"] + rows["reverse"]) / 3
    assert relative(found.weight, exact.weight) < 1e-5
    assert set(found.direction_errors.values()) == {0.0}


def test_a_sketch_as_dear_as_the_jacobian_is_an_exact_fit(model, monkeypatch):
    rows = spy_on_products(monkeypatch)
    found = low_rank(model, rank=12)
    assert rows == {"forward": 0, "reverse": 0}
    assert (found.solver, found.rank_limit, found.n_products) == ("exact", None, D_MODEL)
    assert torch.equal(found.weight, fit(model).weight)


def test_ranks_up_to_the_one_asked_for_are_accepted_and_no_more(model):
    found = low_rank(model)
    assert found.numerical_rank == found.rank_limit == 4
    acts = lrc.passes.object_activations(model, PROMPTS, layer=2)
    expected = (acts - found.bias) @ found.svd.u[:, :3] / found.svd.s[:3] @ found.svd.vh[:3]
    torch.testing.assert_close(found.invert(acts, rank=3), expected)
    for ask in (found.invert, lambda acts, rank: found.concepts(model, PROMPTS, rank=rank)):
        with pytest.raises(ValueError, match="rank 5 is above 4, which this low-rank LRE was fitted for; fit it"):
            ask(acts, rank=5)
    assert found.concepts(model, PROMPTS, rank=2).settings["lre_method"] == "low_rank"


def test_a_saved_low_rank_lre_comes_back_with_what_made_it(model, tmp_path):
    found = low_rank(model)
    found.save(tmp_path / "lre.safetensors")
    again = lrc.LinearRelationalEmbedding.load(tmp_path / "lre.safetensors", model=model)
    assert torch.equal(again.weight, found.weight)
    for field in ("solver", "rank_limit", "n_products", "direction_errors"):
        assert getattr(again, field) == getattr(found, field)
    _, header = read_artifact(tmp_path / "lre.safetensors", kind="lre")
    assert header["method"] == "low_rank"  # what files have called the solver from the start
    assert "solver" not in header
    assert again.numerical_rank == 4
    acts = lrc.passes.object_activations(model, PROMPTS, layer=2)
    torch.testing.assert_close(again.invert(acts, rank=4), found.invert(acts, rank=4), rtol=1e-4, atol=1e-6)


def test_a_file_from_before_there_was_a_low_rank_method_holds_an_exact_fit(model, tmp_path, monkeypatch):
    from lrc_tl.lre import embedding as module

    new = {"solver", "rank_limit", "n_products", "direction_errors"}
    plain = module.fields
    monkeypatch.setattr(module, "fields", lambda one: [field for field in plain(one) if field.name not in new])
    fit(model).save(tmp_path / "lre.safetensors")
    again = lrc.LinearRelationalEmbedding.load(tmp_path / "lre.safetensors")
    assert again.solver == "exact"
    assert again.rank_limit is again.n_products is again.direction_errors is None


def test_the_same_seed_gives_the_same_weight_and_global_randomness_is_left_alone(model):
    state = torch.get_rng_state()
    one, again, other = low_rank(model), low_rank(model), low_rank(model, seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.weight, again.weight)
    assert not torch.equal(one.weight, other.weight)


def test_graphs_beyond_those_that_are_kept_are_made_anew(model, monkeypatch):
    kept = low_rank(model)
    monkeypatch.setattr("lrc_tl.lre.low_rank_fit.GRAPHS_KEPT", 1)
    torch.testing.assert_close(low_rank(model).weight, kept.weight)


def test_inference_mode_around_a_low_rank_fit_changes_nothing(model):
    expected = low_rank(model)
    with torch.inference_mode():
        found = low_rank(model)
    assert expected.weight.norm() > 0.1
    assert torch.equal(found.weight, expected.weight)


def test_a_low_rank_grid_is_the_exact_one_on_its_outputs_and_its_biases_are_exact(model, monkeypatch):
    exact = grid(model)
    rows = spy_on_products(monkeypatch)
    found = grid(model, solver=lrc.LowRank(rank=3, oversample=6))
    assert set(found) == set(exact)
    assert rows == {"forward": 3 * 2 * (7 + 1), "reverse": 3 * 2 * 9}
    for pair, one in found.items():
        assert (one.solver, one.rank_limit, one.direction_errors) == ("low_rank", 3, None)
        if pair == (1, 1):  # positions differ: the object does not depend on the subject
            assert float(one.weight.norm()) == float(exact[pair].weight.norm()) == 0
            continue
        basis = one.svd.u
        torch.testing.assert_close(one.weight, basis @ (basis.T @ exact[pair].weight), rtol=1e-5, atol=1e-6)
        assert relative(one.bias, exact[pair].bias) < 1e-6
        assert relative(one.weight, exact[pair].weight) < 0.9


def test_a_grid_as_dear_as_the_jacobians_is_exact(model):
    exact, found = grid(model), grid(model, solver=lrc.LowRank(rank=20))
    for pair in exact:
        assert found[pair].solver == "exact"
        assert torch.equal(found[pair].weight, exact[pair].weight)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank 0 is not allowed; give 1 or more, at most the model's width"),
        ({"rank": -3}, "rank -3 is not allowed"),
        ({"oversample": -1}, "oversample is -1; give 0 or more"),
        ({"power_iterations": -1}, "power_iterations is -1; give 0 or more"),
        ({"min_cosine": 1.0}, "min_cosine is 1.0; give a number between 0 and 1"),
        ({"min_cosine": 0.0}, "min_cosine is 0.0; give a number between 0 and 1"),
    ],
)
def test_bad_settings_of_a_low_rank_fit_are_refused_without_a_model(options, message):
    with pytest.raises(ValueError, match=message):
        lrc.LowRank(**options)


def test_settings_of_a_low_rank_fit_are_numbers():
    for options in ({"rank": True}, {"rank": 4.0}, {"min_cosine": "0.9"}, {"seed": None}):
        with pytest.raises(TypeError, match=next(iter(options))):
            lrc.LowRank(**options)


def test_a_low_rank_solver_takes_the_rank_that_is_asked_for_and_keeps_a_larger_one():
    asked = lrc.LowRank(seed=3).for_rank(4)
    assert asked == lrc.LowRank(rank=4, seed=3)
    assert asked.for_rank(2) == asked
    with pytest.raises(
        ValueError, match=r"the solver is LowRank\(rank=4\), but rank 5 is asked for; give it rank=5"
    ):
        asked.for_rank(5)


@pytest.mark.parametrize("name", ["exact", "low_rank"])
def test_results_know_a_solver_by_its_name(name):
    assert solver_name(solver_named(name)) == name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": lrc.LowRank()}, r"LowRank needs a rank here: LowRank\(rank=...\)"),
        (
            {"solver": lrc.LowRank(rank=49)},
            "rank 49 is not allowed; the model's width is 48, so give 1 to 48",
        ),
        (
            {"solver": lrc.LowRank(rank=4, oversample=45)},
            "oversample 45 is not allowed; with rank 4 and width 48 give 0 to 44",
        ),
        ({"solver": "low_rank"}, r"solver is 'low_rank'; allowed are 'exact' and LowRank\(rank=...\)"),
        ({"solver": None}, r"solver is None; allowed are 'exact'"),
        ({"subject_layer": 2, "object_layer": 1}, "object layer 1 lies below subject layer 2"),
        ({"memory_limit": 1}, "memory_limit is 1 bytes, but one row of the Jacobian takes about"),
        ({"object_aggregation": "median"}, "'median'; allowed are 'mean' or 'first_token'"),
    ],
)
def test_bad_options_are_refused_before_the_model_runs(model, options, message):
    ran = []
    hooks = [("blocks.0.hook_resid_post", lambda residual, hook: ran.append(1))]
    ignored = model.hooks(fwd_hooks=hooks)
    fingerprint = lrc.models.ModelFingerprint.of(model)  # runs the model, once
    assert fingerprint is not None
    with ignored, pytest.raises(ValueError, match=message):
        fit(model, **{"solver": lrc.LowRank(rank=4), **options})
    assert not ran


@pytest.mark.parametrize("options", [{"min_cosine": 0.9}, {"power_iterations": 0}], ids=str)
def test_a_grid_refuses_what_only_one_pair_has(model, options):
    with pytest.raises(
        ValueError, match=r"grid of several pairs of layers, which has no min_cosine and no power_it"
    ):
        grid(model, solver=lrc.LowRank(rank=4, **options))
    ((_, found),) = grid(
        model, solver=lrc.LowRank(rank=4, **options), subject_layers=[0], object_layers=[2]
    ).items()
    assert torch.equal(found.weight, low_rank(model, **options).weight)


def test_a_low_rank_fit_of_no_prompts_is_refused(model):
    with pytest.raises(ValueError, match="no prompts to fit on"):
        lrc.LinearRelationalEmbedding.fit(
            model, [], subject_layer=0, object_layer=2, solver=lrc.LowRank(rank=2), progress=False
        )


def test_a_grid_of_one_pair_is_the_fit_of_that_pair(model):
    options = {"solver": lrc.LowRank(rank=4, seed=3), "progress": False}
    ((pair, found),) = lrc.fit_layer_grid(model, PROMPTS, subject_layers=[0], object_layers=[2], **options).items()
    alone = lrc.LinearRelationalEmbedding.fit(model, PROMPTS, subject_layer=0, object_layer=2, **options)
    assert pair == (0, 2)
    assert torch.equal(found.weight, alone.weight)
    assert (found.n_products, found.direction_errors) == (alone.n_products, alone.direction_errors)


def test_graphs_are_gone_after_a_fit_without_waiting_for_the_garbage_collector(model, monkeypatch):
    made = []
    init = JacobianProducts.__init__

    def watched(self, *args, **options):
        init(self, *args, **options)
        made.append(weakref.ref(self))

    monkeypatch.setattr(JacobianProducts, "__init__", watched)
    low, layers = {"solver": lrc.LowRank(rank=4), "progress": False}, {"subject_layer": 0, "object_layer": 2}
    gc.collect()
    gc.disable()
    try:
        lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **layers, **low)
        lrc.fit_layer_grid(model, PROMPTS, subject_layers=[0, 1], object_layers=[1, 2], **low)
        lrc.fit_layer_grid(model, PROMPTS, subject_layers=[0], object_layers=[1, 2], progress=False)
        alive = [reference for reference in made if reference() is not None]
    finally:
        gc.enable()
    assert len(made) >= 3 * len(PROMPTS)
    assert not alive
