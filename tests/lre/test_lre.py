"""Linear relational embeddings: laws of the fit, the layer grid and the inverse, on tiny models."""

import warnings

import numpy as np
import pytest
import torch

import lrc_tl as lrc

PROMPTS = tuple(
    lrc.Prompt(text=f"{subject} is", subject=subject, object=object_, relation="kind of thing")
    for subject, object_ in [("cat", "pet"), ("dog", "pet"), ("oak", "tree"), ("elm", "tree")]
)


@pytest.fixture
def model(monkeypatch):
    """A tiny model in float64 whose prompts have made-up tokens: the embedding does not look at text."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        n_layers=3, d_model=12, n_ctx=32, d_head=6, n_heads=2, d_mlp=20, d_vocab=50, act_fn="gelu", seed=0,
        positional_embedding_type="rotary", rotary_dim=6, normalization_type="RMS",
    )  # fmt: skip
    bridge = TransformerBridge.boot_native(config, dtype=torch.float64, device="cpu")

    def tokenize(model, prompt):
        row = PROMPTS.index(prompt)
        ids = torch.randint(0, 50, (9,), generator=torch.Generator().manual_seed(row)).tolist()
        return lrc.relations.TokenizedPrompt(
            prompt=prompt,
            text_ids=tuple(ids[:6]),
            object_ids=tuple(ids[6 : 7 + row % 3]),
            subject_position=row % 4,
        )

    for module in ("lre.layer_grid", "passes.residuals"):
        monkeypatch.setattr(f"lrc_tl.{module}.tokenize_prompt", tokenize)
    return bridge.eval().requires_grad_(False)


def fit(model, prompts=PROMPTS, **options):
    return lrc.LinearRelationalEmbedding.fit(
        model, prompts, **{"subject_layer": 0, "object_layer": 2, "progress": False, **options}
    )


@pytest.mark.parametrize("aggregation", ["mean", "first_token"])
def test_an_lre_of_one_prompt_reproduces_its_own_object(model, aggregation):
    for prompt in PROMPTS:
        lre = fit(model, [prompt], object_aggregation=aggregation)
        subject = lrc.subject_activations(model, [prompt], layer=0)
        expected = lrc.passes.object_activations(model, [prompt], layer=2, object_aggregation=aggregation)
        torch.testing.assert_close(lre.predict(subject), expected, rtol=1e-5, atol=1e-6)


def test_weight_and_bias_are_the_means_over_the_prompts(model):
    together, alone = fit(model), [fit(model, [prompt]) for prompt in PROMPTS]
    torch.testing.assert_close(together.weight, torch.stack([one.weight for one in alone]).mean(0))
    torch.testing.assert_close(together.bias, torch.stack([one.bias for one in alone]).mean(0))
    assert together.n_prompts == 4
    assert together.relation == "kind of thing"
    assert (together.subject_hook, together.object_hook) == (
        "blocks.0.hook_resid_post",
        "blocks.2.hook_resid_post",
    )


def test_a_layer_grid_holds_the_fit_of_every_pair(model):
    grid = lrc.fit_layer_grid(model, PROMPTS, subject_layers=range(3), object_layers=[1, -1], progress=False)
    assert set(grid) == {(0, 1), (1, 1), (0, 2), (1, 2), (2, 2)}
    for (subject_layer, object_layer), got in grid.items():
        alone = fit(model, subject_layer=subject_layer, object_layer=object_layer)
        assert (got.subject_layer, got.object_layer) == (subject_layer, object_layer)
        torch.testing.assert_close(got.weight, alone.weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.bias, alone.bias, rtol=1e-5, atol=1e-6)


def test_each_object_layer_of_a_grid_may_read_the_object_in_its_own_way(model):
    ways = {1: "mean", -1: "first_token"}
    grid = lrc.fit_layer_grid(
        model, PROMPTS, subject_layers=[0], object_layers=[1, 2], object_aggregation=ways, progress=False
    )
    assert [lre.object_aggregation for lre in grid.values()] == ["mean", "first_token"]
    for (_, object_layer), got in grid.items():
        alone = fit(model, object_layer=object_layer, object_aggregation=got.object_aggregation)
        torch.testing.assert_close(got.weight, alone.weight, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(got.bias, alone.bias, rtol=1e-5, atol=1e-6)
        low = lrc.fit_layer_grid(
            model, PROMPTS, subject_layers=[0], object_layers=[object_layer], object_aggregation=ways,
            solver=lrc.LowRank(rank=2), progress=False,
        )  # fmt: skip
        assert low[0, object_layer].object_aggregation == got.object_aggregation
    with pytest.raises(ValueError, match=r"no entry for the object layers \[1\]; give one for each"):
        lrc.fit_layer_grid(
            model,
            PROMPTS,
            subject_layers=[0],
            object_layers=[1, 2],
            object_aggregation={2: "mean"},
            progress=False,
        )
    with pytest.raises(ValueError, match="object_aggregation is 'last'; allowed are 'mean' or 'first_token'"):
        fit(model, object_aggregation="last")


def test_a_full_rank_inverse_leads_back_to_the_subject(model):
    lre = fit(model)
    subjects = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(lre.invert(lre.predict(subjects), rank=12), subjects)


def test_a_concept_is_the_unit_mean_of_the_inverted_objects(model):
    lre = fit(model)
    concepts = lre.concepts(model, PROMPTS, rank=5)
    assert list(concepts) == ["pet", "tree"]
    objects = lrc.passes.object_activations(model, PROMPTS, layer=2)
    u, s, vh = torch.linalg.svd(lre.weight)
    inverted = (objects - lre.bias) @ u[:, :5] @ torch.diag(1 / s[:5]) @ vh[:5]
    expected = inverted[2:].mean(0) / inverted[2:].mean(0).norm()
    torch.testing.assert_close(concepts["tree"].vector.to(expected), expected)


def test_a_ridge_needs_no_rank_and_is_kept_with_the_concepts(model):
    lre = fit(model)
    objects = lrc.passes.object_activations(model, PROMPTS, layer=2)
    found = lre.invert(objects, ridge=0.2)
    length = 0.2 * lre.singular_values[0]
    normal = lre.weight.T @ lre.weight + length**2 * torch.eye(12, dtype=lre.weight.dtype)
    expected = torch.linalg.solve(normal, lre.weight.T @ (objects.to(lre.weight) - lre.bias).T).T
    torch.testing.assert_close(found.to(expected), expected)
    concepts = lre.concepts(model, PROMPTS, ridge=0.2)
    mean = expected[2:].mean(0)
    torch.testing.assert_close(concepts["tree"].vector.to(mean), mean / mean.norm())
    assert (concepts.settings["rank"], concepts.settings["ridge"]) == (None, 0.2)
    assert concepts["tree"].method == "lrc-ridge"
    both = lre.concepts(model, PROMPTS, rank=5, ridge=0.2)
    assert float(both["tree"].vector @ concepts["tree"].vector) < 0.9999
    with pytest.raises(ValueError, match=r"neither rank nor ridge was given; give rank=64, ridge=0\.2"):
        lre.concepts(model, PROMPTS)


def test_a_rank_above_the_numerical_rank_is_refused_with_the_rank(model):
    with pytest.raises(ValueError, match="rank 13 is not allowed; the numerical rank of this weight is 12"):
        fit(model).concepts(model, PROMPTS, rank=13)


def test_no_prompts_is_an_error(model):
    with pytest.raises(ValueError, match="no prompts to fit on; give at least one"):
        fit(model, [])
    with pytest.raises(ValueError, match="no prompts to make concepts from"):
        fit(model).concepts(model, [], rank=2)


def test_an_lre_comes_back_from_its_file_bit_for_bit(model, tmp_path):
    lre = fit(model)
    path = tmp_path / "kinds.safetensors"
    lre.save(path)
    again = lrc.LinearRelationalEmbedding.load(path, model=model)
    assert torch.equal(again.weight, lre.weight)
    assert torch.equal(again.bias, lre.bias)
    for name in ("subject_layer", "object_layer", "object_aggregation", "n_prompts", "prompts_hash", "relation"):
        assert getattr(again, name) == getattr(lre, name)
    assert again.fingerprint == lre.fingerprint


def test_a_file_that_is_no_lre_or_of_another_model_is_refused(model, tmp_path):
    lre = fit(model)
    concepts = lre.concepts(model, PROMPTS, rank=2)
    path = tmp_path / "file.safetensors"
    concepts.save(path)
    with pytest.raises(lrc.errors.ArtifactError, match="lre"):
        lrc.LinearRelationalEmbedding.load(path)
    lre.save(path)
    with torch.no_grad():
        next(iter(model.parameters())).mul_(1.5)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="this LRE was made on another model"):
        lrc.LinearRelationalEmbedding.load(path, model=model)
    with pytest.raises(lrc.errors.FingerprintMismatch, match="this LRE was made on another model"):
        lre.concepts(model, PROMPTS, rank=2)


def test_whole_numbers_and_those_of_numpy_serve_as_rank_and_ridge_and_can_be_saved(model, tmp_path):
    lre = fit(model)
    expected = lre.concepts(model, PROMPTS, rank=4, ridge=1.0)
    for rank, ridge in [(4, 1), (np.int64(4), np.int32(1)), (np.uint8(4), np.float32(1))]:
        made = lre.concepts(model, PROMPTS, rank=rank, ridge=ridge)
        torch.testing.assert_close(made.vectors, expected.vectors, rtol=0, atol=0)
        made.save(tmp_path / "concepts.safetensors")
        settings = lrc.ConceptSet.load(tmp_path / "concepts.safetensors").settings
        assert (settings["rank"], settings["ridge"]) == (4, 1)
    with pytest.raises(TypeError, match="rank is True, but a boolean is no number") as caught:
        lre.concepts(model, PROMPTS, rank=True)
    assert str(caught.value).count("\n") < 5


def test_the_inverse_takes_rows_as_wide_as_the_objects_and_nothing_else(model):
    lre = fit(model)
    for acts in (torch.tensor(1.0), torch.ones(1), torch.ones(5, 1), torch.ones(12, 5), torch.ones(0, 13)):
        for call in (lambda a: lre.invert(a, rank=2), lambda a: lre.invert(a, ridge=0.1), lre.predict):
            with pytest.raises(ValueError, match=r"rows of shape .* must hold one vector of width 12 each"):
                call(acts.to(lre.weight))
    with pytest.raises(
        ValueError, match=r"rows of shape \(4, 1\) were given; they must hold one vector of width 12"
    ):
        lre.concepts_from_activations(torch.ones(4, 1).to(lre.weight), ["a", "b", "a", "b"], rank=2)


def test_a_weight_of_zeros_is_not_given_without_a_word(model):
    apart = [PROMPTS[0]]  # its object is read behind its subject
    message = r"zero for \(1, 1\).*give an object layer above the subject layer"
    with pytest.warns(UserWarning, match=message):
        lre = fit(model, apart, subject_layer=1, object_layer=1)
    assert not lre.weight.any()
    with pytest.warns(UserWarning, match=r"zero for \(0, 0\), \(2, 2\)") as caught:
        lrc.fit_layer_grid(model, apart, subject_layers=[0, 2], object_layers=[0, 2], progress=False)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, apart, subject_layer=1, object_layer=2)
