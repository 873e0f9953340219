"""Which absolute positions a forward pass is on.

A hook sees a chunk of residual stream and not where it stands: under a key-value cache `generate` runs the prompt
first and then one token at a time, without one it runs the whole sequence again, and left padding shifts rows
against each other. `track_positions` reads what the model itself is told in each pass: the length of its cache and
its attention mask. Where that does not settle an answer, it is refused rather than guessed.
"""

import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from lrc_tl.following import follow_generation, generation_of
from lrc_tl.hooking import Session
from lrc_tl.models import HookedModel
from lrc_tl.positions import Chunk

_tracked: ContextVar[tuple[tuple[Session, HookedModel], ...]] = ContextVar("lrc_tl_tracked", default=())


class _Tracker(threading.local):
    """Follows the forward passes of one model while a steering is on.

    Local to the thread: where other threads take part in the block's context, each has passes of its own.
    """

    def __init__(self, model: HookedModel) -> None:
        self._model: Any = model
        self._tokenizer = model.tokenizer
        self._embedded: Tensor | None = None
        self._visited: set[int] = set()
        self._sequence: Tensor | None = None  # ids of everything up to the last pass
        self._told: tuple[int, int, Any] | None = None
        self._chunk: Chunk | None = None
        self._may_go_on = False  # the pass fills a cache, from which another may go on

    def watch(self, session: Session, layers: Sequence[int]) -> None:
        if hasattr(type(self._model), "original_model"):  # a TransformerBridge
            session.watch(self._model.original_model, self._before_bridge)
        else:
            session.watch(self._model.embed, self._before_embed)
            for layer in sorted(set(layers)):
                session.watch(self._model.blocks[layer], self._before_block(layer))
        follow_generation(self._model, session)

    @property
    def _generating(self) -> "dict[str, int | None] | None":
        return generation_of(self._model)

    def chunk(self, residual: Tensor) -> Chunk:
        chunk = self._chunk
        if chunk is None or chunk.index.shape != residual.shape[:2]:
            shape = None if chunk is None else tuple(chunk.index.shape)
            raise ValueError(
                f"a hook saw residuals of shape {tuple(residual.shape)} in a pass over positions of shape "
                f"{shape}; the hook point must hold one vector for each token (batch, pos, d_model)"
            )
        return chunk

    def _before_bridge(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        tokens = args[0] if args else kwargs.get("input_ids")
        given = tokens if tokens is not None else kwargs.get("inputs_embeds")
        if not isinstance(given, Tensor):
            raise ValueError("steering needs a model that is given tokens or embeddings of text")
        cache = kwargs.get("past_key_values")
        offset = 0 if cache is None else int(cache.get_seq_length())
        self._may_go_on = cache is not None or bool(kwargs.get("use_cache"))
        self._chunk = self._make(offset, given.shape[1], kwargs.get("attention_mask"), tokens, given)

    def _before_embed(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._embedded = args[0] if args else kwargs["tokens"]
        self._visited.clear()
        self._chunk = None

    def _before_block(self, layer: int) -> Callable[..., None]:
        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            residual = args[0] if args else kwargs["resid_pre"]
            entry, mask = kwargs.get("past_kv_cache_entry"), kwargs.get("attention_mask")
            offset = 0 if entry is None else int(entry.past_keys.shape[1])
            self._require_right_positions(offset, mask)
            if layer in self._visited:  # a second pass, and nothing was embedded for it
                self._embedded = None
                self._visited.clear()
                self._chunk = None
            self._visited.add(layer)
            told = (offset, residual.shape[1], mask)
            same = self._told is not None and told[:2] == self._told[:2] and mask is self._told[2]
            if self._chunk is not None and same:
                return
            self._told = told
            self._may_go_on = entry is not None
            ids = self._embedded_ids(offset, residual.shape[0], residual.shape[1])
            self._chunk = self._make(offset, residual.shape[1], mask, ids, residual)

        return before

    def _require_right_positions(self, offset: int, mask: Any) -> None:
        """HookedTransformer.generate counts the cache twice in learned positions if it has no attention mask."""
        learned = getattr(self._model.cfg, "positional_embedding_type", None) in ("standard", "shortformer")
        if offset and mask is None and learned and self._generating is not None:
            raise ValueError(
                "TransformerLens gives generated tokens wrong learned positions under its key-value cache where "
                "it makes no attention mask (no tokenizer, or embeddings given); use use_past_kv_cache=False, or "
                "give tokens to a model with a tokenizer"
            )

    def _embedded_ids(self, offset: int, rows: int, length: int) -> Tensor | None:
        """Ids of the pass: what was embedded for it, or, without a cache, also what came before."""
        last, earlier = self._embedded, self._sequence
        if last is None or last.ndim != 2 or last.shape[0] != rows:
            return None
        if last.shape[1] == length:
            return last
        grown = offset == 0 and last.shape[1] == 1 and earlier is not None
        if grown and earlier is not None and earlier.shape == (rows, length - 1):
            return torch.cat([earlier, last.to(earlier.device)], dim=1)
        return None

    def _make(self, offset: int, length: int, mask: Any, ids: Tensor | None, like: Tensor) -> Chunk:
        rows, device = like.shape[0], like.device
        if mask is None:
            real = torch.ones(rows, offset + length, dtype=torch.bool, device=device)
        elif not isinstance(mask, Tensor) or tuple(mask.shape) != (rows, offset + length):
            shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"the attention mask has shape {shape}, but {offset} cached and {length} new tokens in {rows} "
                f"rows need {(rows, offset + length)}; without it positions are not known"
            )
        else:
            real = mask.to(device) != 0
        width = self._prompt_width(offset, length, ids)
        if ids is not None and offset == 0:
            real = self._check_padding(ids.to(device), real, width)
        index = torch.where(real, real.long().cumsum(1) - 1, -1)
        lengths = None if width is None else real[:, :width].sum(1)
        self._sequence = self._extended(offset, ids)
        return Chunk(
            offset=offset,
            index=index[:, offset:],
            bos=self._bos(index[:, offset:], ids),
            ids=ids,
            prompt_width=width,
            prompt_lengths=lengths,
            limit=self._limit(lengths),
        )

    def _prompt_width(self, offset: int, length: int, ids: Tensor | None) -> int | None:
        generating = self._generating
        if generating is not None:
            if generating["width"] is None:
                generating["width"] = offset + length
            return generating["width"]
        if self._may_go_on:  # a piece of a prompt, or the prompt before decoding by hand
            return None
        earlier = self._sequence
        # One token more than the pass before: this may be decoding by hand, so the end of the prompt is not known.
        grown = (
            ids is not None
            and earlier is not None
            and earlier.shape == (ids.shape[0], length - 1)
            and torch.equal(ids[:, :-1], earlier.to(ids.device))
        )
        return None if grown else length

    def _limit(self, lengths: Tensor | None) -> Tensor | None:
        if lengths is None:
            return None
        if self._generating is None:
            return lengths
        new = self._generating["new"]
        # The last token that is sampled is never run.
        return None if new is None else lengths + max(int(new) - 1, 0)

    def _extended(self, offset: int, ids: Tensor | None) -> Tensor | None:
        if ids is None or offset == 0:
            return ids
        earlier = self._sequence
        if earlier is None or earlier.shape != (ids.shape[0], offset):
            return None
        return torch.cat([earlier, ids.to(earlier.device)], dim=1)

    def _bos(self, index: Tensor, ids: Tensor | None) -> Tensor | None:
        token = getattr(self._tokenizer, "bos_token_id", None)
        first = index == 0
        if token is None:
            return torch.zeros_like(first)
        if ids is None:
            return None if bool(first.any()) else torch.zeros_like(first)
        found: Tensor = first & (ids.to(index.device) == token)
        return found

    def _check_padding(self, ids: Tensor, real: Tensor, width: int | None) -> Tensor:
        """`real` without padding that no mask shows; on the left it is refused: the model is wrong there."""
        columns = ids.shape[1] if width is None else min(width, ids.shape[1])
        pad = getattr(self._tokenizer, "pad_token_id", None)
        # A pad token that is also an end or beginning of sequence may stand alone in front of a text.
        shared = pad in (getattr(self._tokenizer, name, None) for name in ("bos_token_id", "eos_token_id"))
        is_pad = (ids == pad) & real if pad is not None else torch.zeros_like(real)
        leading = (is_pad | ~real).long().cumprod(1).bool() & is_pad
        if bool((leading.sum(1) > (1 if shared else 0)).any()):
            raise ValueError(
                "a row begins with pad tokens that no attention mask covers, so the model takes them for text; "
                "give a list of strings, or attention_mask (HookedTransformer.generate ignores it: there give "
                "padding_side='left')"
            )
        trailing = is_pad[:, :columns].flip(1).long().cumprod(1).bool().flip(1)
        if self._generating is not None:
            if bool((~real[:, columns - 1]).any()) or (not shared and bool(trailing.any())):
                raise ValueError(
                    "a prompt ends with padding, from which generation would go on; pad on the left instead"
                )
            return real
        if ids.shape[0] == 1 or not bool(trailing.any()):
            return real
        text = real.clone()
        text[:, :columns] &= ~trailing
        return text


def is_steered(model: HookedModel) -> bool:
    """Whether a steering is on in this context, for which it matters where a text ends."""
    return any(tracked is model and session.acts() for session, tracked in _tracked.get())


def track_positions(session: Session, model: HookedModel, *, layers: Sequence[int]) -> Callable[[Tensor], Chunk]:
    """A function that gives a hook at one of `layers` the `Chunk` of the pass it is in, until the session closes.

    It is called with the residual that the hook sees. Hooks that others put on the model are left alone;
    `generate` of the model's class is followed meanwhile, to know where prompts end.
    """
    tracker = _Tracker(model)
    tracker.watch(session, layers)
    still_open = (pair for pair in _tracked.get() if pair[0].is_open)
    _tracked.set((*still_open, (session, model)))
    return tracker.chunk
