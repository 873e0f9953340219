"""Does an LRE say what its model says, and can it be inverted to change it? (Hernandez et al. 2023)"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.evaluation.causality import CausalityResult, Edit, edited_log_probs
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.markup.brief import brief_fields
from lrc_tl.markup.progress import ProgressBar, shows_progress
from lrc_tl.models.hooked_model import HookedModel, hook_name
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.activations import object_activations, prompt_activations
from lrc_tl.passes.batches import Hooks, logits_at
from lrc_tl.relations.prompts import Prompt, tokenize_prompt


@dataclass(frozen=True, kw_only=True)
class Faithfulness:
    """First tokens that an LRE and its model say behind the same texts."""

    lre_beta: float
    lre_tokens: tuple[int, ...]
    model_tokens: tuple[int, ...]

    __repr__ = brief_fields

    @property
    def n_prompts(self) -> int:
        """Number of texts."""
        return len(self.model_tokens)

    @property
    def same(self) -> tuple[bool, ...]:
        """For each text, whether both say the same."""
        return tuple(a == b for a, b in zip(self.lre_tokens, self.model_tokens, strict=True))

    @property
    def faithfulness(self) -> float:
        """Share of texts behind which both say the same."""
        return sum(self.same) / self.n_prompts


@shows_progress
@numbers_checked
def lre_faithfulness(
    model: HookedModel,
    lre: LinearRelationalEmbedding,
    prompts: Sequence[Prompt],
    *,
    lre_beta: float = 1.0,
    progress: bool = True,
) -> Faithfulness:
    """Whether the top token of `unembed(final_norm(lre_beta W s + b))` is the model's own (arXiv:2308.09124, 3.2).

    `s` is the last subject token's residual in each prompt. `lre_beta` makes up for the slope that a mean Jacobian
    underestimates; it multiplies W alone.

    Raises:
        ValueError: no prompts, or an LRE that does not end at the final layer with the first object token.
        FingerprintMismatch: the LRE was fitted on another model.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    last = int(model.cfg.n_layers) - 1
    if lre.object_layer != last or lre.object_aggregation != "first_token":
        raise ValueError(
            f"faithfulness reads the model's next token, so it needs an LRE with object layer {last} and "
            f"'first_token'; this one has layer {lre.object_layer} and {lre.object_aggregation!r}"
        )
    if not prompts:
        raise ValueError("no prompts to be faithful on; give at least one")
    lre.require_model(model)
    subject = prompt_activations(model, prompts, subject_layers=[lre.subject_layer]).subject[lre.subject_layer]
    predicted = lre_beta * (subject.to(lre.weight) @ lre.weight.T) + lre.bias
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    sequences = [tokens.text_ids for tokens in tokenized]
    wanted = [[len(ids) - 1] for ids in sequences]
    columns = torch.tensor([at for (at,) in wanted], device=HOST)

    def replaced(rows: list[int]) -> Hooks:
        def put(residual: Tensor, hook: Any) -> Tensor:
            changed = residual.clone()
            changed[torch.arange(len(rows), device=HOST), columns[rows]] = predicted[rows].to(residual)
            return changed

        # The model's own final norm and unembedding follow, whatever they are.
        return [(hook_name(model, last), put)]

    with ProgressBar("faithfulness", total=2 * len(prompts), progress=progress) as bar:
        model_logits = dict(bar.over(logits_at(model, sequences, wanted)))
        lre_logits = dict(bar.over(logits_at(model, sequences, wanted, hooks_for=replaced)))
    order = range(len(prompts))
    return Faithfulness(
        lre_beta=lre_beta,
        lre_tokens=tuple(int(lre_logits[row].argmax()) for row in order),
        model_tokens=tuple(int(model_logits[row].argmax()) for row in order),
    )


@shows_progress
@numbers_checked
def lre_causality(
    model: HookedModel,
    lre: LinearRelationalEmbedding,
    edits: Sequence[Edit],
    prompts: Sequence[Prompt],
    *,
    rank: int,
    generated: bool = False,
    progress: bool = True,
) -> CausalityResult:
    """The effect of replacing `s` by `s + W^+ (o' - o)` at the subject layer alone (arXiv:2308.09124, 3.3).

    `o` is the object activation of the edit's own prompt, `o'` the mean over those `prompts` that have the edit's
    target. `W^+` is the rank-`rank` pseudo-inverse. In the result `beta` is 1.

    Raises:
        ValueError: no edits, a target without a prompt, or a rank outside 1 to the numerical rank.
        FingerprintMismatch: the LRE was fitted on another model.
    """
    edits, prompts = as_tuple(edits, "edits", Edit), as_tuple(prompts, "prompts", Prompt)
    if not edits:
        raise ValueError("no edits were given; give at least one")
    lre.require_model(model)
    edited_prompts = list(dict.fromkeys(edit.prompt for edit in edits))
    by_object: dict[str, list[int]] = defaultdict(list)
    for number, prompt in enumerate(prompts):
        by_object[prompt.object].append(number)
    if missing := sorted({edit.target for edit in edits} - set(by_object)):
        raise ValueError(f"no prompt has the targets {missing}; give prompts that do, to read the object from")

    def objects_of(given: Sequence[Prompt]) -> Tensor:
        return object_activations(
            model, given, layer=lre.object_layer, object_aggregation=lre.object_aggregation
        ).to(lre.weight)

    number_of = {prompt: number for number, prompt in enumerate(edited_prompts)}
    objects, candidates = objects_of(edited_prompts), objects_of(prompts)
    targets = torch.stack([candidates[by_object[edit.target]].mean(0) for edit in edits])
    rows = [number_of[edit.prompt] for edit in edits]
    shifts = lre.svd.solve(targets - objects[rows], rank=rank)
    subjects = prompt_activations(model, edited_prompts, subject_layers=[lre.subject_layer]).subject[
        lre.subject_layer
    ]
    share = shifts.norm(dim=-1) / subjects[rows].norm(dim=-1)
    variants = torch.stack([torch.zeros_like(shifts), shifts])
    log_probs, says_target = edited_log_probs(
        model, edits, variants, layers=[lre.subject_layer], unit="absolute", generated=generated
    )
    return CausalityResult(
        beta=1.0,
        clean=log_probs[0],
        edited=log_probs[1],
        edit_share=float(share.mean()),
        layers=(lre.subject_layer,),
        generated=None if says_target is None else says_target[1],
    )
