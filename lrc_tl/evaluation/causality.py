"""Does swapping one concept for another at the subject change what the model says? (arXiv:2311.08968, eq. 7)"""

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.arguments.typechecking import checked
from lrc_tl.evaluation.displays import causality_html, causality_text
from lrc_tl.evaluation.edited_passes import (
    EditedLayers,
    EditedSequence,
    LayersGiven,
    edited_logits,
    given_betas,
    given_layers,
)
from lrc_tl.evaluation.target_answers import TargetAnswers
from lrc_tl.markup.progress import ProgressBar, shows_progress
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.next_tokens import least_token_log_prob
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.answers import objects_of_relations
from lrc_tl.relations.prompts import Prompt, TokenizedPrompt, spelled_as_object, tokenize_prompt
from lrc_tl.steering.operations import Unit


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A prompt whose object is to be replaced by another."""

    prompt: Prompt
    target: str
    """The counterfactual object o', in the spelling of `Prompt.object`."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", spelled_as_object(self.target, self.prompt.joint))


def aimed_at_their_own(edits: Sequence[Edit]) -> list[Edit]:
    """The edits whose target is their prompt's own object: it cannot become more probable than itself."""
    return [edit for edit in edits if edit.target.strip() == edit.prompt.object.strip()]


@dataclass(frozen=True, kw_only=True, eq=False)
class CausalityResult:
    """Log-probabilities of the original and the target object, before and after the edits.

    An object of several tokens stands for its least probable one, each teacher-forced.
    """

    beta: float
    clean: Float[Tensor, "edit 2"]
    """Unedited run, natural logarithm; columns are original object and target."""
    edited: Float[Tensor, "edit 2"]
    edit_share: float
    """Mean of |edit| / |h|, in a layer that gets all of `beta`."""
    layers: tuple[int, ...] = ()
    """Edited layers, as they were asked for; empty for all."""
    layer_shares: tuple[float, ...] = ()
    """What each of `layers` gets of `beta`; empty where all get all of it."""
    generated: Bool[Tensor, " edit"] | None = None
    """Where greedy decoding gives the target, as `filter_known` judges an answer; None: not asked for."""

    __repr__ = causality_text
    _repr_html_ = causality_html

    @property
    def n_edits(self) -> int:
        """Number of edits."""
        return len(self.edited)

    @property
    def success(self) -> Tensor:
        """Where the target is more probable than the original object after the edit; shape `edit`, bool."""
        return self.edited[:, 1] > self.edited[:, 0]

    @property
    def causality(self) -> float:
        """Share of edits after which p(o') > p(o)."""
        return float(self.success.double().mean())

    @property
    def hard_causality(self) -> float | None:
        """Share of edits after which the model itself says o'; None where that was not asked for."""
        return None if self.generated is None else float(self.generated.double().mean())

    @property
    def log_odds_change(self) -> Tensor:
        """Change of log p(o') - log p(o) by the edit, in nats; shape `edit`."""
        return (self.edited[:, 1] - self.edited[:, 0]) - (self.clean[:, 1] - self.clean[:, 0])

    @property
    def wrong_way(self) -> float:
        """Share of edits that made the target less probable against the original object."""
        return float((self.log_odds_change < 0).double().mean())


@numbers_checked
def counterfactual_edits(prompts: Sequence[Prompt], *, seed: int = 0, per_object: int = 5) -> tuple[Edit, ...]:
    """For each object at most `per_object` different edits, their targets drawn evenly from the other objects.

    Raises:
        ValueError: fewer than two objects among the prompts, or `per_object` below 1.
    """
    prompts = as_tuple(prompts, "prompts", Prompt)
    if per_object < 1:
        raise ValueError(f"per_object is {per_object}; ask for at least one edit for each object")
    by_object: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in prompts:
        by_object[prompt.object].append(prompt)
    if len(by_object) < 2:
        raise ValueError(
            f"edits need prompts of at least two objects, to put one in the other's place; given are "
            f"{sorted(by_object) or 'none'}"
        )
    edits = []
    for name in sorted(by_object):
        # One generator per object: dropping an object leaves the choice of prompts for the others as it was.
        generator = random.Random(f"{seed}|{name}")
        sources = generator.sample(by_object[name], len(by_object[name]))
        others = sorted(set(by_object) - {name})
        targets = generator.sample(others, len(others))
        # Through all combinations of prompts and targets: after each round the targets start one place later.
        round_ = math.lcm(len(sources), len(targets))
        edits += [
            Edit(prompt=sources[i % len(sources)], target=targets[(i + i // round_) % len(targets)])
            for i in range(min(per_object, len(sources) * len(targets)))
        ]
    return tuple(edits)


@shows_progress
@numbers_checked
@checked
def causality_curve(
    model: HookedModel,
    edits: Iterable[Edit],
    differences: Float[Tensor, "edit d_model"],
    *,
    betas: Iterable[float],
    layers: LayersGiven | None = None,
    generated: bool = False,
    clean: Float[Tensor, "edit 2"] | None = None,
    progress: bool = True,
) -> tuple[CausalityResult, ...]:
    """The effect of adding `beta |h^(l)| difference` to the last subject token at every layer l, for each beta.

    `differences` holds `v_o' - v_o` for each edit, or a control of the same norm. |h^(l)| is the norm in the
    edited run. The unedited run is made once, or taken from `clean`: that of an earlier result on the same edits.

    Args:
        layers: the layers to edit, such as the subject layer alone, or the share of `beta` that each of them
            gets (`{9: 1.0, 10: 0.5}`); all by default, as in the paper.
        generated: also find where greedy decoding gives the target after the edit.

    Raises:
        ValueError: no edits or layers, as many differences (and clean rows) as edits are not given, a beta that
            is not finite, or an edit whose target is its prompt's own object.
    """
    curves = causality_curves(
        model,
        edits,
        {"": differences},
        betas=betas,
        layers=layers,
        generated=generated,
        clean=clean,
        progress=progress,
    )
    return curves[""]


@shows_progress
@numbers_checked
@checked
def causality_curves(
    model: HookedModel,
    edits: Iterable[Edit],
    differences: Mapping[str, Float[Tensor, "edit d_model"]],
    *,
    betas: Iterable[float],
    layers: LayersGiven | None = None,
    generated: bool = False,
    clean: Float[Tensor, "edit 2"] | None = None,
    progress: bool = True,
) -> dict[str, tuple[CausalityResult, ...]]:
    """`causality_curve` of several methods on the same edits, by name; all runs of a prompt share its prefix.

    Raises:
        ValueError: as `causality_curve`.
    """
    edits = as_tuple(edits, "edits", Edit)
    layers, betas = given_layers(layers), given_betas(betas)
    if not differences:
        raise ValueError("differences are empty; give those of at least one method")
    for rows in differences.values():
        if not edits or len(edits) != len(rows):
            raise ValueError(f"{len(edits)} edits and {len(rows)} differences were given; give one for each edit")
    if own_aims := aimed_at_their_own(edits):
        raise ValueError(
            f"{len(own_aims)} of {len(edits)} edits have their prompt's own object as target, such as "
            f"{own_aims[0].target!r}, and cannot succeed; leave them out (`edits_towards` does)"
        )
    if clean is not None and len(clean) != len(edits):
        raise ValueError(f"clean has {len(clean)} rows for {len(edits)} edits; give that of the same edits")
    variants = [(name, beta) for name in differences for beta in betas]
    shifts = [beta * differences[name] for name, beta in variants]
    if clean is None:
        shifts.insert(0, torch.zeros_like(next(iter(differences.values()))))
    with ProgressBar("edits", progress=progress) as bar:
        log_probs, says_target = edited_log_probs(
            model, edits, torch.stack(shifts), layers=layers, generated=generated, bar=bar
        )
    if clean is None:
        clean, log_probs = log_probs[0], log_probs[1:]
        says_target = None if says_target is None else says_target[1:]
    norms = {name: float(rows.norm(dim=-1).mean()) for name, rows in differences.items()}
    results: dict[str, list[CausalityResult]] = {name: [] for name in differences}
    for number, (name, beta) in enumerate(variants):
        results[name].append(
            CausalityResult(
                beta=beta,
                clean=clean,
                edited=log_probs[number],
                edit_share=abs(beta) * norms[name],
                layers=tuple(layers or ()),
                layer_shares=tuple(map(float, layers.values())) if isinstance(layers, Mapping) else (),
                generated=None if says_target is None else says_target[number],
            )
        )
    return {name: tuple(curve) for name, curve in results.items()}


@dataclass(frozen=True, kw_only=True)
class _Reading:
    """What one run of a prompt tells: an object's tokens, read at the sequence's first wanted positions."""

    edit: int
    column: int
    object_ids: tuple[int, ...]


@checked
def edited_log_probs(
    model: HookedModel,
    edits: Sequence[Edit],
    shifts: Float[Tensor, "variant edit d_model"],
    *,
    layers: EditedLayers | None = None,
    unit: Unit = "share",
    generated: bool = False,
    bar: ProgressBar | None = None,
) -> tuple[Float[Tensor, "variant edit 2"], Bool[Tensor, "variant edit"] | None]:
    """Log-probability of the least token of the original object and of the target, for each variant of each edit.

    `shifts` are added to the last subject token in `layers` (None: all), times |h| with `unit="share"`. With
    `generated` the second result says where greedy decoding gives the target; else it is None.
    """
    # One row serves both objects where what is run is the same: single tokens need the text alone.
    readings: dict[tuple[int, tuple[int, ...]], list[_Reading]] = defaultdict(list)
    sequences = []
    with_target: list[TokenizedPrompt] = []
    for number, edit in enumerate(edits):
        for column, name in enumerate((edit.prompt.object, edit.target)):
            tokens = tokenize_prompt(model, replace(edit.prompt, object=name))
            key = number, tokens.input_ids
            if key not in readings:
                sequences.append(EditedSequence.of_object(tokens))
            readings[key].append(_Reading(edit=number, column=column, object_ids=tokens.object_ids))
        with_target.append(tokens)
    readings_of = list(readings.values())
    edit_of = torch.tensor([of_sequence[0].edit for of_sequence in readings_of], device=HOST)
    n_variants, n_sequences = len(shifts), len(sequences)
    least = torch.empty(n_variants, len(edits), 2, dtype=torch.float64, device=HOST)
    answers = None
    if generated:
        objects = objects_of_relations(
            [*(edit.prompt for edit in edits), *(tokens.prompt for tokens in with_target)]
        )
        answers = TargetAnswers(model, with_target, objects)
    rows = torch.arange(n_sequences, device=HOST).repeat(n_variants)
    flat = shifts[:, edit_of].flatten(0, 1)
    edit_of_target = [next((r.edit for r in of_row if r.column == 1), None) for of_row in readings_of]

    def next_ids(row: int) -> list[int] | None:
        variant, sequence = divmod(row, n_sequences)
        number = edit_of_target[sequence]
        return None if answers is None or number is None else answers.next_ids(variant, number)

    if bar is not None:
        bar.expect(len(rows))
    first = torch.ones(len(rows), dtype=torch.bool, device=HOST)
    passes = edited_logits(
        model, sequences, rows, flat, layers=layers, unit=unit, follow=next_ids if generated else None
    )
    for row, logits in passes:
        variant, sequence = divmod(row, n_sequences)
        if first[row]:
            first[row] = False
            if bar is not None:
                bar.advance(1)
            wide = wide_of(logits)
            log_probs = wide - wide.logsumexp(-1, keepdim=True)
            for reading in readings_of[sequence]:
                n = len(reading.object_ids)
                ids = torch.tensor(reading.object_ids, device=wide.device)
                scored = least_token_log_prob(log_probs[:n], ids)
                least[variant, reading.edit, reading.column] = scored.double().cpu()
        if answers is not None and (target := edit_of_target[sequence]) is not None:
            answers.take(variant, target, logits.argmax(-1).tolist())
    return least, None if answers is None else answers.says_target(n_variants)
