"""Fitting of LREs: one pair of layers, or a grid of pairs that share their passes."""

from collections.abc import Sequence

from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.lre.fit_settings import FitMethod, LowRankSettings, low_rank_settings
from lrc_tl.lre.jacobian import jacobian_grid, layer_pairs
from lrc_tl.lre.low_rank_fit import LowRankFit, exact_is_cheaper, fit_grid, fit_pair
from lrc_tl.markup.caller_warnings import warn_caller
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.fingerprint import ModelFingerprint, fingerprints_once
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import ObjectAggregation, Prompt, TokenizedPrompt, prompts_hash, tokenize_prompt

_Lres = dict[tuple[int, int], LinearRelationalEmbedding]


@numbers_checked
@fingerprints_once()
def fit_layer_grid(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    object_aggregation: ObjectAggregation = "mean",
    method: FitMethod = "exact",
    rank: int | None = None,
    oversample: int | None = None,
    seed: int = 0,
    memory_limit: int | None = None,
    progress: bool = True,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    """{(subject layer, object layer): LRE} for every pair whose object layer is at the subject layer or above it.

    Layers in the keys count from the start. Each prompt takes one forward pass, and one reverse pass for each
    object layer, whatever the number of subject layers; each LRE equals `LinearRelationalEmbedding.fit` on its
    pair. Held in memory: a weight for each pair, and one prompt's Jacobians to one object layer.

    With `method="low_rank"`, one pass with a few rows for each subject layer and one with `rank + oversample` rows
    for each object layer; `oversample` is twice the rank by default. There is no estimate of its error. A single
    pair is fitted by `LinearRelationalEmbedding.fit` with its defaults, which takes fewer products. Where the
    exact grid takes no more products, it is computed. Options are those of `LinearRelationalEmbedding.fit`. One
    warning names the pairs whose weight is zero, as it mostly is at equal layers.

    Raises:
        ValueError: no prompts, a layer outside the model, no pair of layers at all, a low-rank option that is
            missing, out of range or given for an exact fit, or what `subject_object_jacobians` refuses.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    pairs = layer_pairs(model, subject_layers, object_layers)
    if method == "low_rank" and len(pairs) == 1:
        lre = LinearRelationalEmbedding.fit(
            model,
            prompts,
            subject_layer=pairs[0][0],
            object_layer=pairs[0][1],
            object_aggregation=object_aggregation,
            method=method,
            rank=rank,
            oversample=oversample,
            seed=seed,
            memory_limit=memory_limit,
            progress=progress,
        )
        return {pairs[0]: lre}
    settings = low_rank_settings(
        model, method, {"rank": rank, "oversample": oversample}, seed=seed, oversample_by_rank=2
    )
    if settings is not None and not exact_is_cheaper(model, pairs, settings, grid=True):
        found = fit_grid(
            model,
            _tokenized(model, prompts),
            pairs,
            settings,
            object_aggregation=object_aggregation,
            memory_limit=memory_limit,
            progress=progress,
        )
        return _said_where_zero(
            {
                pair: _from_low_rank(model, prompts, pair, one, settings, object_aggregation)
                for pair, one in found.items()
            }
        )
    return _fit_pairs(
        model,
        prompts,
        pairs,
        object_aggregation=object_aggregation,
        memory_limit=memory_limit,
        progress=progress,
    )


def fit_one_pair(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pair: tuple[int, int],
    settings: LowRankSettings | None,
    *,
    object_aggregation: ObjectAggregation,
    memory_limit: int | None,
    progress: bool,
) -> LinearRelationalEmbedding:
    """The LRE of one pair of layers: exact without settings, or where they take no fewer products.

    Raises:
        ValueError: no prompts, or what `subject_object_jacobians` refuses.
    """
    if settings is not None and not exact_is_cheaper(model, [pair], settings, grid=False):
        found = fit_pair(
            model,
            _tokenized(model, prompts),
            pair,
            settings,
            object_aggregation=object_aggregation,
            memory_limit=memory_limit,
            progress=progress,
        )
        return _said_where_zero({pair: _from_low_rank(model, prompts, pair, found, settings, object_aggregation)})[
            pair
        ]
    return _fit_pairs(
        model,
        prompts,
        [pair],
        object_aggregation=object_aggregation,
        memory_limit=memory_limit,
        progress=progress,
    )[pair]


def _fit_pairs(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pairs: Sequence[tuple[int, int]],
    *,
    object_aggregation: ObjectAggregation,
    memory_limit: int | None,
    progress: bool,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    tokenized = _tokenized(model, prompts)
    fingerprint = ModelFingerprint.of(model)
    weights: dict[tuple[int, int], Tensor] = {}
    biases: dict[tuple[int, int], Tensor] = {}
    with ProgressBar("LRE", total=len(tokenized), progress=progress) as bar:
        for tokens in bar.over(tokenized):
            for pair, one in jacobian_grid(
                model, tokens, pairs, object_aggregation=object_aggregation, memory_limit=memory_limit
            ):
                bias = one.object - one.jacobian @ one.subject
                if pair in weights:
                    weights[pair] += one.jacobian
                    biases[pair] += bias
                else:
                    weights[pair], biases[pair] = one.jacobian, bias
    lres = {
        pair: LinearRelationalEmbedding(
            weight=weights[pair].div_(len(tokenized)),
            bias=biases[pair].div_(len(tokenized)),
            subject_layer=pair[0],
            object_layer=pair[1],
            object_aggregation=object_aggregation,
            n_prompts=len(tokenized),
            prompts_hash=prompts_hash(prompts),
            relation=_relation(prompts),
            fingerprint=fingerprint,
            n_products=int(model.cfg.d_model),
        )
        for pair in pairs
    }
    return _said_where_zero(lres)


def _said_where_zero(lres: _Lres) -> _Lres:
    """The same LREs, after a warning that names those with a weight of zeros, which no direction comes from."""
    if zero := [pair for pair, lre in lres.items() if not bool(lre.weight.any())]:
        warn_caller(
            f"the weight from subject layer to object layer is zero for {', '.join(map(str, zero))}: attention "
            "moves what the subject holds to the object's position in a later layer only; give an object layer "
            "above the subject layer"
        )
    return lres


def _tokenized(model: HookedModel, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
    if not prompts:
        raise ValueError("no prompts to fit on; give at least one prompt that the model answers correctly")
    return [tokenize_prompt(model, prompt) for prompt in prompts]


def _relation(prompts: Sequence[Prompt]) -> str:
    return " + ".join(dict.fromkeys(prompt.relation for prompt in prompts if prompt.relation))


def _from_low_rank(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pair: tuple[int, int],
    found: LowRankFit,
    settings: LowRankSettings,
    object_aggregation: ObjectAggregation,
) -> LinearRelationalEmbedding:
    whole = found.factors is None
    lre = LinearRelationalEmbedding(
        weight=found.weight,
        bias=found.bias,
        subject_layer=pair[0],
        object_layer=pair[1],
        object_aggregation=object_aggregation,
        n_prompts=len(prompts),
        prompts_hash=prompts_hash(prompts),
        relation=_relation(prompts),
        fingerprint=ModelFingerprint.of(model),
        method="exact" if whole else "low_rank",
        rank_limit=None if whole else settings.rank,
        n_products=found.n_products,
        direction_errors=found.errors,
    )
    if found.factors is not None:
        lre.__dict__["svd"] = found.factors  # what `svd` would compute again from the whole weight
    return lre
