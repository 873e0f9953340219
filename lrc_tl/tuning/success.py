"""Success of an edit at some strengths, as a margin: the target beats the object, or is named in free text."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.evaluation.causality import Edit, aimed_at_their_own
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.numerics.next_tokens import least_token_log_prob
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.answers import names_of
from lrc_tl.relations.prompts import tokenize_prompt
from lrc_tl.relations.words import mentions
from lrc_tl.steering.generation import generate
from lrc_tl.steering.steering import Steering
from lrc_tl.tuning.strength_batches import map_logits

Success: TypeAlias = Callable[[HookedModel, Edit, Steering, Sequence[float]], Float[Tensor, " strength"]]
"""Margins of one edit at each of some strengths: above 0 is success, and below the margin at strength 0 (which is
always asked for too) is the wrong way. Batched strengths must give what single ones would."""


@numbers_checked
def target_beats_object(
    model: HookedModel, edit: Edit, steering: Steering, strengths: Sequence[float]
) -> Float[Tensor, " strength"]:
    """log p(o') - log p(o) after the edit's text, in nats: above 0 the target is the more probable.

    Each object is teacher-forced, its least probable token stands for it, and `where` sees its tokens as generated
    ones. It is the default success of `calibrate_strength` where the targets are not the texts' own objects.
    """
    least = {}
    for name in (edit.prompt.object, edit.target):
        tokens = tokenize_prompt(model, replace(edit.prompt, object=name))
        least[name] = map_logits(
            model,
            steering,
            tokens.input_ids,
            n_prompt=len(tokens.text_ids),
            strengths=strengths,
            reduce=partial(least_token_log_prob, token_ids=torch.tensor(tokens.object_ids, device=HOST)),
        ).double()
    return least[edit.target] - least[edit.prompt.object]


@numbers_checked
def object_named(*, within: int = 12, words: Mapping[str, Sequence[str]] | None = None) -> Success:
    """Success for free text: the greedy continuation names the target within `within` tokens.

    Margins are 1 and -1. `words` holds, for a target, further words that count as naming it, as do the aliases
    that the relation of the edit's prompt has for it. A name counts as a whole word, in the case given
    (`lrc_tl.relations.words.mentions`). The default success of `calibrate_strength` for `free_text_edits`.

    Raises:
        ValueError: `within` is below 1; or, when it is used, below the number of tokens of every such name.
    """
    if within < 1:
        raise ValueError(f"within is {within}; give 1 token or more")
    further = {target: as_tuple(names, f"words[{target!r}]", str) for target, names in (words or {}).items()}

    def named(
        model: HookedModel, edit: Edit, steering: Steering, strengths: Sequence[float]
    ) -> Float[Tensor, " strength"]:
        names = [*names_of(edit.prompt, edit.target), *further.get(edit.target, ())]
        least = min(_n_tokens(model, name) for name in names)
        if least > within:
            raise ValueError(
                f"{edit.target!r} has {least} tokens and can never be named within {within}; give a larger number"
            )
        continuations = generate(
            model, edit.prompt.text, steering=steering, strengths=list(strengths), max_new_tokens=within
        )
        return torch.tensor(
            [1.0 if any(mentions(each.text, name) for name in names) else -1.0 for each in continuations],
            device=HOST,
        )

    named.__name__ = f"object_named(within={within})"
    return named


def _n_tokens(model: HookedModel, name: str) -> int:
    """Tokens that it takes to say a name, with a space before it or without, whichever is less."""
    spellings = (name.strip(), f" {name.strip()}")
    return min(len(model.tokenizer(text, add_special_tokens=False)["input_ids"]) for text in spellings)


def success_for(edits: Sequence[Edit], given: Success | None) -> Success:
    """The success that is given, or that the kind of edit calls for.

    Raises:
        ValueError: some targets, but not all, are their text's own object, which no target can beat.
    """
    own_aims = aimed_at_their_own(edits)
    if given is None and own_aims and len(own_aims) == len(edits):
        return object_named()
    if own_aims and given in (None, target_beats_object):
        first = own_aims[0]
        raise ValueError(
            f"{len(own_aims)} of {len(edits)} edits have their text's own object as target, such as "
            f"{first.target!r} for {first.prompt.text!r}, and cannot beat it; give success=object_named() to look "
            "for it in the continuation, or edits towards other objects alone"
        )
    return given or target_beats_object
