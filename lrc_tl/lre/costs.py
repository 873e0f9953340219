"""What a fit of LREs takes: floating-point operations and memory, known before anything runs."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import OutOfMemoryError
from lrc_tl.lre.fit_settings import FitDtype, LowRank, Sketch, Solver, require_fit_dtype, sketch_for
from lrc_tl.lre.jacobian import layer_pairs
from lrc_tl.lre.jacobian_graph import (
    free_bytes,
    goes_forward,
    mlp_jacobian_bytes,
    n_exact_passes,
    rows_at_once,
)
from lrc_tl.lre.low_rank_fit import (
    GRAPHS_KEPT,
    GRID_GRAPHS_KEPT,
    exact_is_cheaper,
    grid_width,
)
from lrc_tl.lre.wide_weights import widened_bytes
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.sizes import ModelSizes, model_sizes
from lrc_tl.numerics.free_memory import host_free_bytes
from lrc_tl.numerics.precision import HOST
from lrc_tl.relations.prompts import Prompt, TokenizedPrompt, tokenize_prompt

_WIDE = torch.float32.itemsize
_SMALL = 2**26
"""Bytes for what is not counted one by one: tokens, positions, Python's own, and what the allocator holds back
(`benchmarks/results/robustness.md`)."""


@dataclass(frozen=True, kw_only=True)
class FitCost:
    """What a fit takes, beside the model."""

    operations: int
    """In matrix products; a multiplication and an addition are two."""
    reading: int = 0
    """What reading the weights takes in each pass, as the operations that take as long."""
    n_bytes: int
    """At the peak: the LREs, the Jacobians or the sketch under way, and what is kept of the passes."""

    @numbers_checked
    def seconds(self, rate: float) -> float:
        """At so many operations a second, as `lrc.numerics.product_rate` measures them."""
        return (self.operations + self.reading) / rate

    def __str__(self) -> str:
        return f"{self.operations / 1e12:,.2f} x 10^12 operations, {in_mebibytes(self.n_bytes)} beside the model"


@dataclass(frozen=True, kw_only=True)
class TextLength:
    """Of a prompt with its object."""

    n_tokens: int
    n_after: int
    """From the last subject token on, which itself counts."""
    n_objects: int = 1
    """Tokens of the object."""

    @classmethod
    def of(cls, tokens: TokenizedPrompt) -> "TextLength":
        """Of a prompt that tokens were made of."""
        n_tokens = len(tokens.input_ids)
        n_after = n_tokens - tokens.subject_position
        return cls(n_tokens=n_tokens, n_after=n_after, n_objects=len(tokens.object_ids))


@numbers_checked
def fit_cost(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    solver: Solver = "exact",
    fit_dtype: FitDtype = "model",
    memory_limit: int | None = None,
) -> FitCost:
    """What `fit_layer_grid` with these options takes, or `LinearRelationalEmbedding.fit` for one layer each.

    No model runs. Fits refuse what does not fit into free memory by the same number. On a GPU it is that with one
    row of a Jacobian at a time; more are computed together where there is room. Of a low-rank fit with a
    `min_cosine` the first rounds are counted; how many follow is not known before.

    Raises:
        ValueError: as `fit_layer_grid`.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    if not prompts:
        raise ValueError("no prompts; give at least one")
    require_fit_dtype(fit_dtype)
    pairs = layer_pairs(model, subject_layers, object_layers)
    sketch = sketch_for(solver, int(model.cfg.d_model), grid=len(pairs) > 1 and isinstance(solver, LowRank))
    if sketch is not None and exact_is_cheaper(int(model.cfg.d_model), pairs, sketch):
        sketch = None
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    return cost_on(model, tokenized, pairs, sketch, fit_dtype=fit_dtype, memory_limit=memory_limit)


def cost_on(
    model: HookedModel,
    tokenized: Sequence[TokenizedPrompt],
    pairs: Sequence[tuple[int, int]],
    sketch: Sketch | None,
    *,
    fit_dtype: FitDtype,
    memory_limit: int | None,
) -> FitCost:
    """The cost of these pairs on a model, by a sketch or exactly."""
    longest = max(tokenized, key=lambda tokens: len(tokens.input_ids) - tokens.subject_position)
    kept = 0 if sketch is not None else mlp_jacobian_bytes(model, longest, pairs, memory_limit)
    n_rows = rows_at_once(model, longest, memory_limit, kept=kept)
    # Without a limit a GPU takes as many rows as fit beside all else, which is one at least.
    fills_memory = memory_limit is None and torch.device(model.cfg.device).type != HOST.type
    cost = pairs_cost(
        model_sizes(model),
        [TextLength.of(tokens) for tokens in tokenized],
        pairs,
        sketch,
        n_rows=n_rows,
        n_rows_held=1 if fills_memory else n_rows,
        with_mlp_jacobians=kept > 0,
    )
    if fit_dtype == "model":
        return cost
    more = widened_bytes(model, highest=max(object_ for _, object_ in pairs))
    return replace(cost, n_bytes=cost.n_bytes + more)


def require_memory(model: HookedModel, cost: FitCost, *, n_pairs: int) -> None:
    """Go on where the fit's memory is free on the model's device, as far as the device says.

    Raises:
        OutOfMemoryError: it is not; the text says how much is missing.
    """
    free = bytes_left(torch.device(model.cfg.device))
    if free is None or cost.n_bytes <= free:
        return
    what = "this pair of layers" if n_pairs == 1 else f"these {n_pairs} pairs of layers"
    raise OutOfMemoryError(
        f"the fit of {what} takes about {in_mebibytes(cost.n_bytes)} beside the model, and "
        f"{in_mebibytes(free)} are free; give fewer pairs or LowRank(rank=...), or a memory_limit for the reverse "
        "pass"
    )


def bytes_left(device: torch.device) -> int | None:
    """What can still be had on a device; None where it does not say."""
    return host_free_bytes() if device.type == HOST.type else free_bytes(device)


def pairs_cost(
    sizes: ModelSizes,
    texts: Sequence[TextLength],
    pairs: Sequence[tuple[int, int]],
    sketch: Sketch | None,
    *,
    n_rows: int,
    n_rows_held: int,
    with_mlp_jacobians: bool,
) -> FitCost:
    """The cost on a model of these sizes, with `n_rows` rows of a Jacobian in one reverse pass.

    Memory is counted with `n_rows_held` rows.
    """
    lowest, highest = min(subject for subject, _ in pairs), max(object_ for _, object_ in pairs)
    longest = max(text.n_after for text in texts)
    square = sizes.d_model**2
    # What autograd keeps of a layer at a position: inputs of products and of whatever is not linear.
    graph = sizes.itemsize * longest * (highest - lowest) * (4 * sizes.d_mlp + 8 * sizes.d_model)
    at_once = _row_bytes(sizes, n_after=longest)
    held = len(pairs) * square * _WIDE
    rows = [_Rows(sizes=sizes, text=text, pairs=pairs, with_mlp_jacobians=with_mlp_jacobians) for text in texts]
    if sketch is None:
        n_operations = sum(map(_exact_operations, rows))
        is_up = goes_forward(pairs)
        n_passes = math.ceil(sizes.d_model / n_rows) * n_exact_passes(pairs) + is_up
        # What a pass gives is in memory together. Forward it goes through the reverse pass of the reverse pass.
        together = max(Counter(pair[0] if is_up else pair[1] for pair in pairs).values())
        if is_up:
            graph, at_once = 2 * graph, 2 * at_once
        jacobians = together * square * _WIDE if len(texts) > 1 else 0  # those of the first prompt become the sums
        kept = max(of_text.mlp_jacobian_bytes() for of_text in rows)
        n_bytes = held + jacobians + kept + graph + min(n_rows_held, sizes.d_model) * at_once
    else:
        n_operations = sum(_sketch_operations(of_text, sketch) for of_text in rows)
        n_passes = 1 + 2 * math.ceil(sketch.least_size / sketch.width)  # one makes the graph
        if len(pairs) > 1:
            n_passes = 1 + len({subject for subject, _ in pairs}) + len({object_ for _, object_ in pairs})
        n_graphs = min(len(texts), GRID_GRAPHS_KEPT if len(pairs) > 1 else GRAPHS_KEPT)
        width = sketch.width if len(pairs) == 1 else sketch.size
        vectors = 8 * len(pairs) * sizes.d_model * sketch.size * _WIDE
        # A product from the left goes through the reverse pass of the reverse pass.
        n_bytes = held + square * _WIDE + vectors + 2 * n_graphs * graph + 2 * min(n_rows_held, width) * at_once
    forward = sum(sizes.pass_operations(n_tokens=text.n_tokens, n_layers=highest + 1) for text in texts)
    # Forward in two passes, before the subject and after it; and the whole model once, for its fingerprint.
    reading = len(texts) * sizes.reading_operations(n_passes=n_passes, n_layers=highest - lowest)
    reading += len(texts) * sizes.reading_operations(n_passes=2, n_layers=highest + 1)
    reading += sizes.reading_operations(n_passes=1)
    return FitCost(operations=n_operations + forward, reading=reading, n_bytes=n_bytes + _SMALL)


def dual_cost(sizes: ModelSizes) -> FitCost:
    """What a dual (`lrc_tl.lre.dual`) and the dual of class means take beside the LREs, in float64.

    `W Sigma W^T`, and the Cholesky decompositions of it and of a covariance; a float64 product counts as two.
    """
    square = sizes.d_model**2
    return FitCost(operations=6 * square * sizes.d_model, n_bytes=5 * square * torch.float64.itemsize)


def decomposition_cost(sizes: ModelSizes) -> FitCost:
    """What the singular value decomposition of a whole weight takes, which is slower than products."""
    square = sizes.d_model**2
    return FitCost(operations=60 * square * sizes.d_model, n_bytes=6 * square * _WIDE)


def _row_bytes(sizes: ModelSizes, *, n_after: int) -> int:
    """What a row takes on its way through an MLP, in float32 in part whatever the model's dtype; as measured.

    `lrc_tl.lre.jacobian_graph.row_bytes` bounds it from above, for a `memory_limit`.
    """
    return _WIDE * n_after * (5 * sizes.d_mlp // 2 + 4 * sizes.d_model)


@dataclass(frozen=True, kw_only=True)
class _Rows:
    """What a row of gradients takes on its way through the layers of a fit.

    A HookedTransformer goes without what is not needed in its first and its last layer. One whose attention and
    MLP run side by side needs all of the last; that is not known here, and counted as if it were not so.
    """

    sizes: ModelSizes
    text: TextLength
    pairs: Sequence[tuple[int, int]]
    with_mlp_jacobians: bool = False

    @property
    def lowest(self) -> int:
        """The lowest subject layer."""
        return min(subject for subject, _ in self.pairs)

    @property
    def highest(self) -> int:
        """The highest object layer."""
        return max(object_ for _, object_ in self.pairs)

    @property
    def cuts_last(self) -> bool:
        """Whether the highest layer ends with the object's positions."""
        return self.sizes.is_hooked and self.highest not in {subject for subject, _ in self.pairs}

    def operations(self, low: int, high: int) -> int:
        """Of one row between two layers."""
        sizes, n_after = self.sizes, self.text.n_after
        mlp = sizes.d_model**2 if self.with_mlp_jacobians else sizes.mlp_weights
        of_heads = sizes.d_model * sizes.d_heads  # those of the queries, and those after the heads
        keys_and_values = max(0, sizes.layer_weights - sizes.mlp_weights - 2 * of_heads)
        total = n_after * (high - low) * (2 * of_heads + keys_and_values + mlp)
        if sizes.is_hooked and low < high:
            beside_subject, beside_object = n_after - 1, n_after - self.text.n_objects
            if low == self.lowest:
                total -= beside_subject * (of_heads + keys_and_values)
            if high == self.highest and self.cuts_last:
                total -= beside_object * (of_heads + mlp)
                # Of a layer that is both, the queries of the subject are all that is left to leave out.
                total -= (1 if high - low == 1 and low == self.lowest else beside_object) * of_heads
        return 2 * total

    @property
    def n_mlp_jacobians(self) -> int:
        """One for each layer and position that rows go through."""
        if not self.with_mlp_jacobians:
            return 0
        n_left_out = self.text.n_after - self.text.n_objects if self.cuts_last else 0
        return self.text.n_after * (self.highest - self.lowest) - n_left_out

    def mlp_jacobian_operations(self) -> int:
        """Of making them."""
        return 2 * self.n_mlp_jacobians * self.sizes.d_model**2 * self.sizes.d_mlp

    def mlp_jacobian_bytes(self) -> int:
        """Of keeping them."""
        return self.sizes.itemsize * self.n_mlp_jacobians * self.sizes.d_model**2


def _exact_operations(rows: _Rows) -> int:
    total = rows.mlp_jacobian_operations()
    if goes_forward(rows.pairs):
        for subject_layer in {subject for subject, _ in rows.pairs}:
            high = max(object_ for other, object_ in rows.pairs if other == subject_layer)
            total += rows.sizes.d_model * rows.operations(subject_layer, high)
        return total
    for object_layer in {object_ for _, object_ in rows.pairs}:
        low = min(subject for subject, other in rows.pairs if other == object_layer)
        total += rows.sizes.d_model * rows.operations(low, object_layer)
    return total


def _sketch_operations(rows: _Rows, sketch: Sketch) -> int:
    if len(rows.pairs) == 1:
        return (2 * sketch.least_size + 1) * rows.operations(*rows.pairs[0])
    total = 0
    for layer in {subject for subject, _ in rows.pairs}:
        high = max(object_ for subject, object_ in rows.pairs if subject == layer)
        total += (grid_width(rows.pairs, sketch) + 1) * rows.operations(layer, high)
    for layer in {object_ for _, object_ in rows.pairs}:
        low = min(subject for subject, object_ in rows.pairs if object_ == layer)
        total += sketch.size * rows.operations(low, layer)
    return total


def in_mebibytes(n_bytes: int) -> str:
    """`1,234 MiB`."""
    return f"{n_bytes / 2**20:,.0f} MiB"
