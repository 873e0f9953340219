"""Does swapping one concept for another at the subject change what the model says? (arXiv:2311.08968, eq. 7)"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

from lrc_tl.forward import Hooks, logits_at
from lrc_tl.models import HookedModel, hook_name
from lrc_tl.prompts import Prompt, tokenize_prompt


@dataclass(frozen=True, kw_only=True)
class Edit:
    """A prompt whose object is to be replaced by another."""

    prompt: Prompt
    target: str
    """The counterfactual object o'."""


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
    """Mean of |edit| / |h|."""

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
    def log_odds_change(self) -> Tensor:
        """Change of log p(o') - log p(o) by the edit, in nats; shape `edit`."""
        return (self.edited[:, 1] - self.edited[:, 0]) - (self.clean[:, 1] - self.clean[:, 0])

    @property
    def wrong_way(self) -> float:
        """Share of edits that made the target less probable against the original object."""
        return float((self.log_odds_change < 0).double().mean())


def counterfactual_edits(prompts: Sequence[Prompt], *, seed: int = 0, per_object: int = 5) -> tuple[Edit, ...]:
    """For each object at most `per_object` different (prompt, target) pairs, targets drawn evenly from the others.

    Raises:
        ValueError: fewer than two objects among the prompts, or `per_object` below 1.
    """
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
        # One generator an object: dropping an object leaves the choice of prompts for the others as it was.
        generator = random.Random(f"{seed}|{name}")
        own = generator.sample(by_object[name], len(by_object[name]))
        others = sorted(set(by_object) - {name})
        targets = generator.sample(others, len(others))
        # Walks through all pairs of prompts and targets, each as often as every other as far as they go.
        round_ = math.lcm(len(own), len(targets))
        edits += [
            Edit(prompt=own[i % len(own)], target=targets[(i + i // round_) % len(targets)])
            for i in range(min(per_object, len(own) * len(targets)))
        ]
    return tuple(edits)


@jaxtyped(typechecker=beartype)
def causality_curve(
    model: HookedModel,
    edits: Sequence[Edit],
    differences: Float[Tensor, "edit d_model"],
    *,
    betas: Sequence[float],
    clean: Float[Tensor, "edit 2"] | None = None,
) -> tuple[CausalityResult, ...]:
    """The effect of adding `beta |h^(l)| difference` to the last subject token at every layer l, for each beta.

    `differences` holds `v_o' - v_o` for each edit, or a control of the same norm. |h^(l)| is the norm in the
    edited run. The unedited run is made once, or taken from `clean`: that of an earlier result on the same edits.

    Raises:
        ValueError: no edits, as many differences (and clean rows) as edits are not given, or a beta that is not
            finite.
    """
    if not edits or len(edits) != len(differences):
        raise ValueError(
            f"{len(edits)} edits and {len(differences)} differences were given; give one for each edit"
        )
    for beta in betas:
        if not torch.isfinite(torch.tensor(float(beta))):
            raise ValueError(f"beta is {beta}; it must be a finite number")
    if clean is None:
        clean = _object_log_probs(model, edits, None)
    elif len(clean) != len(edits):
        raise ValueError(f"clean has {len(clean)} rows for {len(edits)} edits; give that of the same edits")
    norm = float(differences.norm(dim=-1).mean())
    results = []
    for beta in betas:
        edited = _object_log_probs(model, edits, _all_layer_edit(model, differences, beta=float(beta)))
        results.append(
            CausalityResult(beta=float(beta), clean=clean, edited=edited, edit_share=abs(float(beta)) * norm)
        )
    return tuple(results)


_HooksFor = Callable[[list[int], list[int]], Hooks]


def _all_layer_edit(model: HookedModel, differences: Tensor, *, beta: float) -> _HooksFor:
    names = [hook_name(model, layer) for layer in range(int(model.cfg.n_layers))]

    def hooks(edit_numbers: list[int], positions: list[int]) -> Hooks:
        added = differences[edit_numbers]
        rows = torch.arange(len(positions))
        columns = torch.tensor(positions)

        def edit(residual: Tensor, hook: Any) -> Tensor:
            changed = residual.clone()
            add = added.to(residual)
            h = residual[rows, columns]
            changed[rows, columns] = h + beta * h.norm(dim=-1, keepdim=True) * add
            return changed

        return [(name, edit) for name in names]

    return hooks


def _object_log_probs(
    model: HookedModel, edits: Sequence[Edit], hooks_for: _HooksFor | None
) -> Float[Tensor, "edit 2"]:
    """Least token log-probability of the original object and of the target, for each edit."""
    # One row serves both objects where what is run is the same: single tokens need the text alone.
    readings: dict[tuple[int, tuple[int, ...]], list[tuple[int, tuple[int, ...]]]] = defaultdict(list)
    positions_of: dict[int, tuple[int, int]] = {}
    for number, edit in enumerate(edits):
        for column, name in enumerate((edit.prompt.object, edit.target)):
            tokens = tokenize_prompt(model, replace(edit.prompt, object=name))
            readings[number, tokens.input_ids].append((column, tokens.object_ids))
            positions_of[number] = tokens.subject_position, len(tokens.text_ids)
    rows = list(readings)
    sequences = [ids for _, ids in rows]
    wanted = [range(positions_of[number][1] - 1, len(ids)) for number, ids in rows]

    def edits_of(batch: list[int]) -> Hooks:
        assert hooks_for is not None
        numbers = [rows[row][0] for row in batch]
        return hooks_for(numbers, [positions_of[number][0] for number in numbers])

    result = torch.empty(len(edits), 2, dtype=torch.float64)
    for row, logits in logits_at(model, sequences, wanted, edits=edits_of if hooks_for else None):
        log_probs = logits.float().log_softmax(-1)
        for column, object_ids in readings[rows[row]]:
            steps = torch.arange(len(object_ids), device=log_probs.device)
            tokens_at = torch.tensor(object_ids, device=log_probs.device)
            result[rows[row][0], column] = log_probs[steps, tokens_at].min().double().cpu()
    return result
