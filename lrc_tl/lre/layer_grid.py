"""Fitting of LREs: one pair of layers, or a grid of pairs that share their passes."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import NotFiniteError
from lrc_tl.lre.costs import cost_on, require_memory
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.fit_settings import FitDtype, LowRank, Sketch, Solver, require_fit_dtype, sketch_for
from lrc_tl.lre.jacobian import jacobian_grid, layer_pairs
from lrc_tl.lre.jacobian_graph import row_pieces
from lrc_tl.lre.left_out import LeftOut
from lrc_tl.lre.low_rank_fit import MeanJacobianFit, exact_is_cheaper, fit_grid, fit_pair
from lrc_tl.lre.wide_weights import run_in
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.markup.progress import ProgressBar, shows_progress
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel, layer_number
from lrc_tl.models.weights import require_differentiable, require_no_overflow
from lrc_tl.numerics.out_of_memory import PieceSize
from lrc_tl.relations.object_aggregation import Aggregations, aggregations
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, TokenizedPrompt, prompts_hash, tokenize_prompt

_Lres = dict[tuple[int, int], LinearRelationalEmbedding]
_Sums = dict[tuple[int, int], Tensor]


class _Options(TypedDict):
    """What fits of every kind take."""

    object_aggregation: Aggregations
    memory_limit: int | None
    progress: bool
    left_out: LeftOut


@shows_progress
@numbers_checked
@fingerprints_once()
def fit_layer_grid(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    object_aggregation: Aggregations = "mean",
    solver: Solver = "exact",
    fit_dtype: FitDtype = "model",
    memory_limit: int | None = None,
    progress: bool = True,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    """{(subject layer, object layer): LRE} for every pair whose object layer is at the subject layer or above it.

    Layers in the keys count from the start. Each prompt takes one forward pass, and one reverse pass for each
    object layer, whatever the number of subject layers; or, where that is less, one pass forward for each subject
    layer, whatever the number of object layers. Each LRE equals `LinearRelationalEmbedding.fit` on its pair. Held
    in memory: a weight for each pair, and the Jacobians of one prompt and one such pass.

    `object_aggregation` may differ by object layer: `{13: "mean", 17: "first_token"}`.

    With `solver=LowRank(rank=64)`, one pass with a few rows for each subject layer and one with
    `rank + oversample` rows for each object layer. There is no estimate of its error. A single pair is fitted by
    `LinearRelationalEmbedding.fit`, which takes fewer products. Where the exact grid takes no more products, it is
    computed. `fit_dtype` and the other options are those of `LinearRelationalEmbedding.fit`. A prompt that is not
    finite at one of the layers is left out of all pairs, with a warning. One warning names the pairs whose weight
    is zero, as it mostly is at equal layers.

    Raises:
        ValueError: no prompts, a layer outside the model, no pair of layers at all, another solver, a `LowRank`
            without a rank, beyond the width of the model, or with what several pairs do not have (`min_cosine`,
            `power_iterations`), or what `subject_object_jacobians` refuses.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    require_fit_dtype(fit_dtype)
    pairs = layer_pairs(model, subject_layers, object_layers)
    if isinstance(solver, LowRank) and len(pairs) == 1:
        lre = LinearRelationalEmbedding.fit(
            model,
            prompts,
            subject_layer=pairs[0][0],
            object_layer=pairs[0][1],
            object_aggregation=_by_layer(model, pairs, object_aggregation)[pairs[0][1]],
            solver=solver,
            fit_dtype=fit_dtype,
            memory_limit=memory_limit,
            progress=progress,
        )
        return {pairs[0]: lre}
    object_aggregation = _by_layer(model, pairs, object_aggregation)
    sketch = sketch_for(solver, int(model.cfg.d_model), grid=True)
    return _fit_pairs(
        model,
        prompts,
        pairs,
        sketch,
        object_aggregation=object_aggregation,
        fit_dtype=fit_dtype,
        memory_limit=memory_limit,
        progress=progress,
    )


@fingerprints_once()
def fit_exact_pairs(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pairs: Sequence[tuple[int, int]],
    *,
    object_aggregation: Aggregations,
    fit_dtype: FitDtype = "model",
    progress: bool,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    """The exact LREs of these pairs alone, with the passes of `fit_layer_grid`; layers count from the start.

    `object_aggregation` may differ by object layer.

    Raises:
        ValueError: no prompts, or what `subject_object_jacobians` refuses.
    """
    return _fit_pairs(
        model,
        prompts,
        pairs,
        None,
        object_aggregation=object_aggregation,
        fit_dtype=fit_dtype,
        memory_limit=None,
        progress=progress,
    )


def _by_layer(
    model: HookedModel, pairs: Sequence[tuple[int, int]], given: Aggregations
) -> dict[int, ObjectAggregation]:
    """How the object is read at each object layer, counted from the start as in `pairs`."""
    if isinstance(given, Mapping):
        given = {layer_number(model, layer): aggregation for layer, aggregation in given.items()}
    return aggregations({object_ for _, object_ in pairs}, given)


def fit_one_pair(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pair: tuple[int, int],
    sketch: Sketch | None,
    *,
    object_aggregation: ObjectAggregation,
    fit_dtype: FitDtype,
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
        fit_dtype=fit_dtype,
        memory_limit=memory_limit,
        progress=progress,
    )[pair]


def _fit_pairs(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pairs: Sequence[tuple[int, int]],
    sketch: Sketch | None,
    *,
    object_aggregation: Aggregations,
    fit_dtype: FitDtype,
    memory_limit: int | None,
    progress: bool,
) -> _Lres:
    """The LREs of one or several pairs, by a sketch where there is one that takes fewer products."""
    require_differentiable(model)
    tokenized, left_out = _tokenized(model, prompts), LeftOut()
    require_no_overflow(model)
    is_sketched = sketch is not None and not exact_is_cheaper(int(model.cfg.d_model), pairs, sketch)
    cost = cost_on(
        model,
        tokenized,
        pairs,
        sketch if is_sketched else None,
        fit_dtype=fit_dtype,
        memory_limit=memory_limit,
    )
    require_memory(model, cost, n_pairs=len(pairs))

    def fits_of_pairs() -> Mapping[tuple[int, int], MeanJacobianFit]:
        given: _Options = {
            "object_aggregation": object_aggregation, "memory_limit": memory_limit, "progress": progress,
            "left_out": left_out,
        }  # fmt: skip
        if sketch is None or not is_sketched:
            return _exact_fits(model, tokenized, pairs, **given)
        if len(pairs) > 1:
            return fit_grid(model, tokenized, pairs, sketch, **given)
        return {pairs[0]: fit_pair(model, tokenized, pairs[0], sketch, **given)}

    fits = run_in(fit_dtype, model, fits_of_pairs, highest=max(object_ for _, object_ in pairs))
    rank = sketch.rank if sketch is not None and is_sketched else int(model.cfg.d_model)
    fingerprint = ModelFingerprint.of(model)  # runs the model, which what is refused must not do
    counted = left_out.rest(prompts, tokenized)
    return _embeddings(counted, fits, rank=rank, object_aggregation=object_aggregation, fingerprint=fingerprint)


def _exact_fits(
    model: HookedModel,
    tokenized: Sequence[TokenizedPrompt],
    pairs: Sequence[tuple[int, int]],
    *,
    object_aggregation: Aggregations,
    memory_limit: int | None,
    progress: bool,
    left_out: LeftOut,
) -> dict[tuple[int, int], MeanJacobianFit]:
    sums, pieces = None, row_pieces()
    while sums is None:
        sums = _summed(model, tokenized, pairs, object_aggregation, memory_limit, progress, left_out, pieces)
    weights, biases = sums
    n_prompts, d_model = sum(tokens not in left_out for tokens in tokenized), int(model.cfg.d_model)
    return {
        pair: MeanJacobianFit(
            weight=weights[pair].div_(n_prompts),
            bias=biases[pair].div_(n_prompts),
            factors=None,
            n_products=d_model,
            errors=None,
        )
        for pair in pairs
    }


def _summed(
    model: HookedModel,
    tokenized: Sequence[TokenizedPrompt],
    pairs: Sequence[tuple[int, int]],
    object_aggregation: Aggregations,
    memory_limit: int | None,
    progress: bool,
    left_out: LeftOut,
    pieces: PieceSize,
) -> tuple[_Sums, _Sums] | None:
    """Sums over the prompts of their Jacobians and biases; what is not finite is added to `left_out`.

    None: a prompt turned out to be so when some of its Jacobians had been counted, and all must be done again.
    """
    weights: dict[tuple[int, int], Tensor] = {}
    biases: dict[tuple[int, int], Tensor] = {}
    with ProgressBar("LRE", total=len(tokenized), progress=progress) as bar:
        for tokens in bar.over(tokenized):
            if tokens in left_out:
                continue
            n_counted = 0
            try:
                for pair, local in jacobian_grid(
                    model,
                    tokens,
                    pairs,
                    object_aggregation=object_aggregation,
                    memory_limit=memory_limit,
                    pieces=pieces,
                ):
                    bias = local.object - local.jacobian @ local.subject
                    if pair in weights:
                        weights[pair] += local.jacobian
                        biases[pair] += bias
                    else:
                        weights[pair], biases[pair] = local.jacobian, bias
                    n_counted += 1
            except NotFiniteError as error:
                left_out.add(tokens, error)
                left_out.require_some_left(tokenized)
                if n_counted:
                    return None
    return weights, biases


def _tokenized(model: HookedModel, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
    if not prompts:
        raise ValueError("no prompts to fit on; give at least one prompt that the model answers correctly")
    return [tokenize_prompt(model, prompt) for prompt in prompts]


def _embeddings(
    prompts: Sequence[Prompt],
    fits: Mapping[tuple[int, int], MeanJacobianFit],
    *,
    rank: int,
    object_aggregation: Aggregations,
    fingerprint: ModelFingerprint,
) -> _Lres:
    """The LREs of fits; `rank` is what low-rank ones were made for.

    A warning names those with a weight of zeros, which no direction comes from.
    """
    aggregation_at = aggregations({object_ for _, object_ in fits}, object_aggregation)
    lres = {
        pair: LinearRelationalEmbedding(
            weight=fit.weight,
            bias=fit.bias,
            subject_layer=pair[0],
            object_layer=pair[1],
            object_aggregation=aggregation_at[pair[1]],
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
