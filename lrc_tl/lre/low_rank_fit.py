"""The mean Jacobian of many prompts at a low rank, from its products with a few vectors."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.errors import NotFiniteError
from lrc_tl.lre.direction_bounds import DirectionBounds
from lrc_tl.lre.fit_settings import Sketch
from lrc_tl.lre.jacobian_graph import Pair, checked_positions, row_pieces, rows_at_once
from lrc_tl.lre.jacobian_products import JacobianProducts
from lrc_tl.lre.left_out import LeftOut
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.low_rank import Factors
from lrc_tl.numerics.precision import HOST, wide_dtype
from lrc_tl.numerics.sketching import BlockKrylov, factors_of
from lrc_tl.passes.prefix_cache import prefix_caches
from lrc_tl.relations.object_aggregation import Aggregations
from lrc_tl.relations.prompts import TokenizedPrompt

_Graph = tuple[TokenizedPrompt, JacobianProducts]

GRAPHS_KEPT, GRID_GRAPHS_KEPT = 32, 2  # those of a grid are large, and are used only twice
_PREFIXES_AT_ONCE = 8
_ADVICE = "load the model in float32 or float64 and check its weights"


@dataclass(frozen=True, kw_only=True, eq=False)
class MeanJacobianFit:
    """A mean Jacobian as far as it was computed, and how good that is."""

    weight: Float[Tensor, "d_object d_subject"]
    bias: Float[Tensor, " d_object"]
    factors: Factors | None
    """None where the whole Jacobian was computed."""
    n_products: int
    """Products with Jacobians for each prompt."""
    errors: Mapping[str, float] | None
    """For each object of the prompts, a bound of the angle to its exact direction, radians."""


class _MeanJacobian:
    """The mean over the prompts of their Jacobians, as products."""

    def __init__(
        self,
        model: HookedModel,
        tokenized: Sequence[TokenizedPrompt],
        pairs: Sequence[Pair],
        *,
        object_aggregation: Aggregations,
        memory_limit: int | None,
        bar: ProgressBar,
        graphs_kept: int,
        left_out: LeftOut,
    ) -> None:
        for tokens in tokenized:  # before the model runs
            checked_positions(model, tokens, {object_ for _, object_ in pairs}, object_aggregation)
            rows_at_once(model, tokens, memory_limit)

        self._model, self._pieces = model, row_pieces()
        self._object_aggregation, self._memory_limit = object_aggregation, memory_limit
        self._left_out = left_out
        self._tokenized = tokenized
        self._kept: list[_Graph] = []
        self._graphs_kept = graphs_kept
        self._bar, self._passes = bar, 0
        self.pairs = tuple(pairs)
        self.biases: dict[Pair, Tensor] = {}
        """`mean_i [o_i - J_i s_i]`, once the first forward products are done."""
        self.targets: dict[Pair, dict[str, Tensor]] = {}
        """Mean of `o_i - bias` for each object name, likewise."""

    # No function that holds this object may be kept in it: its graphs are large, and would then stay until Python
    # looks for objects that hold each other.
    def _new_graphs(self, chunk: Sequence[TokenizedPrompt]) -> Iterator[_Graph]:
        prefixes = [tokens.input_ids[: tokens.subject_position] for tokens in chunk]
        with torch.inference_mode(False):
            caches = prefix_caches(
                self._model, prefixes, stop_at_layer=max(object_ for _, object_ in self.pairs) + 1
            )
        for tokens, cache in zip(chunk, caches, strict=True):
            try:
                graph = JacobianProducts(
                    self._model,
                    tokens,
                    self.pairs,
                    object_aggregation=self._object_aggregation,
                    memory_limit=self._memory_limit,
                    cache=cache,
                    pieces=self._pieces,
                )
            except NotFiniteError as error:
                self._leave_out(tokens, error)
            else:
                yield tokens, graph

    def _leave_out(self, tokens: TokenizedPrompt, error: NotFiniteError) -> None:
        self._left_out.add(tokens, error)
        self._left_out.require_some_left(self._tokenized)

    def _graphs(self, what: str) -> Iterable[_Graph]:
        def all_graphs() -> Iterator[_Graph]:
            yield from self._kept
            for start in range(len(self._kept), len(self._tokenized), _PREFIXES_AT_ONCE):
                for graph in self._new_graphs(self._tokenized[start : start + _PREFIXES_AT_ONCE]):
                    if len(self._kept) < self._graphs_kept:
                        self._kept.append(graph)
                    yield graph

        # How many passes there will be is not known before: each starts the one bar again.
        self._passes += 1
        self._bar.restart(f"LRE, pass {self._passes}: {what} products", total=len(self._tokenized))
        return self._bar.over(all_graphs())

    def forward(self, rows: dict[int, Tensor]) -> dict[Pair, Tensor]:
        """`W v` for the rows of each subject layer, at every pair."""
        totals: dict[Pair, Tensor] = {}
        first = not self.biases
        objects: dict[Pair, list[Tensor]] = defaultdict(list)
        for tokens, graph in self._graphs("forward"):
            products: dict[Pair, Tensor] = {}
            for subject_layer, given in rows.items():
                subject = graph.subject(subject_layer)
                asked = torch.cat([given.to(subject), subject[None]]) if first else given.to(subject)
                for object_layer, product in graph.forward(subject_layer, asked).items():
                    products[subject_layer, object_layer] = product
            if first and (pair := next((pair for pair in products if not products[pair].isfinite().all()), None)):
                text = f"the Jacobian of {tokens.prompt.text!r} from layer {pair[0]} to {pair[1]} is not finite"
                self._leave_out(tokens, NotFiniteError(f"{text}; {_ADVICE}"))
                continue
            for pair, product in products.items():
                _add(totals, pair, product[: len(rows[pair[0]])])
                if first:
                    objects[pair].append(graph.object(pair[1]))
                    _add(self.biases, pair, objects[pair][-1] - product[-1])
        if first:
            self._tokenized = [tokens for tokens in self._tokenized if tokens not in self._left_out]
            self._kept = [kept for kept in self._kept if kept[0] not in self._left_out]
            for pair, acts in objects.items():
                self.biases[pair] /= len(acts)
                by_name: dict[str, list[Tensor]] = defaultdict(list)
                for tokens, act in zip(self._tokenized, acts, strict=True):
                    by_name[tokens.prompt.object].append(act)
                self.targets[pair] = {
                    name: torch.stack(same).mean(0) - self.biases[pair] for name, same in by_name.items()
                }
        return {pair: total / len(self._tokenized) for pair, total in totals.items()}

    def reverse(self, rows: dict[int, Tensor]) -> dict[Pair, Tensor]:
        """`W^T u` for the rows of each object layer, at every pair."""
        totals: dict[Pair, Tensor] = {}
        for _, graph in self._graphs("reverse"):
            for object_layer, given in rows.items():
                asked = given.to(graph.object(object_layer))
                for subject_layer, product in graph.reverse(object_layer, asked).items():
                    _add(totals, (subject_layer, object_layer), product)
        return {pair: total / len(self._tokenized) for pair, total in totals.items()}


def _add(totals: dict[Pair, Tensor], pair: Pair, value: Tensor) -> None:
    totals[pair] = totals[pair] + value if pair in totals else value


def fit_pair(
    model: HookedModel,
    tokenized: Sequence[TokenizedPrompt],
    pair: Pair,
    sketch: Sketch,
    *,
    object_aggregation: Aggregations,
    memory_limit: int | None,
    progress: bool,
    left_out: LeftOut,
) -> MeanJacobianFit:
    """One pair by block Krylov rounds (`BlockKrylov`), the bias exactly.

    Without `min_cosine` the sketch has `rank + oversample` dimensions, in `power_iterations + 1` rounds. With it,
    rounds of the same width go on until `direction_errors` allows it for every object, or until the rest of the
    whole Jacobian takes no more products than going on; then that is computed, and nothing is approximate.
    """
    with ProgressBar("LRE", progress=progress) as bar:
        mean = _MeanJacobian(
            model,
            tokenized,
            [pair],
            object_aggregation=object_aggregation,
            memory_limit=memory_limit,
            bar=bar,
            graphs_kept=GRAPHS_KEPT,
            left_out=left_out,
        )
        return _pair_from_products(model, mean, pair, sketch)


def _pair_from_products(model: HookedModel, mean: _MeanJacobian, pair: Pair, sketch: Sketch) -> MeanJacobianFit:
    d_model = int(model.cfg.d_model)
    krylov = BlockKrylov(
        lambda rows: mean.forward({pair[0]: rows})[pair],
        lambda rows: mean.reverse({pair[1]: rows})[pair],
        _random(model, sketch.width, sketch.seed),
    )
    while krylov.rank < sketch.least_size:
        krylov.grow()
    whole: Tensor | None = None
    worst: list[float] = []
    while True:
        bounds: Mapping[str, float] = DirectionBounds(
            krylov, mean.targets[pair], rank=sketch.rank, seed=sketch.seed
        )
        if sketch.min_cosine is None:
            break
        worst.append(max(bounds.values()))
        if worst[-1] <= math.acos(sketch.min_cosine):
            break
        further = 2 * sketch.width * _rounds_to_go(worst, math.acos(sketch.min_cosine))
        if further >= d_model - krylov.rank:
            whole, bounds = krylov.complete(), dict.fromkeys(bounds, 0.0)
            break
        krylov.grow()
    return MeanJacobianFit(
        weight=_finite(krylov.weight if whole is None else whole, pair),
        bias=mean.biases[pair],
        factors=krylov.factors if whole is None else None,
        n_products=krylov.n_products + 1,
        errors=bounds,
    )


def fit_grid(
    model: HookedModel,
    tokenized: Sequence[TokenizedPrompt],
    pairs: Sequence[Pair],
    sketch: Sketch,
    *,
    object_aggregation: Aggregations,
    memory_limit: int | None,
    progress: bool,
    left_out: LeftOut,
) -> dict[Pair, MeanJacobianFit]:
    """Every pair from one thin forward-mode pass per subject layer and one thin reverse pass per object layer.

    Random products of all subject layers together show the outputs that matter at an object layer: Jacobians from
    different layers to the same one have nearly the same. The weights on those `rank + oversample` outputs, of all
    subject layers, then come from one reverse pass. `n_products` counts forward and reverse rows of the whole grid
    for each pair, divided by the number of pairs.
    """
    with ProgressBar("LREs", progress=progress) as bar:
        mean = _MeanJacobian(
            model,
            tokenized,
            pairs,
            object_aggregation=object_aggregation,
            memory_limit=memory_limit,
            bar=bar,
            graphs_kept=GRID_GRAPHS_KEPT,
            left_out=left_out,
        )
        return _grid_from_products(model, mean, pairs, sketch)


def _grid_from_products(
    model: HookedModel, mean: _MeanJacobian, pairs: Sequence[Pair], sketch: Sketch
) -> dict[Pair, MeanJacobianFit]:
    width = grid_width(pairs, sketch)
    subject_layers, object_layers = sorted({pair[0] for pair in pairs}), sorted({pair[1] for pair in pairs})
    starts = {
        layer: torch.linalg.qr(_random(model, width, sketch.seed + number)).Q.T
        for number, layer in enumerate(subject_layers)
    }
    seen = mean.forward(starts)
    lefts = {}
    for layer in object_layers:
        together = torch.cat([product.T for (_, object_), product in seen.items() if object_ == layer], 1)
        lefts[layer] = torch.linalg.svd(_finite(together, (-1, layer)), full_matrices=False).U[:, : sketch.size]
    images = mean.reverse({layer: left.T for layer, left in lefts.items()})
    n_products = len(subject_layers) * (width + 1) + sum(left.shape[1] for left in lefts.values())
    return {
        pair: MeanJacobianFit(
            weight=_finite(lefts[pair[1]] @ images[pair], pair),
            bias=mean.biases[pair],
            factors=factors_of(lefts[pair[1]], images[pair].T),
            n_products=math.ceil(n_products / len(pairs)),
            errors=None,
        )
        for pair in pairs
    }


def grid_width(pairs: Sequence[Pair], sketch: Sketch) -> int:
    """Random rows at each subject layer: one and a half times the dimensions, shared by the subject layers."""
    layers_below = Counter(object_ for _, object_ in pairs)
    return min(sketch.size, math.ceil(1.5 * sketch.size / min(layers_below.values())))


def exact_is_cheaper(d_model: int, pairs: Sequence[Pair], sketch: Sketch) -> bool:
    """Whether the whole Jacobians take no more products than the sketch."""
    if len(pairs) == 1:
        return 2 * sketch.least_size >= d_model
    n_subjects, n_objects = len({pair[0] for pair in pairs}), len({pair[1] for pair in pairs})
    return n_subjects * grid_width(pairs, sketch) + n_objects * sketch.size >= n_objects * d_model


def _rounds_to_go(bounds: list[float], limit: float) -> int:
    """Rounds until the bound is below the limit if it goes on falling as in the last round; at least one."""
    if len(bounds) < 2 or bounds[-1] >= bounds[-2]:
        return 1
    return max(1, math.ceil(math.log(bounds[-1] / limit) / math.log(bounds[-2] / bounds[-1])))


def _random(model: HookedModel, width: int, seed: int) -> Tensor:
    """Random columns on the model's device, the same on every device."""
    like = next(iter(model.parameters()))
    generator = torch.Generator(device=HOST).manual_seed(seed)
    columns = torch.randn(int(model.cfg.d_model), width, generator=generator, dtype=torch.float64, device=HOST)
    return columns.to(dtype=wide_dtype(like.dtype), device=like.device)


def _finite(weight: Tensor, pair: Pair) -> Tensor:
    if not torch.isfinite(weight).all():
        start = f"layer {pair[0]}" if pair[0] >= 0 else "some layer"
        raise ValueError(f"the Jacobian from {start} to {pair[1]} is not finite; {_ADVICE}")
    return weight
