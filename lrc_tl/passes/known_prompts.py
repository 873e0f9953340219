"""Which prompts the model answers correctly, and what it says to the others."""

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

import pandas as pd

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.markup.progress import ProgressBar, shows_progress
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.passes.answers import ExpectedAnswer, accepted_names, is_accepted, objects_of_relations, without_end
from lrc_tl.passes.batches import MAX_TOKENS, Hooks, logits_at
from lrc_tl.passes.displays import known_html, known_text
from lrc_tl.passes.residuals import PromptResiduals
from lrc_tl.passes.tracking import is_steered
from lrc_tl.relations.prompts import Prompt, spread_over_objects, tokenize_prompt


@dataclass(frozen=True, kw_only=True)
class DroppedPrompt:
    """A prompt that the model does not answer with its object."""

    prompt: Prompt
    answer: str
    """What greedy decoding gave instead."""

    @property
    def reason(self) -> str:
        """One line that says what was wanted and what came."""
        return f"wanted {self.prompt.object!r}, the model said {self.answer!r}"


@dataclass(frozen=True, kw_only=True)
class KnownPrompts(Sequence[Prompt]):
    """The prompts that a model answers correctly, in a seeded shuffled order, and the dropped ones.

    It is the sequence of these prompts itself, so that all that takes prompts takes it.
    """

    prompts: tuple[Prompt, ...]
    dropped: tuple[DroppedPrompt, ...]
    answers: tuple[str, ...] = ()
    """What greedy decoding gave for each of `prompts`, as far as it had to be decoded; empty: not recorded."""

    __repr__ = known_text
    _repr_html_ = known_html

    def __len__(self) -> int:
        return len(self.prompts)

    @overload
    def __getitem__(self, place: int) -> Prompt: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Prompt, ...]: ...
    def __getitem__(self, place: int | slice) -> Prompt | tuple[Prompt, ...]:
        return self.prompts[place]

    @numbers_checked
    def sample(self, n: int, *, seed: int = 0) -> tuple[Prompt, ...]:
        """At most `n` prompts, each object as often as every other as far as they go.

        Raises:
            ValueError: `n` is below 1, or no prompt is known.
        """
        if n < 1:
            raise ValueError(f"n is {n}; ask for at least one prompt")
        self.require_nonempty()
        return tuple(spread_over_objects(self.prompts, n, random.Random(seed)))

    def require_nonempty(self) -> None:
        """Fail where there is nothing to work with.

        Raises:
            ValueError: no prompt is known; the text shows some of the model's answers.
        """
        if not self.prompts:
            examples = (
                "; ".join(f"{entry.prompt.text!r}: {entry.reason}" for entry in self.dropped[:3]) or "none given"
            )
            raise ValueError(
                f"no known prompts: the model answered none of {len(self.dropped)} correctly "
                f"({examples}). Use other templates, more shots, another relation or a larger model"
            )

    def one_per_fact(self) -> "KnownPrompts":
        """The first known prompt of each fact, where facts were asked with several templates.

        Which template that is depends on the seed of `filter_known`, which shuffles the known prompts. A fact
        counts as known when at least one of its prompts is. `dropped` stays as it is, so it may hold other prompts
        of known facts.
        """
        first: dict[tuple[str, str], int] = {}
        for place, prompt in enumerate(self.prompts):
            first.setdefault((prompt.subject, prompt.object), place)
        return KnownPrompts(
            prompts=tuple(self.prompts[place] for place in first.values()),
            dropped=self.dropped,
            answers=tuple(self.answers[place] for place in first.values()) if self.answers else (),
        )

    def by_template(self) -> pd.DataFrame:
        """One row per template: kept, asked, and the share kept; a template of None is of prompts made by hand."""
        kept = Counter(prompt.template for prompt in self.prompts)
        asked = kept + Counter(entry.prompt.template for entry in self.dropped)
        rows = [
            {"template": template, "kept": kept[template], "asked": n, "share": kept[template] / n}
            for template, n in asked.items()
        ]
        return pd.DataFrame(rows, columns=["template", "kept", "asked", "share"])

    def report(self) -> str:
        """How many prompts were kept for each object, and what was said to the dropped ones.

        Also what the rule for word ends (`lrc_tl.relations.words`) changed against a plain one, by which the
        object's word ends where no letter, digit or underscore follows.
        """
        kept = Counter(prompt.object for prompt in self.prompts)
        dropped = Counter(entry.prompt.object for entry in self.dropped)
        lines = [f"{len(self.prompts)} of {len(self.prompts) + len(self.dropped)} prompts are answered correctly"]
        lines += [f"  {name}: {kept[name]} of {kept[name] + dropped[name]}" for name in sorted({*kept, *dropped})]
        lines += [f"  dropped {entry.prompt.subject!r}: {entry.reason}" for entry in self.dropped]
        for judged, pairs in (
            ("dropped that a plain rule for word ends would keep", self.dropped_by_rule),
            ("kept that a plain rule for word ends would drop", self.kept_by_rule),
        ):
            if pairs:
                examples = ", ".join(f"{answer!r} for {prompt.object!r}" for prompt, answer in pairs[:_EXAMPLES])
                lines.append(f"  {len(pairs)} {judged}: {examples}{' ...' if len(pairs) > _EXAMPLES else ''}")
        return "\n".join(lines)

    @property
    def dropped_by_rule(self) -> tuple[tuple[Prompt, str], ...]:
        """Dropped prompts with their answers, where no letter, digit or underscore follows the object."""
        pairs = ((entry.prompt, entry.answer) for entry in self.dropped)
        return tuple((prompt, answer) for prompt, answer in pairs if _plainly_answered(answer, prompt))

    @property
    def kept_by_rule(self) -> tuple[tuple[Prompt, str], ...]:
        """Kept prompts with their answers, where a letter follows the object or an accent is spelled otherwise."""
        pairs = zip(self.prompts, self.answers, strict=True) if self.answers else ()
        return tuple((prompt, answer) for prompt, answer in pairs if not _plainly_answered(answer, prompt))


_EXAMPLES = 5
"""How many answers `report` shows of a kind."""


def _plainly_answered(answer: str, prompt: Prompt) -> bool:
    names = [entry.name.strip() for entry in accepted_names(prompt, ())]
    return any(re.match(re.escape(name) + r"(?!\w)", answer.strip()) for name in names)


@shows_progress
@numbers_checked
def filter_known(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    seed: int = 0,
    max_tokens: int = MAX_TOKENS,
    whole_answers: bool = True,
    progress: bool = True,
) -> KnownPrompts:
    """The prompts whose greedy continuation is their object, and where the word ends there.

    The answer begins with the object, the word ends behind it (`lrc_tl.relations.words`: "Guinea-Bissau" is not
    "Guinea"), and no longer object of the relation is said. The relation's objects are those of the given prompts
    with the same `relation`, and their `relation_objects`. Case counts; white space around and the way in which an
    accent is spelled do not. An alias that the relation has for the object (`Relation.from_pairs`) counts as the
    object. As many tokens are decoded as the longest object needs that the answer may be, and
    two more, or fewer where fewer tell.

    A first batched pass runs each prompt with its object behind it, which gives the greedy token at every object
    position as long as the tokens agree; only prompts that fail there, or that it leaves open, are decoded on,
    token by token.

    Args:
        whole_answers: decode each wrong answer to its end, for `dropped`; else only as far as it may still be the
            object, which judges prompts alike in about half the time.

    Raises:
        ValueError: no prompts.
    """
    return _filtered(
        model, prompts, None, seed=seed, max_tokens=max_tokens, whole_answers=whole_answers, progress=progress
    )


def known_and_read(
    model: HookedModel, prompts: Sequence[Prompt], residuals: PromptResiduals | None, *, seed: int
) -> KnownPrompts:
    """`filter_known` without whole answers; its first pass leaves what `residuals` want of all the prompts.

    Not while a steering is on, for which a text with its object behind it is another text.
    """
    return _filtered(
        model,
        prompts,
        None if is_steered(model) else residuals,
        seed=seed,
        max_tokens=MAX_TOKENS,
        whole_answers=False,
        progress=False,
    )


def _filtered(
    model: HookedModel,
    prompts: Sequence[Prompt],
    residuals: PromptResiduals | None,
    *,
    seed: int,
    max_tokens: int,
    whole_answers: bool,
    progress: bool,
) -> KnownPrompts:
    prompts = as_tuple(prompts, "prompts", Prompt)
    if not prompts:
        raise ValueError("no prompts to filter; give at least one")
    objects = objects_of_relations(prompts)
    with ProgressBar("known prompts", total=len(prompts), progress=progress) as bar:
        answers = _greedy_answers(model, prompts, objects, residuals, max_tokens, whole_answers, bar)
    known, dropped = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        if is_accepted(answer, prompt, objects[prompt.relation]):
            known.append((prompt, answer.strip()))
        else:
            dropped.append(DroppedPrompt(prompt=prompt, answer=answer.strip()))
    random.Random(seed).shuffle(known)
    return KnownPrompts(
        prompts=tuple(prompt for prompt, _ in known),
        dropped=tuple(dropped),
        answers=tuple(answer for _, answer in known),
    )


def _greedy_answers(
    model: HookedModel,
    prompts: Sequence[Prompt],
    objects: Mapping[str, tuple[str, ...]],
    residuals: PromptResiduals | None,
    max_tokens: int,
    whole_answers: bool,
    bar: ProgressBar,
) -> list[str]:
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    expected = [ExpectedAnswer.of(model, tokens, objects[tokens.prompt.relation]) for tokens in tokenized]
    decoded: list[list[int]] = [[] for _ in prompts]
    # The guess is right at every position up to and including the first where greedy decoding leaves it.
    guesses = [list(tokens.object_ids) for tokens in tokenized]
    unfinished = list(range(len(prompts)))

    def reading(rows: list[int]) -> Hooks:
        return [] if residuals is None else residuals.hooks([tokenized[row] for row in rows])

    hooks_for: Callable[[list[int]], Hooks] | None = reading
    while unfinished:
        sequences = [[*tokenized[i].text_ids, *decoded[i], *guesses[i]] for i in unfinished]
        positions = [
            range(len(s) - len(guesses[i]) - 1, len(s)) for i, s in zip(unfinished, sequences, strict=True)
        ]
        passes = logits_at(model, sequences, positions, hooks_for=hooks_for, max_tokens=max_tokens)
        for number, logits in passes:
            row = unfinished[number]
            bar.advance(0 if decoded[row] else 1)  # nearly all of the time goes into each prompt's first pass
            greedy = logits.argmax(-1).tolist()
            right = next((i for i, guess in enumerate(guesses[row]) if guess != greedy[i]), len(guesses[row]))
            decoded[row] += greedy[: right + 1]
            guesses[row] = []
        hooks_for = None  # the first pass has read all prompts
        unfinished = [row for row in unfinished if not _told(model, expected[row], decoded[row], whole_answers)]
    return [model.tokenizer.decode(without_end(model, ids)) for ids in decoded]


def _told(model: HookedModel, expected: ExpectedAnswer, ids: list[int], whole_answers: bool) -> bool:
    verdict = expected.verdict(model, ids)
    if verdict is False and whole_answers:
        return model.tokenizer.eos_token_id in ids or len(ids) >= expected.n_tokens
    return verdict is not None
