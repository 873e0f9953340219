"""LinearRelationalEmbedding: the mean affine map from subject to object activations, and its inverse."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor
from tqdm.auto import tqdm

from lrc_tl.activations import object_activations
from lrc_tl.directions import ConceptDirection, ConceptSet
from lrc_tl.jacobian import ObjectAggregation, check_layers, subject_object_jacobian
from lrc_tl.low_rank import solve_low_rank
from lrc_tl.models import HookedModel, hook_name
from lrc_tl.prompts import Prompt, tokenize_prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearRelationalEmbedding:
    """`R(s) = W s + b` between two layers of one model (Hernandez et al. 2023, arXiv:2308.09124, eq. 4)."""

    weight: Float[Tensor, "d_object d_subject"]
    bias: Float[Tensor, " d_object"]
    subject_layer: int
    object_layer: int
    object_aggregation: ObjectAggregation
    n_prompts: int

    @classmethod
    def fit(
        cls,
        model: HookedModel,
        prompts: Sequence[Prompt],
        *,
        subject_layer: int,
        object_layer: int,
        object_aggregation: ObjectAggregation = "mean",
        progress: bool = True,
    ) -> "LinearRelationalEmbedding":
        """Mean Jacobian and mean bias over `prompts`, all of which are used.

        `W = mean_i J_i`, `b = mean_i [o_i - J_i s_i]`.

        Raises:
            ValueError: no prompts, or bad layers.
        """
        subject_layer, object_layer = check_layers(model, subject_layer, object_layer)
        if not prompts:
            raise ValueError("no prompts to fit on; give at least one prompt that the model answers correctly")
        tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
        weights: Tensor | None = None
        biases: Tensor | None = None
        for tokens in tqdm(tokenized, desc="LRE", disable=not progress):
            one = subject_object_jacobian(
                model,
                tokens,
                subject_layer=subject_layer,
                object_layer=object_layer,
                object_aggregation=object_aggregation,
            )
            bias = one.object - one.jacobian @ one.subject
            weights = one.jacobian if weights is None else weights + one.jacobian
            biases = bias if biases is None else biases + bias
        assert weights is not None
        assert biases is not None
        return cls(
            weight=weights / len(tokenized),
            bias=biases / len(tokenized),
            subject_layer=subject_layer,
            object_layer=object_layer,
            object_aggregation=object_aggregation,
            n_prompts=len(tokenized),
        )

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
        inverted = solve_low_rank(self.weight, objects.to(self.weight) - self.bias, rank=rank)
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
