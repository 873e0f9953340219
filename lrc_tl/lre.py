"""LinearRelationalEmbedding: the mean affine map from subject to object activations, and its inverse."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from rich.console import Console
from rich.progress import track
from torch import Tensor

from lrc_tl.activations import object_activations
from lrc_tl.directions import ConceptDirection, ConceptSet
from lrc_tl.jacobian import ObjectAggregation, check_layers, jacobian_grid, layer_pairs
from lrc_tl.low_rank import solve_low_rank
from lrc_tl.models import HookedModel, hook_name
from lrc_tl.prompts import Prompt, tokenize_prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearRelationalEmbedding:
    """`R(s) = W s + b` between two layers of one model (Hernandez et al. 2023, arXiv:2308.09124, eq. 4)."""

    weight: Float[Tensor, "d_object d_subject"]
    bias: Float[Tensor, " d_object"]
    subject_layer: int
    """Counted from the start, like `object_layer`."""
    object_layer: int
    object_aggregation: ObjectAggregation
    n_prompts: int
    relation: str
    """The prompts' relation; their relations joined with " + " where there are several."""

    @property
    def subject_hook(self) -> str:
        """Hook point of the subject activations, e.g. `"blocks.8.hook_resid_post"`."""
        return f"blocks.{self.subject_layer}.hook_resid_post"

    @property
    def object_hook(self) -> str:
        """Hook point of the object activations."""
        return f"blocks.{self.object_layer}.hook_resid_post"

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: Sequence[Prompt],
        *,
        subject_layer: int,
        object_layer: int,
        object_aggregation: ObjectAggregation = "mean",
        memory_limit: int | None = None,
        progress: bool = True,
    ) -> "LinearRelationalEmbedding":
        """Mean Jacobian and mean bias over `prompts`, all of which are used.

        `W = mean_i J_i`, `b = mean_i [o_i - J_i s_i]`, in the dtype of the model (float32 or wider).
        `memory_limit` is in bytes, as in `subject_object_jacobians`.

        Raises:
            ValueError: no prompts, bad layers, or what `subject_object_jacobians` refuses.
        """
        pair = check_layers(model, subject_layer, object_layer)
        return _fit_pairs(
            model,
            prompts,
            [pair],
            object_aggregation=object_aggregation,
            memory_limit=memory_limit,
            progress=progress,
        )[pair]

    @jaxtyped(typechecker=beartype)
    def predict(self, subject_acts: Float[Tensor, "*batch d_subject"]) -> Float[Tensor, "*batch d_object"]:
        """`W s + b` for each row."""
        objects: Tensor = subject_acts.to(self.weight) @ self.weight.T + self.bias
        return objects

    @property
    def singular_values(self) -> Float[Tensor, " rank"]:
        """Singular values of the weight, largest first."""
        values: Tensor = torch.linalg.svdvals(self.weight)
        return values

    def invert(
        self, object_acts: Float[Tensor, "*batch d_object"], *, rank: int
    ) -> Float[Tensor, "*batch d_subject"]:
        """`R^+(o) = W^+ (o - b)` for each row, with the rank-`rank` pseudo-inverse of W (arXiv:2311.08968, eq. 4).

        Raises:
            ValueError: a rank outside 1 to the numerical rank of the weight, which the text gives.
        """
        return solve_low_rank(self.weight, object_acts.to(self.weight) - self.bias, rank=rank)

    def concepts(self, model: HookedModel, prompts: Sequence[Prompt], *, rank: int) -> ConceptSet:
        """One direction for each object: the unit mean of `R^+(o_i)` over its prompts (arXiv:2311.08968, eq. 5).

        Raises:
            ValueError: no prompts, or a rank outside 1 to the numerical rank of the weight.
        """
        if not prompts:
            raise ValueError("no prompts to make concepts from; give at least one for each object")
        objects = object_activations(
            model, prompts, layer=self.object_layer, object_aggregation=self.object_aggregation
        )
        inverted = self.invert(objects, rank=rank)
        by_object: dict[str, list[int]] = defaultdict(list)
        for index, prompt in enumerate(prompts):
            by_object[prompt.object].append(index)
        name = hook_name(model, self.subject_layer)
        return ConceptSet(
            {
                object_: ConceptDirection.from_unscaled(
                    inverted[rows].mean(0), relation=prompts[rows[0]].relation, object_name=object_, hook_name=name
                )
                for object_, rows in by_object.items()
            }
        )


def fit_layer_grid(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    subject_layers: Sequence[int],
    object_layers: Sequence[int],
    object_aggregation: ObjectAggregation = "mean",
    memory_limit: int | None = None,
    progress: bool = True,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    """{(subject layer, object layer): LRE} for every pair whose object layer is at the subject layer or above it.

    Layers in the keys count from the start. Each prompt takes one forward pass, and one reverse pass for each
    object layer, whatever the number of subject layers; each LRE equals `LinearRelationalEmbedding.fit` on its
    pair. Held in memory: a weight for each pair, and one prompt's Jacobians to one object layer.

    Raises:
        ValueError: no prompts, a layer outside the model, no pair of layers at all, or what
            `subject_object_jacobians` refuses.
    """
    return _fit_pairs(
        model,
        prompts,
        layer_pairs(model, subject_layers, object_layers),
        object_aggregation=object_aggregation,
        memory_limit=memory_limit,
        progress=progress,
    )


def _fit_pairs(
    model: HookedModel,
    prompts: Sequence[Prompt],
    pairs: Sequence[tuple[int, int]],
    *,
    object_aggregation: ObjectAggregation,
    memory_limit: int | None,
    progress: bool,
) -> dict[tuple[int, int], LinearRelationalEmbedding]:
    if not prompts:
        raise ValueError("no prompts to fit on; give at least one prompt that the model answers correctly")
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    weights: dict[tuple[int, int], Tensor] = {}
    biases: dict[tuple[int, int], Tensor] = {}
    for tokens in track(tokenized, "LRE", console=Console(stderr=True), disable=not progress):
        for pair, one in jacobian_grid(
            model, tokens, pairs, object_aggregation=object_aggregation, memory_limit=memory_limit
        ):
            bias = one.object - one.jacobian @ one.subject
            if pair in weights:
                weights[pair] += one.jacobian
                biases[pair] += bias
            else:
                weights[pair], biases[pair] = one.jacobian, bias
    relation = " + ".join(dict.fromkeys(prompt.relation for prompt in prompts if prompt.relation))
    return {
        pair: LinearRelationalEmbedding(
            weight=weights[pair].div_(len(tokenized)),
            bias=biases[pair].div_(len(tokenized)),
            subject_layer=pair[0],
            object_layer=pair[1],
            object_aggregation=object_aggregation,
            n_prompts=len(tokenized),
            relation=relation,
        )
        for pair in pairs
    }
