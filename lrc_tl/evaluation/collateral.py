"""What an edit changes beside its aim: unrelated statements, and other facts about the same subject."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.evaluation.causality import Edit
from lrc_tl.evaluation.edited_passes import (
    EditedLayers,
    EditedSequence,
    LayersGiven,
    edited_logits,
    given_betas,
    given_layers,
)
from lrc_tl.markup.brief import brief_fields
from lrc_tl.markup.progress import ProgressBar, shows_progress
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.next_tokens import kl_divergence, least_token_log_prob
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.relations.prompts import Prompt, tokenize_prompt


@dataclass(frozen=True, kw_only=True, eq=False)
class SideEffects:
    """What edits did to statements that they were not meant for, one row for each edited statement."""

    beta: float
    kl: Float[Tensor, " statement"]
    """KL(edited || unedited) of the next token behind the statement, in nats, float64."""
    kept: Bool[Tensor, " statement"]
    """Where the first token that the edited model says is the one that the unedited model says."""
    log_prob_change: Float[Tensor, " statement"]
    """Change by the edit of the log-probability of the statement's own object, its least token, in nats."""

    __repr__ = brief_fields

    @property
    def n_statements(self) -> int:
        """Number of edited statements; 0 where none was found."""
        return len(self.kl)

    @property
    def mean_kl(self) -> float:
        """Mean over the edited statements, NaN without any."""
        return float(self.kl.mean()) if self.n_statements else math.nan

    @property
    def share_kept(self) -> float:
        """Share of edited statements whose next word stays, NaN without any."""
        return float(self.kept.double().mean()) if self.n_statements else math.nan


EditedStatement: TypeAlias = tuple[int, Prompt]
"""Number of an edit, and a statement that it is applied to."""


@numbers_checked
def unrelated_statements(
    edits: Sequence[Edit], prompts: Sequence[Prompt], *, n: int
) -> tuple[EditedStatement, ...]:
    """At most `n` edited statements; edits and prompts take part evenly, as far as they go.

    Give prompts of other relations. The result is the same for every method and beta.

    Raises:
        ValueError: no edits or prompts, or `n` below 1.
    """
    edits, prompts = as_tuple(edits, "edits", Edit), as_tuple(prompts, "prompts", Prompt)
    if not edits or not prompts or n < 1:
        raise ValueError(
            f"{len(edits)} edits, {len(prompts)} prompts and n = {n} were given; give at least one of each"
        )
    count = min(n, len(edits) * len(prompts))
    # Through all combinations of edits and prompts: after each round the prompts start one place later.
    round_ = math.lcm(len(edits), len(prompts))
    return tuple((i % len(edits), prompts[(i + i // round_) % len(prompts)]) for i in range(count))


def same_subject_statements(edits: Sequence[Edit], prompts: Sequence[Prompt]) -> tuple[EditedStatement, ...]:
    """Each edit with every prompt about its subject, by name; give known prompts of other relations."""
    edits, prompts = as_tuple(edits, "edits", Edit), as_tuple(prompts, "prompts", Prompt)
    return tuple(
        (number, prompt)
        for number, edit in enumerate(edits)
        for prompt in prompts
        if prompt.subject == edit.prompt.subject
    )


@shows_progress
@numbers_checked
@checked
def side_effects(
    model: HookedModel,
    statements: Sequence[EditedStatement],
    differences: Mapping[str, Float[Tensor, "edit d_model"]],
    *,
    betas: Iterable[float],
    layers: LayersGiven | None = None,
    progress: bool = True,
) -> dict[str, tuple[SideEffects, ...]]:
    """For each method, by name, and each beta: what its edits do to the `statements`.

    For each statement `beta |h| difference` of its edit is added at the statement's last subject token, in
    `layers` (all by default), as `causality_curve` adds it to the edit's own prompt. The statements of
    `same_subject_statements` are other facts about the edited subject, those of `unrelated_statements` have
    nothing to do with it.

    Raises:
        ValueError: a statement's edit has no difference, a beta is not finite, or `layers` is empty.
    """
    layers, betas = given_layers(layers), given_betas(betas)
    for name, rows in differences.items():
        if statements and max(number for number, _ in statements) >= len(rows):
            raise ValueError(f"{name!r} has {len(rows)} differences, but a statement names a later edit")
    variants = [(name, beta) for name in differences for beta in betas]
    shape = len(variants), len(statements)
    kl, change = torch.zeros(2, *shape, dtype=torch.float64, device=HOST)
    kept = torch.zeros(shape, dtype=torch.bool, device=HOST)
    unedited = _Unedited(model, statements, layers)
    if statements and variants:
        edit_numbers = [number for number, _ in statements]
        shifts = torch.cat([beta * differences[name][edit_numbers] for name, beta in variants])
        sequence_of = torch.tensor(unedited.prompt_of, device=HOST).repeat(len(variants))
        passes = edited_logits(model, unedited.sequences, sequence_of, shifts, layers=layers)
        with ProgressBar("side effects", progress=progress) as bar:
            for row, logits in bar.over(passes, total=len(shifts)):
                cell = divmod(row, len(statements))
                kl[cell], kept[cell], change[cell] = unedited.compared_with(logits, prompt=int(sequence_of[row]))
    results: dict[str, list[SideEffects]] = {name: [] for name in differences}
    for row, (name, beta) in enumerate(variants):
        results[name].append(SideEffects(beta=beta, kl=kl[row], kept=kept[row], log_prob_change=change[row]))
    return {name: tuple(effects) for name, effects in results.items()}


class _Unedited:
    """The different prompts among some statements, and what the model says to each without an edit."""

    def __init__(
        self, model: HookedModel, statements: Sequence[EditedStatement], layers: EditedLayers | None
    ) -> None:
        prompts = list(dict.fromkeys(prompt for _, prompt in statements))
        number_of = {prompt: number for number, prompt in enumerate(prompts)}
        self.prompt_of = [number_of[prompt] for _, prompt in statements]
        tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
        self.sequences = [EditedSequence.of_object(tokens) for tokens in tokenized]
        self._object_ids = [torch.tensor(tokens.object_ids, device=HOST) for tokens in tokenized]
        no_shifts = torch.zeros(len(prompts), int(model.cfg.d_model), device=HOST)
        in_order = torch.arange(len(prompts), device=HOST)
        passes = edited_logits(model, self.sequences, in_order, no_shifts, layers=layers)
        self._log_probs = {row: wide_of(logits).log_softmax(-1) for row, logits in passes}

    def compared_with(self, edited: Float[Tensor, "pos d_vocab"], *, prompt: int) -> tuple[Tensor, bool, Tensor]:
        """KL(edited || unedited), whether the next token stays, and the change of the object's least token."""
        before, after = self._log_probs[prompt], wide_of(edited).log_softmax(-1)
        least_before, least_after = (
            least_token_log_prob(log_probs, self._object_ids[prompt]).double() for log_probs in (before, after)
        )
        return (
            kl_divergence(after[0], before[0]).double(),
            bool(after[0].argmax() == before[0].argmax()),
            least_after - least_before,
        )
