"""Steered text with the numbers that go with it: probabilities, scores, and distance from the unsteered model."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.plain_numbers import real_numbers
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.errors import ModelError
from lrc_tl.markup.progress import ProgressBar
from lrc_tl.models.chat import Text, as_texts, is_one_chat
from lrc_tl.models.fingerprint import fingerprints_once
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.models.hooking import hooks_on, inside
from lrc_tl.models.own_draws import OwnDraws
from lrc_tl.numerics.next_tokens import kl_divergence, token_log_probs
from lrc_tl.numerics.precision import HOST, unit_of, wide_of
from lrc_tl.passes.batches import MAX_LOGITS, logits_at, whole_text_ids
from lrc_tl.passes.left_padded import generate_from
from lrc_tl.steering.continuations import Continuations
from lrc_tl.steering.displays import generated_html, generated_text
from lrc_tl.steering.finite_logits import finite_logits
from lrc_tl.steering.operations import Add, Amount, Clamp, Operation, Reflect
from lrc_tl.steering.steering import Steering, steer
from lrc_tl.turns import turn


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """One continuation of one prompt."""

    prompt: str
    strength: float | None
    """From `strengths`; None where the steering's own was taken."""
    text: str
    """The continuation alone, without special tokens."""
    token_ids: Int[Tensor, " new"]
    """Up to and with the end-of-sequence token, where it came."""
    log_probs: Float[Tensor, " new"]
    """Of each token under the steered model at temperature 1, in nats."""
    scores: Float[Tensor, "new steering"]
    """Of each token's own residual, after the steerings of its layer, along the vector that each steering reads
    (for a swap that of the concept that comes in), in residual-stream units. Where a direction writes with another
    vector it is its score, scale and offset included. NaN for an end-of-sequence token, which is not run."""
    kl: Float[Tensor, " new"]
    """KL(steered || unsteered) of the distribution that each token was taken from, in nats, on the same tokens."""
    tokens: tuple[str, ...] = ()
    """Each of `token_ids` as text."""
    instead: tuple[str, ...] = ()
    """What the unsteered model holds most likely in place of each token, behind the same text."""
    sample: int = 0
    """Which of the samples of its prompt and strength it is."""
    unsteered: str | None = None
    """What the unsteered model says on its own; None: not asked for (`generate(..., unsteered=True)`)."""

    @property
    def mean_kl(self) -> float:
        """Mean of `kl` over the tokens, in nats; NaN without tokens."""
        return float(self.kl.mean())

    @property
    def changed(self) -> tuple[int, ...]:
        """Places of the tokens in place of which the unsteered model would have said another."""
        pairs = zip(self.tokens, self.instead, strict=False)  # both empty, or `instead` not recorded
        return tuple(place for place, (token, other) in enumerate(pairs) if token != other)

    __repr__ = generated_text
    _repr_html_ = generated_html


@runtime_checkable
class SteersByStrength(Protocol):
    """A direction: it makes a steering from a strength."""

    @property
    def hook_name(self) -> str:
        """Where it acts."""
        ...

    def add(self, *, strength: Amount) -> Steering:
        """Steering that adds it."""
        ...


@numbers_checked
@fingerprints_once()
def generate(
    model: HookedModel,
    prompts: Text | Sequence[Text],
    *,
    steering: Steering | SteersByStrength | Sequence[Steering] = (),
    strengths: Sequence[float | None] | None = None,
    max_new_tokens: int = 20,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    n_samples: int = 1,
    seed: int = 0,
    unsteered: bool = False,
    progress: bool = True,
) -> Continuations:
    """Continuations of every prompt, and with `strengths` of every prompt at every strength, prompts outermost.

    A prompt is a text, or the messages of a chat, as `lrc_tl.models.chat_text` puts them; a last message of the
    assistant is gone on with. All rows run as left-padded batches, so a sweep over strengths is about one
    generation. `strengths` replaces the strength of the one `Add`, or the beta of the one `Swap`, in `steering`,
    and where there is neither, the value of the one `Clamp`; a None among them keeps the steering's own.
    `steering` may be a direction, which is added at the `strengths`. Where `steering` gives amounts or positions
    by row, a row is a prompt. Text is greedy at temperature 0, else sampled with `seed` from one stream for all
    rows, whatever other threads draw, `n_samples` times, from the `top_k` likeliest tokens and the likeliest that
    hold `top_p` of the probability. A sampled row depends on the rows beside it, a greedy one does not. The global
    random state is not touched.

    With `unsteered` each result also holds what the model says without steering, and shows it beside: one more
    generation for each prompt, or for each row where text is sampled, with the same draws. The results are a tuple
    that shows itself as a table and gives `to_frame`.

    Raises:
        TypeError: a strength is no number.
        ValueError: no prompts or an empty one, more tokens than the context has, no tokenizer, bad numbers,
            sampling options at temperature 0, a direction without `strengths`, `strengths` without exactly one
            Add, Swap or Clamp to apply them to, logits that are not finite, or a text that HookedTransformer takes
            for padding.
        ModelError: a model of which TransformerLens gives no logits with its tokens (Mamba).
    """
    one = isinstance(prompts, str) or is_one_chat(prompts)
    texts = as_texts(model, cast(Sequence[Text], [prompts] if one else prompts), "prompts")
    steerings = _given_steerings(steering, strengths)
    if strengths is not None:
        strengths = as_tuple(strengths, "strengths")
        numbers = real_numbers([0.0 if given is None else given for given in strengths], "strengths")
        strengths = [None if given is None else n for given, n in zip(strengths, numbers, strict=True)]
    if not texts or not all(text.strip() for text in texts):
        raise ValueError("a prompt is empty, or there are none; give at least one text")
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer, so text cannot be generated; use model.generate with tokens")
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise ValueError(
            f"max_new_tokens is {max_new_tokens} and temperature {temperature}; the first must be 1 or more, the "
            "second a finite number from 0"
        )
    sampling = _sampling(temperature=temperature, top_k=top_k, top_p=top_p, n_samples=n_samples)
    sequences = [whole_text_ids(model, text, n_more=max_new_tokens) for text in texts]
    adjustable = [each for each in steerings if _is_adjustable(each, steerings)]
    if strengths is not None and (len(adjustable) != 1 or not len(strengths)):
        raise ValueError(
            f"{len(strengths)} strengths for {len(adjustable)} steerings that add, swap or clamp; give one or "
            "more, and exactly one such steering (amounts may also be a tensor with one for each prompt)"
        )
    swept: Sequence[float | None] = [None] if strengths is None else strengths
    rows = [
        _Row(prompt=number, strength=strength, sample=sample)
        for number in range(len(texts))
        for strength in swept
        for sample in range(n_samples)
    ]
    # Three times over for a moment.
    size = max(1, MAX_LOGITS // ((max_new_tokens + 1) * int(model.cfg.d_vocab)))
    continuations: list[Generated] = []
    bar = ProgressBar("continuations", total=len(rows), progress=progress)
    with OwnDraws(seed) if temperature else nullcontext(), torch.no_grad(), bar:
        for start in range(0, len(rows), size):
            batch = rows[start : start + size]
            lengths = [len(ids) for ids in sequences]
            by_row = [
                _for_rows(each, batch, lengths, swept=any(each is other for other in adjustable))
                for each in steerings
            ]
            prompt_ids = [sequences[row.prompt] for row in batch]
            continuations.extend(
                _generate_batch(model, texts, batch, prompt_ids, by_row, max_new_tokens, sampling)
            )
            bar.advance(len(batch))
    if unsteered:
        # As many rows as the steered ones where text is sampled, so that the draws are the same.
        repeats = len(swept) if temperature else 1
        plain = generate(
            model, [text for text in texts for _ in range(repeats)], max_new_tokens=max_new_tokens,
            temperature=temperature, top_k=top_k, top_p=top_p, n_samples=n_samples, seed=seed,
            progress=progress,
        )  # fmt: skip
        alone = [result.text for result in plain for _ in range(len(swept) // repeats)]
        continuations = [replace(one, unsteered=text) for one, text in zip(continuations, alone, strict=True)]
    return Continuations(continuations)


class _Row(NamedTuple):
    """What a row of a batch continues, and how."""

    prompt: int
    strength: float | None
    sample: int


def _given_steerings(
    given: Steering | SteersByStrength | Sequence[Steering], strengths: Sequence[float | None] | None
) -> tuple[Steering, ...]:
    if isinstance(given, SteersByStrength):
        if strengths is None or any(strength is None for strength in strengths):
            raise ValueError(
                "steering is a direction, which has no strength of its own; give strengths=[0.03], or "
                "steering=direction.add(strength=0.03)"
            )
        return (given.add(strength=0.0),)
    return as_tuple([given] if isinstance(given, Steering) else given, "steering", Steering)


def _is_adjustable(steering: Steering, beside: Sequence[Steering]) -> bool:
    """Whether strengths are meant for it: what adds or swaps, or else what clamps."""
    if any(other.operation.has_strength for other in beside):
        return steering.operation.has_strength
    return steering.operation.amount is not None


def _sampling(
    *, temperature: float, top_k: int | None, top_p: float | None, n_samples: int
) -> dict[str, float | bool | None]:
    """How `generate_from` takes a token."""
    if n_samples < 1 or (top_k is not None and top_k < 1) or (top_p is not None and not 0 < top_p <= 1):
        raise ValueError(
            f"n_samples is {n_samples}, top_k {top_k} and top_p {top_p}; the first two must be 1 or more, the "
            "last above 0 and at most 1"
        )
    if not temperature and (n_samples > 1 or top_k is not None or top_p is not None):
        raise ValueError("top_k, top_p and n_samples are for sampled text; give temperature=1.0 with them")
    return {"do_sample": temperature > 0, "temperature": temperature or 1.0, "top_k": top_k, "top_p": top_p}


def _for_rows(steering: Steering, rows: Sequence[_Row], lengths: Sequence[int], *, swept: bool) -> Steering:
    """The steering with what it gives by prompt, and where it is `swept` the strengths, by row.

    `lengths` are the prompts'.
    """
    numbers = [row.prompt for row in rows]
    operation, amount = steering.operation, steering.operation.amount
    if amount is not None:
        if isinstance(amount, Tensor) and amount.ndim == 1:
            amount = _by_row(amount, numbers, len(lengths), "an amount of the steering")
        if swept and any(row.strength is not None for row in rows):
            own_strengths = torch.as_tensor(amount, dtype=torch.float64, device=HOST).expand(len(rows)).tolist()
            amount = torch.tensor(
                [
                    own if row.strength is None else row.strength
                    for row, own in zip(rows, own_strengths, strict=True)
                ],
                dtype=torch.float64,
                device=HOST,
            )
        operation = operation.with_amount(amount)
    where = steering.where
    if isinstance(where, Tensor):
        widest = max(lengths)
        if where.shape != (len(lengths), widest):
            raise ValueError(
                f"the mask for `where` has shape {tuple(where.shape)}, but must have that of the padded prompts, "
                f"here ({len(lengths)}, {widest})"
            )
        # The batch is padded to the longest of its own prompts, on the left.
        where = where[numbers][:, widest - max(lengths[number] for number in numbers) :]
    elif isinstance(where, Sequence) and not isinstance(where, str):
        where = _by_row(torch.tensor(list(where), device=HOST), numbers, len(lengths), "`where`").tolist()
    return replace(steering, operation=operation, where=where)


def _by_row(values: Tensor, numbers: list[int], n_prompts: int, name: str) -> Tensor:
    if len(values) != n_prompts:
        raise ValueError(
            f"{name} holds {len(values)} rows, but there are {n_prompts} prompts; give one row per prompt"
        )
    return values[numbers]


def _generate_batch(
    model: HookedModel,
    texts: Sequence[str],
    rows: Sequence[_Row],
    sequences: Sequence[Sequence[int]],
    steerings: Sequence[Steering],
    max_new_tokens: int,
    sampling: Mapping[str, float | bool | None],
) -> Iterator[Generated]:
    read: list[list[Tensor]] = [[] for _ in steerings]

    def reading(number: int) -> Any:
        operation = steerings[number].operation

        # The last position of a pass is the newest token, with and without a cache.
        def read_score(residual: Tensor, hook: Any) -> None:
            read[number].append(_score(operation, wide_of(residual[:, -1])).cpu())

        return steerings[number].hook_name, read_score

    eos = model.tokenizer.eos_token_id
    hooks = [reading(number) for number in range(len(steerings))]
    prompts = [texts[row.prompt] for row in rows]

    def work() -> Any:
        # One token more than asked for: only so is the last one run, and its score known.
        return generate_from(
            model, sequences, max_new_tokens=max_new_tokens + 1, stop_at_eos=eos is not None, eos_token_id=eos,
            output_logits=True, **sampling,
        )  # fmt: skip

    with turn(model):
        checked_work = partial(inside, finite_logits(model, prompts), work)
        reading_scores = partial(inside, hooks_on(model, hooks), checked_work)
        output = inside(steer(model, steerings), reading_scores) if steerings else reading_scores()
    if not hasattr(output, "logits"):
        kind = type(getattr(model, "original_model", model)).__name__
        raise ModelError(
            f"TransformerLens's generate of a {kind} gives no logits with its tokens, which lrc.generate "
            "needs; use model.generate(..., use_past_kv_cache=False) inside the block of a steering"
        )
    steps = len(output.logits)
    ids = output.sequences[:, -steps:].cpu()
    log_probs = torch.stack([wide_of(step).log_softmax(-1).cpu() for step in output.logits], dim=1)
    # The first reading is of the last prompt token; what comes after a row's end is not its own.
    by_steering = [torch.stack(scores_read, dim=1)[:, 1:] for scores_read in read]
    scores = torch.stack(by_steering, dim=-1) if read else torch.zeros(len(rows), steps - 1, 0, device=HOST)
    lengths = [_length(row.tolist(), eos, max_new_tokens) for row in ids]
    if steerings:
        kl, instead = _beside_unsteered(model, sequences, ids, log_probs, lengths)
    else:
        kl = [torch.zeros(n, device=HOST) for n in lengths]
        instead = [log_probs[row, :n].argmax(-1) for row, n in enumerate(lengths)]
    for row, asked in enumerate(rows):
        n = lengths[row]
        new_ids = ids[row, :n]
        ended = int(new_ids[-1] == eos)
        unknown = scores.new_full((ended, scores.shape[-1]), float("nan"))
        yield Generated(
            prompt=texts[asked.prompt],
            strength=asked.strength,
            sample=asked.sample,
            text=model.tokenizer.decode(new_ids.tolist(), skip_special_tokens=True),
            token_ids=new_ids,
            log_probs=token_log_probs(log_probs[row, :n], new_ids),
            scores=torch.cat([scores[row, : n - ended], unknown]),
            kl=kl[row],
            tokens=_as_text(model, new_ids),
            instead=_as_text(model, instead[row]),
        )


def _score(operation: Operation, newest: Tensor) -> Tensor:
    """What the operation reads in one residual per row."""
    if isinstance(operation, Add | Clamp | Reflect) and operation.dual is not None:
        return operation.score(newest[:, None])[:, 0]
    return newest @ unit_of(operation.vector, newest)


def _length(ids: list[int], eos: int | None, most: int) -> int:
    end = ids.index(eos) + 1 if eos in ids else len(ids)
    return min(end, most)


def _as_text(model: HookedModel, ids: Tensor) -> tuple[str, ...]:
    return tuple(model.tokenizer.decode([token]) for token in ids.tolist())


def _beside_unsteered(
    model: HookedModel,
    sequences: Sequence[Sequence[int]],
    ids: Tensor,
    log_probs: Tensor,
    lengths: Sequence[int],
) -> tuple[list[Tensor], list[Tensor]]:
    """For each row and new token the KL divergence to the unsteered model, and that model's likeliest token."""
    whole = [[*prompt_ids, *ids[row, : lengths[row] - 1].tolist()] for row, prompt_ids in enumerate(sequences)]
    starts = [len(prompt_ids) - 1 for prompt_ids in sequences]
    positions = [list(range(start, start + n)) for start, n in zip(starts, lengths, strict=True)]
    kl: list[Tensor] = [torch.zeros(0, device=HOST)] * len(sequences)
    instead: list[Tensor] = [torch.zeros(0, dtype=torch.long, device=HOST)] * len(sequences)
    for row, logits in logits_at(model, whole, positions):
        steered, plain = log_probs[row, : lengths[row]], wide_of(logits).log_softmax(-1).cpu()
        kl[row], instead[row] = kl_divergence(steered, plain), plain.argmax(-1)
    return kl, instead
