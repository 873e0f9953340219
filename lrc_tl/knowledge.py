"""Which prompts the model answers correctly, and what it says to the others."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from lrc_tl.forward import MAX_TOKENS, logits_at
from lrc_tl.models import HookedModel
from lrc_tl.no_booleans import no_booleans
from lrc_tl.prompts import Prompt, spread_over_objects, tokenize_prompt


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
class KnownPrompts:
    """The prompts that a model answers correctly, in a seeded shuffled order, and the dropped ones."""

    prompts: tuple[Prompt, ...]
    dropped: tuple[DroppedPrompt, ...]

    @no_booleans
    def sample(self, n: int, *, seed: int = 0) -> tuple[Prompt, ...]:
        """At most `n` prompts, each object as often as every other as far as they go.

        Raises:
            ValueError: `n` is below 1, or no prompt is known.
        """
        if n < 1:
            raise ValueError(f"n is {n}; ask for at least one prompt")
        self.require_some()
        return tuple(spread_over_objects(self.prompts, n, random.Random(seed)))

    def require_some(self) -> None:
        """Fail where there is nothing to work with.

        Raises:
            ValueError: no prompt is known; the text shows some of the model's answers.
        """
        if not self.prompts:
            shown = "; ".join(f"{d.prompt.text!r}: {d.reason}" for d in self.dropped[:3])
            raise ValueError(
                f"no known prompts: the model answered none of {len(self.dropped)} correctly "
                f"({shown or 'none given'}). Use other templates, more shots, another relation or a larger model"
            )

    def report(self) -> str:
        """How many prompts were kept for each object, and what was said to the dropped ones."""
        kept = Counter(prompt.object for prompt in self.prompts)
        dropped = Counter(entry.prompt.object for entry in self.dropped)
        lines = [f"{len(self.prompts)} of {len(self.prompts) + len(self.dropped)} prompts are answered correctly"]
        lines += [f"  {name}: {kept[name]} of {kept[name] + dropped[name]}" for name in sorted({*kept, *dropped})]
        lines += [f"  dropped {entry.prompt.subject!r}: {entry.reason}" for entry in self.dropped]
        return "\n".join(lines)


@no_booleans
def filter_known(
    model: HookedModel,
    prompts: Sequence[Prompt],
    *,
    seed: int = 0,
    max_tokens: int = MAX_TOKENS,
    whole_answers: bool = True,
) -> KnownPrompts:
    """The prompts whose greedy continuation is their object, followed by a non-word character or the end.

    One token more than the object's is decoded; case counts, white space around does not. A first batched pass
    runs each prompt with its object behind it, which gives the greedy token at every object position as long as
    the tokens agree; only prompts that fail there are decoded on, token by token.

    Args:
        whole_answers: decode each answer to its end, for `dropped`; else only as far as it may still be the
            object, which judges prompts alike in about half the time.

    Raises:
        ValueError: no prompts.
    """
    if not prompts:
        raise ValueError("no prompts to filter; give at least one")
    answers = _greedy_answers(model, prompts, max_tokens, whole_answers)
    known, dropped = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        if is_answer(answer, prompt.object):
            known.append(prompt)
        else:
            dropped.append(DroppedPrompt(prompt=prompt, answer=answer.strip()))
    random.Random(seed).shuffle(known)
    return KnownPrompts(prompts=tuple(known), dropped=tuple(dropped))


def is_answer(text: str, object_name: str) -> bool:
    """Whether a continuation begins with the object, followed by a non-word character or the end."""
    return re.match(re.escape(object_name) + r"(?!\w)", text.strip()) is not None


def one_prompt_a_fact(known: KnownPrompts) -> KnownPrompts:
    """The first known prompt of each fact, where facts were asked with several templates.

    Which template that is depends on the seed of `filter_known`, which shuffles the known prompts. A fact counts
    as known when at least one of its prompts is. `dropped` stays as it is, so it may hold other prompts of known
    facts.
    """
    first: dict[tuple[str, str], Prompt] = {}
    for prompt in known.prompts:
        first.setdefault((prompt.subject, prompt.object), prompt)
    return KnownPrompts(prompts=tuple(first.values()), dropped=known.dropped)


def _greedy_answers(
    model: HookedModel, prompts: Sequence[Prompt], max_tokens: int, whole_answers: bool
) -> list[str]:
    tokenized = [tokenize_prompt(model, prompt) for prompt in prompts]
    wanted = [len(tokens.object_ids) + 1 for tokens in tokenized]
    decoded: list[list[int]] = [[] for _ in prompts]
    # The guess is right at every position up to and including the first where greedy decoding leaves it.
    guesses = [list(tokens.object_ids) for tokens in tokenized]
    unfinished = list(range(len(prompts)))
    while unfinished:
        sequences = [[*tokenized[i].text_ids, *decoded[i], *guesses[i]] for i in unfinished]
        positions = [
            range(len(s) - len(guesses[i]) - 1, len(s)) for i, s in zip(unfinished, sequences, strict=True)
        ]
        for number, logits in logits_at(model, sequences, positions, max_tokens=max_tokens):
            row = unfinished[number]
            greedy = logits.argmax(-1).tolist()
            right = next((i for i, guess in enumerate(guesses[row]) if guess != greedy[i]), len(guesses[row]))
            decoded[row] += greedy[: right + 1]
            guesses[row] = []
        unfinished = [
            row
            for row in unfinished
            if not _finished(model, decoded[row], wanted[row])
            and (whole_answers or _may_become(model, decoded[row], prompts[row].object.strip()))
        ]
    return [model.tokenizer.decode(without_end(model, ids)) for ids in decoded]


def _may_become(model: HookedModel, ids: list[int], object_name: str) -> bool:
    # Half a character decodes to a replacement mark until its other bytes come.
    text = model.tokenizer.decode(ids).strip().rstrip("\ufffd")
    return bool(text.startswith(object_name) or object_name.startswith(text))


def _finished(model: HookedModel, ids: list[int], wanted: int) -> bool:
    return len(ids) >= wanted or (bool(ids) and ids[-1] == model.tokenizer.eos_token_id)


def without_end(model: HookedModel, ids: list[int]) -> list[int]:
    """The tokens before the first end-of-sequence token."""
    end = model.tokenizer.eos_token_id
    return ids[: ids.index(end)] if end in ids else ids
