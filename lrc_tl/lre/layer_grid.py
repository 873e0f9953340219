"""Fitting of LREs: one pair of layers, or a grid of pairs that share their passes."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.fit_settings import LowRank, Sketch, Solver, sketch_for
from lrc_tl.lre.jacobian import jacobian_grid, layer_pairs
from lrc_tl.lre.low_rank_fit import MeanJacobianFit, exact_is_cheaper, fit_grid, fit_pair
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.markup.progress import ProgressBar, shows_progress
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.weights import require_differentiable, require_no_overflow
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, TokenizedPrompt, prompts_hash, tokenize_prompt

_Lres = dict[tuple[int, int], LinearRelationalEmbedding]


@shows_progress
@numbers_checked
@fingerprints_once()
def fit_layer_grid(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    object_aggregation: ObjectAggregation = "mean",
    solver: Solver = "exact",
    memory_limit: int | None = None,
    progress: bool = True,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    """{(subject layer, object layer): LRE} for every pair whose object layer is at the subject layer or above it.

    Layers in the keys count from the start. Each prompt takes one forward pass, and one reverse pass for each
    object layer, whatever the number of subject layers; each LRE equals `LinearRelationalEmbedding.fit` on its
    pair. Held in memory: a weight for each pair, and one prompt's Jacobians to one object layer.

    With `solver=LowRank(rank=64)`, one pass with a few rows for each subject layer and one with
    `rank + oversample` rows for each object layer. There is no estimate of its error. A single pair is fitted by
    `LinearRelationalEmbedding.fit`, which takes fewer products. Where the exact grid takes no more products, it is
    computed. Options are those of `LinearRelationalEmbedding.fit`. One warning names the pairs whose weight is
    zero, as it mostly is at equal layers.

    Raises:
        ValueError: no prompts, a layer outside the model, no pair of layers at all, another solver, a `LowRank`
            without a rank, beyond the width of the model, or with what several pairs do not have (`min_cosine`,
            `power_iterations`), or what `subject_object_jacobians` refuses.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    pairs = layer_pairs(model, subject_layers, object_layers)
    if isinstance(solver, LowRank) and len(pairs) == 1:
        lre = LinearRelationalEmbedding.fit(
            model,
            prompts,
            subject_layer=pairs[0][0],
            object_layer=pairs[0][1],
            object_aggregation=object_aggregation,
            solver=solver,
            memory_limit=memory_limit,
            progress=progress,
        )
        return {pairs[0]: lre}
    sketch = sketch_for(solver, int(model.cfg.d_model), grid=True)
    return _fit_pairs(
        model,
        prompts,
        pairs,
        sketch,
        object_aggregation=object_aggregation,
        memory_limit=memory_limit,
        progress=progress,
    )


@fingerprints_once()
def fit_exact_pairs(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pairs: Sequence[tuple[int, int]],
    *,
    object_aggregation: ObjectAggregation,
    progress: bool,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    """The exact LREs of these pairs alone, with the passes of `fit_layer_grid`; layers count from the start.

    Raises:
        ValueError: no prompts, or what `subject_object_jacobians` refuses.
    """
    return _fit_pairs(
        model,
        prompts,
        pairs,
        None,
        object_aggregation=object_aggregation,
        memory_limit=None,
        progress=progress,
    )


def fit_one_pair(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pair: tuple[int, int],
    sketch: Sketch | None,
    *,
    object_aggregation: ObjectAggregation,
    memory_limit: int | None,
    progress: bool,
) -> LinearRelationalEmbedding:
    """The LRE of one pair of layers: exact without a sketch, or where that takes no fewer products.

    Raises:
        ValueError: no prompts, or what `subject_object_jacobians` refuses.
    """
    return _fit_pairs(
        model,
        prompts,
        [pair],
        sketch,
        object_aggregation=object_aggregation,
        memory_limit=memory_limit,
        progress=progress,
    )[pair]


def _fit_pairs(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pairs: Sequence[tuple[int, int]],
    sketch: Sketch | None,
    *,
    object_aggregation: ObjectAggregation,
    memory_limit: int | None,
    progress: bool,
) -> _Lres:
    """The LREs of one or several pairs, by a sketch where there is one that takes fewer products."""
    require_differentiable(model)
    tokenized = _tokenized(model, prompts)
    require_no_overflow(model)
    if sketch is None or exact_is_cheaper(model, pairs, sketch, grid=len(pairs) > 1):
        rank = int(model.cfg.d_model)
        fits = _exact_fits(model, tokenized, pairs, object_aggregation, memory_limit, progress)
    elif len(pairs) > 1:
        rank = sketch.rank
        fits = fit_grid(
            model,
            tokenized,
            pairs,
            sketch,
            object_aggregation=object_aggregation,
            memory_limit=memory_limit,
            progress=progress,
        )
    else:
        rank, (pair,) = sketch.rank, pairs
        fit = fit_pair(
            model,
            tokenized,
            pair,
            sketch,
            object_aggregation=object_aggregation,
            memory_limit=memory_limit,
            progress=progress,
        )
        fits = {pair: fit}
    fingerprint = ModelFingerprint.of(model)  # runs the model, which what is refused must not do
    return _embeddings(prompts, fits, rank=rank, object_aggregation=object_aggregation, fingerprint=fingerprint)


def _exact_fits(
    model: HookedModel,
    tokenized: Sequence[TokenizedPrompt],
    pairs: Sequence[tuple[int, int]],
    object_aggregation: ObjectAggregation,
    memory_limit: int | None,
    progress: bool,
) -> dict[tuple[int, int], MeanJacobianFit]:
    weights: dict[tuple[int, int], Tensor] = {}
    biases: dict[tuple[int, int], Tensor] = {}
    with ProgressBar("LRE", total=len(tokenized), progress=progress) as bar:
        for tokens in bar.over(tokenized):
            for pair, local in jacobian_grid(
                model, tokens, pairs, object_aggregation=object_aggregation, memory_limit=memory_limit
            ):
                bias = local.object - local.jacobian @ local.subject
                if pair in weights:
                    weights[pair] += local.jacobian
                    biases[pair] += bias
                else:
                    weights[pair], biases[pair] = local.jacobian, bias
    d_model = int(model.cfg.d_model)
    return {
        pair: MeanJacobianFit(
            weight=weights[pair].div_(len(tokenized)),
            bias=biases[pair].div_(len(tokenized)),
            factors=None,
            n_products=d_model,
            errors=None,
        )
        for pair in pairs
    }


def _tokenized(model: HookedModel, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
    if not prompts:
        raise ValueError("no prompts to fit on; give at least one prompt that the model answers correctly")
    return [tokenize_prompt(model, prompt) for prompt in prompts]


def _embeddings(
    prompts: Sequence[Prompt],
    fits: Mapping[tuple[int, int], MeanJacobianFit],
    *,
    rank: int,
    object_aggregation: ObjectAggregation,
    fingerprint: ModelFingerprint,
) -> _Lres:
    """The LREs of fits; `rank` is what low-rank ones were made for.

    A warning names those with a weight of zeros, which no direction comes from.
    """
    lres = {
        pair: LinearRelationalEmbedding(
            weight=fit.weight,
            bias=fit.bias,
            subject_layer=pair[0],
            object_layer=pair[1],
            object_aggregation=object_aggregation,
            n_prompts=len(prompts),
            prompts_hash=prompts_hash(prompts),
            relation=" + ".join(dict.fromkeys(prompt.relation for prompt in prompts if prompt.relation)),
            fingerprint=fingerprint,
            solver="exact" if fit.factors is None else "low_rank",
            rank_limit=None if fit.factors is None else rank,
            n_products=fit.n_products,
            direction_errors=fit.errors,
        )
        for pair, fit in fits.items()
    }
    for pair, fit in fits.items():
        if fit.factors is not None:
            lres[pair].__dict__["svd"] = fit.factors  # what `svd` would compute again from the whole weight
    if zero := [pair for pair, lre in lres.items() if not bool(lre.weight.any())]:
        warn_caller(
            f"the weight from subject layer to object layer is zero for {', '.join(map(str, zero))}: attention "
            "moves what the subject holds to the object's position in a later layer only; give an object layer "
            "above the subject layer"
        )
    return lres
