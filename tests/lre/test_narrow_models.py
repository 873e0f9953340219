"""Models in bfloat16 and float16: fitted, probed and steered, with solves and sums in float32."""

import copy

import pytest
import tiny_models
import torch
from entry_point_rows import PROMPTS, TEXTS
from tiny_models import D_MODEL

import lrc_tl as lrc
from lrc_tl.errors import ModelError, NotFiniteError
from lrc_tl.lre import jacobian_graph, wide_weights

SETTINGS = lrc.ExperimentSettings(subject_layers=[0], object_layers=[2], ranks=[4])
RELATION = lrc.Relation.from_pairs(
    "said", [(f"w{number}", f"w{number % 2}") for number in range(20)], templates=["{} w30"]
)
PAIR = {"subject_layer": 0, "object_layer": 2}
QUIET = {"progress": False}
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
"""Half the distance of neighbouring numbers around 1."""


def model_in(dtype, class_of_model, folder):
    tokenizer = tiny_models.word_tokenizer(folder / "tokenizer")
    if class_of_model == "bridge":
        model = tiny_models.bridge(tokenizer, folder / "model", dtype=dtype)
    else:
        model = tiny_models.hooked_transformer(tokenizer, dtype=dtype)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module", params=ROUNDING, ids=str)
def narrow_and_wide(request, class_of_model, tmp_path_factory):
    """A 16-bit model, and one in float32 with the same weights."""
    narrow = model_in(request.param, class_of_model, tmp_path_factory.mktemp("narrow"))
    wide = model_in(torch.float32, class_of_model, tmp_path_factory.mktemp("wide"))
    weights = dict(narrow.named_parameters())
    for name, weight in wide.named_parameters():
        weight.data.copy_(weights[name].float())
    assert {weight.dtype for weight in weights.values()} == {request.param}
    return narrow, wide


def relative(got, expected):
    return float((got.double() - expected.double()).norm() / expected.double().norm())


def test_a_fit_is_that_of_the_model_in_float32_but_for_the_rounding_of_its_activations(narrow_and_wide):
    narrow, wide = narrow_and_wide
    rounding = ROUNDING[next(narrow.parameters()).dtype]
    low = lrc.LowRank(rank=3, oversample=1)
    fits = {
        "exact": lambda model: lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **PAIR, **QUIET),
        "grid": lambda model: lrc.fit_layer_grid(
            model, PROMPTS, subject_layers=[0, 1], object_layers=[2], **QUIET
        )[1, 2],
        "low rank": lambda model: lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **PAIR, solver=low, **QUIET),
    }
    for name, fit in fits.items():
        got, expected = fit(narrow), fit(wide)
        assert got.weight.dtype == got.bias.dtype == torch.float32
        assert 0 < relative(got.weight, expected.weight) < 20 * rounding, name
        assert 0 < relative(got.bias, expected.bias) < 20 * rounding, name


def test_the_mean_over_prompts_is_summed_in_float32(narrow_and_wide):
    narrow, _ = narrow_and_wide
    dtype = next(narrow.parameters()).dtype
    alone = []
    for prompt in PROMPTS:
        tokens = lrc.relations.tokenize_prompt(narrow, prompt)
        found = lrc.lre.subject_object_jacobian(narrow, tokens, **PAIR)
        assert {found.jacobian.dtype, found.subject.dtype, found.object.dtype} == {torch.float32}
        # The gradients themselves are those of the model's own dtype.
        assert torch.equal(found.jacobian.to(dtype).float(), found.jacobian)
        alone.append(found.jacobian)
    mean = torch.stack(alone).double().mean(0)
    lre = lrc.LinearRelationalEmbedding.fit(narrow, PROMPTS, **PAIR, **QUIET)
    torch.testing.assert_close(lre.weight.double(), mean, rtol=1e-5, atol=1e-6 * float(mean.abs().max()))
    assert relative(lre.weight.to(dtype), mean) > 10 * relative(lre.weight, mean)


def test_what_is_made_of_a_narrow_model_is_float32_and_works_on_it(narrow_and_wide, tmp_path):
    narrow, _ = narrow_and_wide
    rounding = ROUNDING[next(narrow.parameters()).dtype]
    concepts = lrc.fit_concepts(narrow, PROMPTS, method="lrc", **PAIR, rank=4, **QUIET)
    assert concepts.vectors.dtype == torch.float32
    concepts.save(tmp_path / "c.safetensors")
    loaded = lrc.ConceptSet.load(tmp_path / "c.safetensors", model=narrow)
    assert torch.equal(loaded.vectors, concepts.vectors)
    acts = [lrc.subject_activations(model, PROMPTS, layer=0) for model in narrow_and_wide]
    assert acts[0].dtype == torch.float32
    assert relative(*acts) < 4 * rounding
    background = [prompt.text for prompt in PROMPTS] + [f"w{number} w{number + 1} w5 w6" for number in range(12)]
    statistics = lrc.SubjectStatistics.fit(narrow, layers=[0], background=background, **QUIET)
    assert statistics[0].samples.dtype == torch.float32
    dual = lrc.fit_concepts(
        narrow, PROMPTS, method="lrc-map", **PAIR, settings=lrc.FitSettings(background=statistics, noise=0.1),
        **QUIET,
    )  # fmt: skip
    assert dual.vectors.dtype == torch.float32
    assert dual["w9"].write_vector.isfinite().all()
    results = lrc.evaluate(narrow, concepts, PROMPTS, beta=0.1, edits_per_object=1, **QUIET)
    assert len(results.causality_result.edited) > 0


def test_steering_moves_the_residual_by_the_strength_but_for_rounding(narrow_and_wide):
    narrow, _ = narrow_and_wide
    vector = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(0))
    direction = lrc.ConceptDirection.from_unscaled(
        vector, relation="said", object_name="w9", hook_name="blocks.1.hook_resid_post"
    )
    kept = []

    def keep(residual, hook):
        kept.append(residual.float())

    def run():
        with narrow.hooks(fwd_hooks=[("blocks.1.hook_resid_post", keep)]):
            narrow(TEXTS[0])

    run()
    with direction.steer(narrow, strength=3.0, unit="absolute", bos=True):
        run()
        generated = narrow.generate(TEXTS[0], max_new_tokens=3, do_sample=False, verbose=False)
    assert generated.startswith(TEXTS[0][:5])
    clean, steered = kept[:2]
    moved = steered - clean
    rounding = ROUNDING[next(narrow.parameters()).dtype]
    assert relative(moved, (3.0 * direction.vector).expand_as(moved)) < 4 * rounding * float(steered.abs().max())
    run()
    assert torch.equal(kept[-1], clean)


def test_float16_that_overflows_is_refused_before_anything_is_fitted(class_of_model, tmp_path, capsys):
    model = model_in(torch.float16, class_of_model, tmp_path)
    assert lrc.load_model(model) is model
    names = dict(model.named_parameters())
    embedding = next(weight for name, weight in names.items() if "embed" in name and "unembed" not in name)
    embedding.data.mul_(30000 / float(embedding.abs().max()))
    mlp_out = next(
        weight for name, weight in names.items() if ".1." in name and ("W_out" in name or "down" in name)
    )
    mlp_out.data.fill_(6e4)
    for use in (
        lambda: lrc.load_model(model),
        lambda: lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **PAIR),
        lambda: lrc.fit_layer_grid(
            model, PROMPTS, subject_layers=[0, 1], object_layers=[2], solver=lrc.LowRank(rank=2)
        ),
    ):
        with pytest.raises(NotFiniteError, match=r"overflows float16 at layer 1 .*load the model in bfloat16"):
            use()
    assert "LRE" not in capsys.readouterr().err  # no progress bar was opened


def test_quantised_weights_and_several_devices_are_refused_before_the_model_runs(class_of_model, tmp_path, capsys):
    model = model_in(torch.float32, class_of_model, tmp_path)
    ran = []

    def refused(model, message):
        for fit in (
            lambda: lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **PAIR),
            lambda: lrc.fit_concepts(model, PROMPTS, method="lrc", **PAIR, rank=4),
            lambda: lrc.select_settings(model, RELATION),
            lambda: lrc.run_protocol(model, [RELATION], settings=SETTINGS),
        ):
            hooks = [("blocks.0.hook_resid_post", lambda residual, hook: ran.append(1))]
            with model.hooks(fwd_hooks=hooks), pytest.raises(ModelError, match=message) as raised:
                fit()
            assert "\n" not in str(raised.value)

    packed = copy.deepcopy(model)
    part = next(module for name, module in packed.named_modules() if name.endswith("mlp"))
    part.register_parameter("packed", torch.nn.Parameter(torch.zeros(3, dtype=torch.uint8), requires_grad=False))
    refused(packed, r"mlp\.packed is torch\.uint8: fits need the gradients of plain ones, so load the model in bf")
    spread = copy.deepcopy(model)
    part = next(module for name, module in spread.named_modules() if name.endswith("mlp"))
    part.register_parameter("away", torch.nn.Parameter(torch.zeros(3, device="meta"), requires_grad=False))
    refused(
        spread,
        r"the model lies on 2 devices \(.* on cpu, .*mlp\.away on meta\), and fits need one; load it whole on one",
    )
    if class_of_model == "bridge":
        model.original_model.hf_device_map = {"model.layers.0": "cuda:0", "model.layers.1": "cuda:1"}
        refused(model, r"on 2 devices \(model.layers.0 on cuda:0, model.layers.1 on cuda:1\)")
        model.original_model.hf_device_map = {}
        model.original_model.config.quantization_config = {"load_in_4bit": True}
        refused(model, "the model's weights are quantised: fits need")
    assert not ran
    assert "LRE" not in capsys.readouterr().err


def test_rows_at_once_on_a_gpu_are_those_that_fit_into_what_is_free(class_of_model, tmp_path, monkeypatch):
    model = model_in(torch.float32, class_of_model, tmp_path)
    tokens = lrc.relations.tokenize_prompt(model, PROMPTS[0])
    on_cpu = jacobian_graph.rows_at_once(model, tokens, None)
    assert on_cpu == D_MODEL
    monkeypatch.setattr(model.cfg, "device", "cuda")
    rows = []
    for free in (None, 10**9, 20_000, 1):
        monkeypatch.setattr(jacobian_graph, "free_bytes", lambda device, free=free: free)
        rows.append(jacobian_graph.rows_at_once(model, tokens, None))
    assert (rows[0], rows[1], rows[3]) == (D_MODEL, D_MODEL, 1)
    # Memory that is free is a limit like one that is given.
    assert 1 < rows[2] == jacobian_graph.rows_at_once(model, tokens, 20_000) < D_MODEL


FITS = {
    "exact": lambda model, **given: lrc.LinearRelationalEmbedding.fit(model, PROMPTS, **PAIR, **given),
    "grid": lambda model, **given: lrc.fit_layer_grid(
        model, PROMPTS, subject_layers=[0, 1], object_layers=[2], **given
    )[1, 2],
    "low rank": lambda model, **given: lrc.LinearRelationalEmbedding.fit(
        model, PROMPTS, **PAIR, solver=lrc.LowRank(rank=3, oversample=1), **given
    ),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS)
def test_a_fit_in_float32_is_that_of_the_model_in_float32_and_leaves_the_model_as_it_was(narrow_and_wide, fit):
    narrow, wide = narrow_and_wide
    before = {name: (weight.data_ptr(), weight.dtype) for name, weight in narrow.named_parameters()}
    buffers = {name: (buffer.data_ptr(), buffer.dtype) for name, buffer in narrow.named_buffers()}
    dtype = narrow.cfg.dtype
    got = fit(narrow, fit_dtype="float32", **QUIET)
    expected = fit(wide, **QUIET)
    rounding = ROUNDING[next(narrow.parameters()).dtype]
    # What is left comes from rotations, which a 16-bit model holds rounded.
    assert relative(got.weight, expected.weight) < 2 * rounding
    assert relative(got.weight, expected.weight) < relative(fit(narrow, **QUIET).weight, expected.weight) / 2
    assert relative(got.bias, expected.bias) < rounding
    assert {name: (weight.data_ptr(), weight.dtype) for name, weight in narrow.named_parameters()} == before
    assert {name: (buffer.data_ptr(), buffer.dtype) for name, buffer in narrow.named_buffers()} == buffers
    assert narrow.cfg.dtype == dtype
    assert got.fingerprint.dtype == str(dtype).removeprefix("torch.")


def test_a_fit_in_float32_that_fails_or_is_interrupted_leaves_the_model_as_it_was(narrow_and_wide, monkeypatch):
    narrow, _ = narrow_and_wide
    before = {name: (weight.data_ptr(), weight.dtype) for name, weight in narrow.named_parameters()}
    seen = []

    def stop(*args, **given):
        seen.append({weight.dtype for name, weight in narrow.named_parameters() if ".2." in name})
        raise KeyboardInterrupt

    monkeypatch.setattr("lrc_tl.lre.layer_grid.jacobian_grid", stop)
    with pytest.raises(KeyboardInterrupt):
        lrc.LinearRelationalEmbedding.fit(narrow, PROMPTS, **PAIR, **QUIET, fit_dtype="float32")
    assert seen == [{torch.float32}]
    assert {name: (weight.data_ptr(), weight.dtype) for name, weight in narrow.named_parameters()} == before


def test_layers_above_the_fit_stay_narrow_and_what_it_takes_is_known(narrow_and_wide):
    narrow, wide = narrow_and_wide
    dtypes = wide_weights.run_in(
        "float32", narrow, lambda: {name: each.dtype for name, each in narrow.named_parameters()}, highest=1
    )
    assert {dtype for name, dtype in dtypes.items() if ".2." in name} == {next(narrow.parameters()).dtype}
    assert {dtype for name, dtype in dtypes.items() if ".1." in name} == {torch.float32}
    n_wide = sum(
        weight.numel() for name, weight in narrow.named_parameters() if dtypes[name] == torch.float32
    ) + sum(
        buffer.numel()
        for name, buffer in narrow.named_buffers()
        if buffer.dtype.itemsize == 2
        and buffer.is_floating_point()
        and ".2." not in name
        and "unembed" not in name
    )
    assert wide_weights.widened_bytes(narrow, highest=1) == 4 * n_wide
    assert wide_weights.widened_bytes(wide, highest=1) == 0


def test_another_fit_dtype_is_refused(narrow_and_wide):
    message = "fit_dtype is 'bfloat16'; allowed are 'model' and 'float32'"
    for use in (
        lambda: lrc.LinearRelationalEmbedding.fit(narrow_and_wide[0], PROMPTS, **PAIR, fit_dtype="bfloat16"),
        lambda: lrc.fit_layer_grid(
            narrow_and_wide[0], PROMPTS, subject_layers=[0], object_layers=[2], fit_dtype="bfloat16"
        ),
        lambda: lrc.FitSettings(fit_dtype="bfloat16"),
    ):
        with pytest.raises(ValueError, match=message):
            use()


def test_methods_are_fitted_in_float32_where_their_settings_say_so(narrow_and_wide):
    narrow, wide = narrow_and_wide
    vectors = [
        lrc.fit_concepts(
            model, PROMPTS, method="lrc", **PAIR, rank=4, settings=lrc.FitSettings(fit_dtype=fit_dtype), **QUIET
        ).vectors
        for model, fit_dtype in ((narrow, "float32"), (narrow, "model"), (wide, "model"))
    ]
    assert relative(vectors[0], vectors[2]) < relative(vectors[1], vectors[2])
