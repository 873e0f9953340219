"""The passes of one wish: what probe and model say of a text, unedited and edited, and at every strength."""

import math
from collections.abc import Callable
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.token_scores import decoded
from lrc_tl.errors import PositionError
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import Block, inside
from lrc_tl.numerics.next_tokens import least_token_log_prob
from lrc_tl.numerics.precision import HOST, wide_of
from lrc_tl.passes.answers import ExpectedAnswer
from lrc_tl.passes.batches import kept_residuals, logits_at, whole_text_ids
from lrc_tl.relations.prompts import TokenizedPrompt, subject_tokens, tokenize_prompt
from lrc_tl.relations.special_tokens import special_ids
from lrc_tl.steering.generation import Generated, generate
from lrc_tl.steering.steering import Steering, steer
from lrc_tl.tuning.neutral_effects import neutral_effects
from lrc_tl.tuning.strength_batches import as_if_generated, continuations, map_logits
from lrc_tl.views.explorer_wish import Wish, WishError

STRENGTHS = tuple(10 ** (step / 4 - 4) for step in range(17))
"""1e-4 to 1, four steps to a factor of 10."""
MOST_OBJECTS = 30
"""Objects that are shown: those that read highest in the unedited text, and those of the edit."""

Made = TypeVar("Made")


class _Written(NamedTuple):
    generated: Generated
    scores: Tensor
    """Of every token, the prompt's and the new ones, by concept."""


class TextPasses:
    """Runs the model on the text of a wish. `remember(key, make)` keeps what other wishes on the text share."""

    def __init__(
        self,
        model: HookedModel,
        concepts: ConceptSet,
        wish: Wish,
        *,
        remember: Callable[[tuple[Any, ...], Callable[[], Any]], Any],
    ) -> None:
        self._model, self._concepts, self._wish, self._remember = model, concepts, wish, remember
        self._names = list(concepts)
        try:
            whole_text_ids(model, wish.text, n_more=wish.n_tokens + 1)  # one more is run for its score
        except ValueError as error:
            raise WishError(str(error), field="text") from error
        self._steering = wish.steering(model, concepts)

    @cached_property
    def _text(self) -> tuple[tuple[int, ...], int]:
        return subject_tokens(self._model, self._wish.prompt_for(self._names[0]))

    def _steered(self, edited: bool, n_prompt: int, work: Callable[[], Made]) -> Made:
        if not edited or self._steering is None:
            return work()
        return inside(steer(self._model, [as_if_generated(self._steering, n_prompt)]), work)

    def reading(self, *, edited: bool) -> dict[str, Any]:
        """`objects`, each with its `name`, its probe's `score` at the subject, and its probability `p`.

        `p` is that of its least probable token behind the text, teacher-forced; None where it cannot be told apart
        from the text. Highest score first in the unedited text, and the same objects in the same order after it.
        `subject` is the token that the probe reads, `left_out` how many objects are not shown.
        """
        plain = self._remember(("scores",), partial(self._scores_at_subject, edited=False))
        scores = self._scores_at_subject(edited=True) if edited else plain
        order = sorted(range(len(plain)), key=lambda place: -plain[place])
        edit = {self._wish.remove, self._wish.add} - {None}
        shown = [place for at, place in enumerate(order) if at < MOST_OBJECTS or self._names[place] in edit]
        names = tuple(self._names[place] for place in shown)
        if edited:
            chances = self._probabilities(names, edited=True)
        else:
            chances = self._remember(("p", names), partial(self._probabilities, names, edited=False))
        ids, position = self._text
        return {
            "subject": decoded(self._model.tokenizer, torch.tensor(ids[position : position + 1], device=HOST))[0],
            "objects": [
                {"name": self._names[place], "score": _finite(scores[place]), "p": chances[self._names[place]]}
                for place in shown
            ],
            "left_out": len(order) - len(shown),
        }

    def _scores_at_subject(self, *, edited: bool) -> list[float]:
        ids, position = self._text
        scores: list[float] = self._scores(ids, len(ids), edited=edited)[position].tolist()
        return scores

    def _scores(self, ids: tuple[int, ...], n_prompt: int, *, edited: bool) -> Tensor:
        """Scores of every concept for each of these tokens, of which the first `n_prompt` are the text's."""
        name = self._concepts.hook_name

        def read() -> Tensor:
            kept = kept_residuals(self._model, [ids], [name], read=lambda _, residual: wide_of(residual[0]))
            return self._concepts.scores(kept[name]).detach().cpu()

        return self._steered(edited, n_prompt, read)

    def _tokenized(self, name: str) -> TokenizedPrompt:
        prompt = self._wish.prompt_for(name, self._concepts)
        tokens: TokenizedPrompt = self._remember(("tokens", name), partial(tokenize_prompt, self._model, prompt))
        return tokens

    def _probabilities(self, names: tuple[str, ...], *, edited: bool) -> dict[str, float | None]:
        tokens: dict[str, TokenizedPrompt] = {}
        for name in names:
            try:
                prompt = self._wish.prompt_for(name, self._concepts)
                tokens[name] = tokenize_prompt(self._model, prompt)
            except PositionError:  # its tokens run into those of the text: shown as a dash
                continue
        # Objects whose tokens before the last are the same need one row.
        rows = list(dict.fromkeys(one.input_ids for one in tokens.values()))
        n_prompt = len(self._text[0])
        positions = [range(n_prompt - 1, len(row)) for row in rows]

        def run() -> dict[tuple[int, ...], Tensor]:
            passes = logits_at(self._model, rows, positions)
            return {rows[row]: wide_of(logits).log_softmax(-1).cpu() for row, logits in passes}

        log_probs = self._steered(edited, n_prompt, run) if rows else {}
        chances: dict[str, float | None] = dict.fromkeys(names)
        for name, one in tokens.items():
            ids = torch.tensor(one.object_ids, device=HOST)
            chances[name] = math.exp(float(least_token_log_prob(log_probs[one.input_ids], ids)))
        return chances

    def continuation(self, *, edited: bool, said: Callable[[str, int], None]) -> dict[str, Any]:
        """The text and what the model says after it, greedily, by token, with the scores of the edit's concepts.

        `said(text, n)` is told after each new token. `prompt` and `new` are tokens, `special` the places of those
        that stand for no words, `read_at` that of the subject; `shades` holds, for the concepts of the edit (or
        the highest one), a score for each token; `changed` says where the unedited model would have said another
        token behind the same text, `instead` which; `kl` is the mean KL(edited || unedited) of the new tokens.
        """
        write = partial(self._written, edited=edited, said=said)
        written = write() if edited else self._remember(("text", self._wish.n_tokens), write)
        generated, scores = written
        ids, position = self._text
        special = special_ids(self._model.tokenizer)
        whole = (*ids, *generated.token_ids.tolist())
        names = [name for name in (self._wish.add, self._wish.remove) if name is not None]
        names = names or [self._names[int(scores[position].argmax())]]
        return {
            "prompt": list(decoded(self._model.tokenizer, torch.tensor(ids, device=HOST))),
            "new": list(generated.tokens),
            "special": [place for place, token in enumerate(whole) if token in special],
            "read_at": position,
            "shades": {name: list(map(_finite, scores[:, self._names.index(name)].tolist())) for name in names},
            "instead": list(generated.instead),
            "changed": [one != other for one, other in zip(generated.tokens, generated.instead, strict=True)],
            "kl": _finite(float(generated.kl.mean())) if edited else None,
            "text": generated.text,
        }

    def _written(self, *, edited: bool, said: Callable[[str, int], None]) -> _Written:
        tokenizer, n_tokens = self._model.tokenizer, self._wish.n_tokens
        new: list[int] = []

        def listen(module: Any, args: Any, logits: Tensor | None) -> None:
            if logits is None or len(new) >= n_tokens or tokenizer.eos_token_id in new:
                return  # a token more is run for its score, and the text once more for the unedited model's
            new.append(int(logits[0, -1].argmax()))
            said(tokenizer.decode(new, skip_special_tokens=True), len(new))

        steering: Steering | tuple[()] = self._steering if edited and self._steering is not None else ()
        unembed = self._model.unembed  # type: ignore[attr-defined]
        block = Block(lambda session: session.watch_output(unembed, listen))
        work = partial(generate, self._model, self._wish.text, steering=steering, max_new_tokens=n_tokens)
        (generated,) = inside(block, work)
        ids = self._text[0]
        whole = (*ids, *generated.token_ids.tolist())
        return _Written(generated, self._scores(whole, len(ids), edited=edited))

    @property
    def _curve_key(self) -> tuple[Any, ...]:
        wish = self._wish
        return wish.remove, wish.add, wish.place, wish.layers, wish.first_layer, wish.last_layer

    @property
    def _sign(self) -> int:
        return 1 if self._wish.add is not None else -1

    def curve(self) -> dict[str, Any]:
        """`strengths`, and for the objects of the edit their probabilities `p` at each and `p_unedited`."""

        def make() -> dict[str, Any]:
            assert self._steering is not None
            p: dict[str, list[float]] = {}
            for name in (self._wish.remove, self._wish.add):
                if name is None:
                    continue
                tokens = self._tokenized(name)
                ids = torch.tensor(tokens.object_ids, device=HOST)
                reduce = partial(least_token_log_prob, token_ids=ids)
                least = map_logits(
                    self._model, self._steering, tokens.input_ids, n_prompt=len(tokens.text_ids),
                    strengths=[0.0, *self._signed], reduce=reduce,
                )  # fmt: skip
                p[name] = least.double().exp().tolist()
            return {
                "remove": self._wish.remove,
                "add": self._wish.add,
                "strengths": list(STRENGTHS),
                "p": {name: list(map(_finite, values[1:])) for name, values in p.items()},
                "p_unedited": {name: _finite(values[0]) for name, values in p.items()},
                "says": None,
                "kl": None,
            }

        curve: dict[str, Any] = self._remember(("curve", *self._curve_key), make)
        return curve

    @property
    def _signed(self) -> list[float]:
        return [self._sign * strength for strength in STRENGTHS]

    def with_answers(self, curve: dict[str, Any]) -> dict[str, Any]:
        """The curve with `says`: at each strength, whether the model itself says the object that comes in.

        It is judged as `filter_known` judges answers. Where nothing comes in, it is whether the model no longer
        says the object that goes. `first` is the smallest strength with success; None: there is none.
        """

        def make() -> list[bool]:
            assert self._steering is not None
            aimed = self._wish.add or self._wish.remove
            assert aimed is not None
            tokens = self._tokenized(aimed)
            expected = ExpectedAnswer.of(self._model, tokens, self._names)
            rows = continuations(
                self._model, self._steering, tokens.text_ids, strengths=self._signed, n_new=expected.most_tokens
            )
            named = [bool(expected.verdict(self._model, row, complete=True)) for row in rows]
            return named if self._wish.add is not None else [not said for said in named]

        says = self._remember(("says", *self._curve_key), make)
        first = next((strength for strength, yes in zip(STRENGTHS, says, strict=True) if yes), None)
        return {**curve, "says": says, "first": first}

    def side_effect(self, text: str) -> list[float]:
        """At each strength the mean KL(edited || unedited) of the next token on another text, nats per token."""

        def make() -> list[float]:
            assert self._steering is not None
            signed = self._signed
            effects = neutral_effects(self._model, [self._steering], [text], strengths=signed, new_tokens=None)
            return [max(effect.kl, 0.0) for effect in effects]

        values: list[float] = self._remember(("kl", text, *self._curve_key), make)
        return values


def _finite(value: float) -> float | None:
    """The number as JSON takes it."""
    return value if math.isfinite(value) else None
