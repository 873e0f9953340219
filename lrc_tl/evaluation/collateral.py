"""What an edit changes beside its aim: unrelated statements, and other facts about the same subject."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.no_booleans import no_booleans
from lrc_tl.arguments.plain_numbers import real_numbers
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.evaluation.causality import Edit
from lrc_tl.evaluation.edited_passes import EditedLayers, EditedSequence, edited_logits
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.loading import HookedModel
from lrc_tl.numerics.next_tokens import kl_divergence, least_token_log_prob
from lrc_tl.relations.prompts import Prompt, tokenize_prompt
from lrc_tl.steering.operations import wide_of


@dataclass(frozen=True, kw_only=True, eq=False)
class SideEffects:
    """What an edit did to statements that it was not meant for, one row for each (edit, statement) pair."""

    beta: float
    kl: Float[Tensor, " pair"]
    """KL(edited || unedited) of the next token behind the statement, in nats, float64."""
    kept: Bool[Tensor, " pair"]
    """Where the first token that the edited model says is the one that the unedited model says."""
    log_prob_change: Float[Tensor, " pair"]
    """Of the statement's own object, its least token, by the edit, in nats."""

    @property
    def n_pairs(self) -> int:
        """Number of pairs; 0 where no statement was found."""
        return len(self.kl)

    @property
    def mean_kl(self) -> float:
        """Mean over the pairs, NaN without any."""
        return float(self.kl.mean()) if self.n_pairs else math.nan

    @property
    def share_kept(self) -> float:
        """Share of pairs whose next word stays, NaN without any."""
        return float(self.kept.double().mean()) if self.n_pairs else math.nan


Pair = tuple[int, Prompt]
"""Number of an edit, and a statement that it is applied to."""


@no_booleans
def unrelated_pairs(edits: Sequence[Edit], prompts: Sequence[Prompt], *, n: int) -> tuple[Pair, ...]:
    """At most `n` (edit, prompt) pairs, edits and prompts each as often as every other as far as they go.

    Give prompts of other relations. The pairs are the same for every method and beta.

    Raises:
        ValueError: no edits or prompts, or `n` below 1.
    """
    edits, prompts = as_tuple(edits, "edits", Edit), as_tuple(prompts, "prompts", Prompt)
    if not edits or not prompts or n < 1:
        raise ValueError(
            f"{len(edits)} edits, {len(prompts)} prompts and n = {n} were given; give at least one of each"
        )
    count = min(n, len(edits) * len(prompts))
    round_ = math.lcm(len(edits), len(prompts))
    return tuple((i % len(edits), prompts[(i + i // round_) % len(prompts)]) for i in range(count))


def same_subject_pairs(edits: Sequence[Edit], prompts: Sequence[Prompt]) -> tuple[Pair, ...]:
    """Each edit with every prompt about its subject, by name; give known prompts of other relations."""
    edits, prompts = as_tuple(edits, "edits", Edit), as_tuple(prompts, "prompts", Prompt)
    return tuple(
        (number, prompt)
        for number, edit in enumerate(edits)
        for prompt in prompts
        if prompt.subject == edit.prompt.subject
    )


@no_booleans
def side_effects(
    model: HookedModel,
    pairs: Sequence[Pair],
    differences: Mapping[str, Float[Tensor, "edit d_model"]],
    *,
    betas: Sequence[float],
    layers: EditedLayers | None = None,
    progress: bool = True,
) -> dict[str, tuple[SideEffects, ...]]:
    """For each method, by name, and each beta: what its edits do to the statements in `pairs`.

    Each edit `beta |h| difference` is added at the last subject token of its pair's statement, in `layers` (all by
    default), as `causality_curve` adds it to its own prompt. With `same_subject_pairs` the statements are other
    facts about the edited subject, with `unrelated_pairs` they have nothing to do with it.

    Raises:
        ValueError: a pair's edit has no difference, a beta is not finite, or `layers` is empty.
    """
    pairs = as_tuple(pairs, "pairs")
    betas = real_numbers(as_tuple(betas, "betas"), "betas")
    if layers is not None and not isinstance(layers, Mapping):
        layers = as_tuple(layers, "layers")
    if layers is not None and not layers:
        raise ValueError("layers is empty; give the layers to edit, or None for all")
    for beta in betas:
        if not math.isfinite(beta):
            raise ValueError(f"beta is {beta}; it must be a finite number")
    for name, own in differences.items():
        if pairs and max(number for number, _ in pairs) >= len(own):
            raise ValueError(f"{name!r} has {len(own)} differences, but a pair names a later edit")
    used = range(int(model.cfg.n_layers)) if layers is None else layers
    prompts = list(dict.fromkeys(prompt for _, prompt in pairs))
    place = {prompt: number for number, prompt in enumerate(prompts)}
    sequences, objects = [], []
    for prompt in prompts:
        tokens = tokenize_prompt(model, prompt)
        sequences.append(
            EditedSequence(
                ids=tokens.input_ids,
                edited_position=tokens.subject_position,
                wanted=tuple(tokens.object_positions),
            )
        )
        objects.append(torch.tensor(tokens.object_ids))
    clean: dict[int, Tensor] = {}
    width = int(model.cfg.d_model)
    for row, logits in edited_logits(
        model, sequences, torch.arange(len(prompts)), torch.zeros(len(prompts), width), layers=used
    ):
        clean[row] = wide_of(logits).log_softmax(-1)
    variants = [(name, float(beta)) for name in differences for beta in betas]
    places = torch.tensor([place[prompt] for _, prompt in pairs], dtype=torch.long)
    numbers = [number for number, _ in pairs]
    n_pairs = len(pairs)
    kl = torch.zeros(len(variants), n_pairs, dtype=torch.float64)
    kept = torch.zeros(len(variants), n_pairs, dtype=torch.bool)
    change = torch.zeros(len(variants), n_pairs, dtype=torch.float64)
    if pairs and variants:
        shifts = torch.cat([beta * differences[name][numbers] for name, beta in variants])
        passes = edited_logits(model, sequences, places.repeat(len(variants)), shifts, layers=used)
        with ProgressBar("side effects", progress=progress) as bar:
            for row, logits in bar.over(passes, total=len(shifts)):
                variant, pair = divmod(row, n_pairs)
                at = int(places[pair])
                edited, before = wide_of(logits).log_softmax(-1), clean[at]
                kl[variant, pair] = kl_divergence(edited[0], before[0]).double().clamp_min(0)
                kept[variant, pair] = bool(edited[0].argmax() == before[0].argmax())
                least_edited, least_before = (
                    least_token_log_prob(log_probs, objects[at]).double() for log_probs in (edited, before)
                )
                change[variant, pair] = least_edited - least_before
    results: dict[str, list[SideEffects]] = {name: [] for name in differences}
    for number, (name, beta) in enumerate(variants):
        results[name].append(
            SideEffects(beta=beta, kl=kl[number], kept=kept[number], log_prob_change=change[number])
        )
    return {name: tuple(own) for name, own in results.items()}
