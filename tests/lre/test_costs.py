"""What fits take is known before: operations as torch counts them, memory that grows with what is asked for."""

import warnings

import pytest
import tiny_models
import torch
from torch.utils.flop_counter import FlopCounterMode

import lrc_tl as lrc
from lrc_tl.errors import OutOfMemoryError
from lrc_tl.lre import costs
from lrc_tl.lre.costs import decomposition_cost, dual_cost, fit_cost
from lrc_tl.models.sizes import model_sizes

WIDTH = 64
LAYERS = {"subject_layers": [0], "object_layers": [2]}


@pytest.fixture(scope="module", params=["hooked_transformer", "bridge"])
def wide_model(request, tmp_path_factory):
    """A model whose products are most of the work, as they are in real ones."""
    tokenizer = tiny_models.word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    if request.param == "bridge":
        return tiny_models.bridge(
            tokenizer, tmp_path_factory.mktemp("model"), hidden_size=WIDTH, intermediate_size=3 * WIDTH
        )
    cls = tiny_models.require_hooked_transformer()
    from transformer_lens import HookedTransformerConfig

    config = HookedTransformerConfig(
        n_layers=3, d_model=WIDTH, n_ctx=64, d_head=WIDTH // 2, n_heads=2, d_mlp=3 * WIDTH, d_vocab=48, seed=3,
        act_fn="silu", gated_mlp=True, positional_embedding_type="rotary", rotary_dim=WIDTH // 2,
        normalization_type="RMS", device="cpu", initializer_range=0.1,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return cls(config, tokenizer=tokenizer)


@pytest.fixture(scope="module")
def prompts():
    return [
        lrc.Prompt(text=f"w{n} w{n + 1} w7 w8 w9", subject=f"w{n} w{n + 1}", object=f"w{n % 2 + 20}", relation="r")
        for n in range(10, 13)
    ]


def counted(work):
    """Floating-point operations of the products in `work`, by torch's own count."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "options",
    [
        {"subject_layers": [0], "object_layers": [2]},
        {"subject_layers": [1], "object_layers": [2]},
        {"subject_layers": [0], "object_layers": [1, 2]},
        {"subject_layers": [0, 1], "object_layers": [2]},
        {"subject_layers": [0], "object_layers": [2], "solver": lrc.LowRank(rank=6)},
        {"subject_layers": [0, 1], "object_layers": [2], "solver": lrc.LowRank(rank=6)},
    ],
)
def test_the_operations_of_a_fit_are_those_that_torch_counts(wide_model, prompts, options):
    lrc.fit_layer_grid(wide_model, prompts[:1], **options, progress=False)  # what is done once per model
    actual = counted(lambda: lrc.fit_layer_grid(wide_model, prompts, **options, progress=False))
    assert fit_cost(wide_model, prompts, **options).operations == pytest.approx(actual, rel=0.3)


def test_memory_grows_with_pairs_and_rows_and_no_model_runs(wide_model, prompts):
    square = WIDTH**2 * 4
    with FlopCounterMode(display=False) as counter:
        one = fit_cost(wide_model, prompts, **LAYERS)
        two = fit_cost(wide_model, prompts, subject_layers=[0], object_layers=[1, 2])
        both = fit_cost(wide_model, prompts, subject_layers=[0, 1], object_layers=[2])
        single = fit_cost(wide_model, prompts[:1], **LAYERS)
    assert counter.get_total_flops() == 0
    assert two.n_bytes - one.n_bytes > 2 * square  # a weight and a Jacobian more, and a graph for columns forward
    assert two.operations == one.operations  # which pass through the first object layer on the way to the second
    assert both.n_bytes - one.n_bytes == 2 * square  # and a Jacobian more is under way
    assert one.n_bytes - single.n_bytes == square  # the first prompt's Jacobian is the sum
    assert one.operations == pytest.approx(3 * single.operations)
    least = fit_cost(wide_model, prompts, **LAYERS, memory_limit=600_000)
    assert least.n_bytes < one.n_bytes
    assert least.operations <= single.operations * 3
    assert "x 10^12 operations" in str(one)
    assert one.seconds(2.0) == (one.operations + one.reading) / 2


def test_each_pass_reads_the_weights_once(wide_model, prompts):
    sizes = model_sizes(wide_model)
    of_layer = sizes.reading_operations(n_passes=1, n_layers=1)
    assert of_layer == sizes.pass_operations(n_tokens=28, n_layers=1)
    exact = fit_cost(wide_model, prompts, **LAYERS)  # all rows at once, through two layers; the model has three
    assert exact.reading == len(prompts) * (2 + 2 * 3) * of_layer + 3 * of_layer
    low = fit_cost(wide_model, prompts, **LAYERS, solver=lrc.LowRank(rank=6))  # two rounds of eight, each way
    assert low.reading == len(prompts) * (5 * 2 + 2 * 3) * of_layer + 3 * of_layer
    grid = fit_cost(wide_model, prompts, subject_layers=[0, 1], object_layers=[2], solver=lrc.LowRank(rank=6))
    assert grid.reading == len(prompts) * (4 * 2 + 2 * 3) * of_layer + 3 * of_layer


def test_a_fit_in_float32_counts_the_wider_weights(tmp_path):
    model = tiny_models.bridge(tiny_models.word_tokenizer(tmp_path), tmp_path / "m", dtype=torch.bfloat16)
    prompt = [lrc.Prompt(text="w10 w7 w8", subject="w10", object="w20", relation="r")]
    plain = fit_cost(model, prompt, subject_layers=[0], object_layers=[1])
    wide = fit_cost(model, prompt, subject_layers=[0], object_layers=[1], fit_dtype="float32")
    n_weights = sum(weight.numel() for block in model.blocks[:2] for weight in block.parameters())
    assert wide.n_bytes - plain.n_bytes >= 4 * n_weights
    assert wide.operations == plain.operations


@pytest.mark.parametrize("solver", ["exact", lrc.LowRank(rank=4)])
def test_a_fit_that_memory_is_not_enough_for_is_refused_before_the_model_runs(
    wide_model, prompts, monkeypatch, solver
):
    cost = fit_cost(wide_model, prompts, **LAYERS, solver=solver)
    monkeypatch.setattr(costs, "host_free_bytes", lambda: cost.n_bytes - 1)
    message = (
        r"the fit of this pair of layers takes about [\d,]+ MiB beside the model, and [\d,]+ MiB are free; give"
    )
    with FlopCounterMode(display=False) as counter, pytest.raises(OutOfMemoryError, match=message):
        lrc.LinearRelationalEmbedding.fit(
            wide_model, prompts, subject_layer=0, object_layer=2, solver=solver, progress=False
        )
    assert counter.get_total_flops() == 0
    with pytest.raises(OutOfMemoryError, match="the fit of these 2 pairs of layers takes"):
        lrc.fit_layer_grid(wide_model, prompts, subject_layers=[0, 1], object_layers=[2], progress=False)
    for enough in (cost.n_bytes, None):
        monkeypatch.setattr(costs, "host_free_bytes", lambda enough=enough: enough)
        lrc.LinearRelationalEmbedding.fit(
            wide_model, prompts, subject_layer=0, object_layer=2, solver=solver, progress=False
        )


def test_a_cost_of_nothing_is_refused(wide_model):
    with pytest.raises(ValueError, match="no prompts; give at least one"):
        fit_cost(wide_model, [], **LAYERS)


def test_duals_and_decompositions_grow_with_the_cube_of_the_width(wide_model):
    sizes = model_sizes(wide_model)
    assert dual_cost(sizes).operations == 6 * WIDTH**3
    assert decomposition_cost(sizes).operations == 60 * WIDTH**3
    assert dual_cost(sizes).n_bytes == 5 * 8 * WIDTH**2
