"""Which absolute positions a forward pass is on.

A hook sees a chunk of residual stream and not where it stands: under a key-value cache `generate` runs the prompt
first and then one token at a time, without one it runs the whole sequence again, and left padding shifts rows
against each other. `track_positions` reads what the model itself is told in each pass: the length of its cache and
its attention mask. Passes of our own over rows of different lengths say how long each row is (`padding`).
Padding is what mask or lengths say, never a token's id: many tokenizers pad with a token that texts end with too.
Where that does not settle an answer, it is refused rather than guessed.
"""

import inspect
import threading
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, cast
from weakref import ref

import torch
from torch import Tensor

from lrc_tl.models.following import Generation, follow_generation, generation_of
from lrc_tl.models.hooked_model import HookedModel, Transformer, is_bridge
from lrc_tl.models.hooking import Session
from lrc_tl.passes.chunk import Chunk
from lrc_tl.passes.padding import looks_padded, own_tokens, told_lengths
from lrc_tl.turns import turn

Rerun: TypeAlias = Callable[[], object]
"""Runs the tokens of a pass once more, without a cache; what it returns has no meaning."""
PassBegins: TypeAlias = Callable[[Chunk, Rerun | None], None]
"""Is called with each `Chunk` before hooks at the tracked layers are. There is no `Rerun` where the tokens are not
known: the pass starts from embeddings or in the middle of the model."""

_tracked: ContextVar[tuple[tuple[Session, HookedModel], ...]] = ContextVar("lrc_tl_tracked", default=())


@dataclass(frozen=True, kw_only=True)
class _Call:
    """What a model that is called knows and its parts are not told."""

    masked: bool
    """Whether the caller gave an attention mask."""
    lengths: tuple[int, ...] | None
    """Tokens of each text, where several texts were given."""
    side: str
    """On which side they are padded."""
    side_given: bool
    """Whether the caller said so, or else the tokenizer's settings."""


class _Tracker(threading.local):
    """Follows the forward passes of one model while a steering is on.

    Local to the thread: where other threads take part in the block's context, each has passes of its own.
    """

    def __init__(self, model: HookedModel, layers: frozenset[int], begins: PassBegins | None) -> None:
        self._model = model
        self._begins = begins
        self._tokenizer = model.tokenizer
        self._signature = inspect.signature(cast(Any, type(self._model)).forward)
        self._layers = layers  # whose residuals are edited
        self._embedded: Tensor | None = None
        self._just_embedded = False  # and no block was run since
        self._flow: tuple[int, Any] | None = None  # the last block that was run, and a reference to what it gave
        self._call: _Call | None = None
        self._sequence: Tensor | None = None  # ids of everything up to the last pass
        self._told: tuple[int, int, Any] | None = None
        self._chunk: Chunk | None = None
        self._may_go_on = False  # the pass fills a cache, from which another may go on

    def watch(self, session: Session) -> None:
        if is_bridge(self._model):
            session.watch(self._model.original_model, self._before_bridge)
        else:
            transformer = cast(Transformer, self._model)
            session.watch(transformer.embed, self._before_embed)
            for layer, block in enumerate(transformer.blocks):
                session.watch(block, self._before_block(layer))
                session.watch_output(block, self._after_block(layer))
        session.watch(self._model, self._before_call)
        session.watch_output(self._model, self._after_call)
        follow_generation(self._model, session)

    @property
    def _generating(self) -> Generation | None:
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
        if self._begins is not None:
            self._begins(self._chunk, None if tokens is None else partial(self._again_on_bridge, args, kwargs))

    def _again_on_bridge(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """What the Bridge's model is called with, once more and without its cache."""
        bridge: Any = self._model
        cacheless = {"past_key_values": None, "use_cache": False}
        given = {name: cacheless.get(name, value) for name, value in kwargs.items()}
        positions: Any = getattr(bridge, "pos_embed", None)  # keeps the number of rows for its next call alone
        rows = getattr(positions, "_current_batch_size", None)
        try:
            bridge.original_model(*args, **given)
        finally:
            if rows is not None:
                positions._current_batch_size = rows

    def _before_call(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = self._signature.bind(module, *args, **kwargs).arguments
        texts, lengths = given.get("input"), None
        side: Any = given.get("padding_side")
        side_given = side in ("left", "right")
        if not side_given:
            side = getattr(self._tokenizer, "padding_side", "right")
        if isinstance(texts, list) and len(texts) > 1 and all(isinstance(text, str) for text in texts):
            options = {"prepend_bos": given["prepend_bos"]} if "prepend_bos" in given else {}
            with turn(module):
                lengths = tuple(int(module.to_tokens(text, **options).shape[1]) for text in texts)
        masked = given.get("attention_mask") is not None
        self._call = _Call(masked=masked, lengths=lengths, side=side, side_given=side_given)
        self._just_embedded = False

    def _after_call(self, module: Any, args: tuple[Any, ...], output: Any) -> None:
        self._call = None

    def _before_embed(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._embedded = args[0] if args else kwargs["tokens"]
        self._just_embedded = True
        self._chunk = None

    def _before_block(self, layer: int) -> Callable[..., None]:
        def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            residual = args[0] if args else kwargs["resid_pre"]
            if layer == 0 and self._just_embedded:
                self._just_embedded = False
            elif not self._flows_into(layer, residual):  # a pass from embeddings: of which text is not known
                self._embedded = self._chunk = None
            if layer not in self._layers:
                return
            entry, mask = kwargs.get("past_kv_cache_entry"), kwargs.get("attention_mask")
            offset = 0 if entry is None else int(entry.past_keys.shape[1])
            self._require_right_positions(offset, mask)
            told = (offset, residual.shape[1], mask)
            same = self._told is not None and told[:2] == self._told[:2] and mask is self._told[2]
            if self._chunk is not None and same:
                return
            self._told = told
            self._may_go_on = entry is not None
            ids = self._embedded_ids(offset, residual.shape[0], residual.shape[1])
            self._chunk = self._make(offset, residual.shape[1], mask, ids, residual)
            if self._begins is not None:
                self._begins(self._chunk, None if ids is None else partial(self._again, ids, mask))

        return before

    def _again(self, ids: Tensor, mask: Any) -> None:
        """The tokens of a pass of HookedTransformer once more, without its cache."""
        told = torch.ones_like(ids) if mask is None else mask
        cast(Any, self._model).forward(ids, attention_mask=told, return_type=None)

    def _after_block(self, layer: int) -> Callable[..., None]:
        def after(module: Any, args: tuple[Any, ...], output: Any) -> None:
            self._flow = (layer, ref(output)) if isinstance(output, Tensor) else None

        return after

    def _flows_into(self, layer: int, residual: Tensor) -> bool:
        """Whether `residual` is what the block before gave: a pass may stop early, and another begin there."""
        if self._flow is None or self._flow[0] != layer - 1:
            return False
        before: Tensor | None = self._flow[1]()
        if before is None or before is residual:
            return before is not None
        # Between the devices of a model on several of them it is a copy.
        return before.device != residual.device and torch.equal(before.to(residual.device), residual)

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
        row_lengths = told_lengths(self._model)
        if row_lengths is not None:
            assert len(row_lengths) == rows
            assert max(row_lengths) <= length
            real = torch.ones(rows, offset + length, dtype=torch.bool, device=device)
            real[:, offset:] = own_tokens(row_lengths, length, device=device)
            width: int | None = offset + length
            self._sequence = None
        else:
            real = self._real(offset, length, mask, rows, device)
            width = self._prompt_width(offset, length, ids)
            real = self._check_padding(offset, ids, real, mask, width)
            self._sequence = self._extended(offset, ids)
        index = torch.where(real, real.long().cumsum(1) - 1, -1)
        lengths = None if width is None else real[:, :width].sum(1)
        return Chunk(
            offset=offset,
            index=index[:, offset:],
            bos=self._bos(index[:, offset:], ids),
            ids=ids,
            prompt_width=width,
            prompt_lengths=lengths,
            limit=lengths if row_lengths is not None else self._limit(lengths),
        )

    def _real(self, offset: int, length: int, mask: Any, rows: int, device: torch.device) -> Tensor:
        begun = None if self._generating is None else self._generating["width"]
        if begun is not None and offset + length < begun:
            raise ValueError(
                f"steering cannot follow the cache of this {type(self._model).__name__} in a generation, since it "
                "does not tell how many tokens it holds; use use_past_kv_cache=False, or lrc.generate"
            )
        if mask is None:
            return torch.ones(rows, offset + length, dtype=torch.bool, device=device)
        if not isinstance(mask, Tensor) or tuple(mask.shape) != (rows, offset + length):
            shape = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(
                f"the attention mask has shape {shape}, but {offset} cached and {length} new tokens in {rows} "
                f"rows need {(rows, offset + length)}; without it positions are not known"
            )
        real: Tensor = mask.to(device) != 0
        return real

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
        if token is None:
            return torch.zeros_like(index, dtype=torch.bool)
        if ids is None:
            return None
        is_bos: Tensor = (ids.to(index.device) == token) & (index >= 0)
        # A token that is both stands for the end of a text wherever it is not first.
        return is_bos & (index == 0) if token == getattr(self._tokenizer, "eos_token_id", None) else is_bos

    def _check_padding(
        self, offset: int, ids: Tensor | None, real: Tensor, mask: Any, width: int | None
    ) -> Tensor:
        """`real` without padding that only the texts show; what no mask and no text settles is refused."""
        texts = None if self._call is None else self._call.lengths
        if self._call is not None and texts is not None and not self._call.masked and offset == 0:
            is_text = own_tokens(texts, real.shape[1], side=self._call.side, device=real.device)
            if mask is not None and not torch.equal(is_text, real):
                raise ValueError(
                    "TransformerLens takes a token of a text for padding, since the tokenizer pads with it too; "
                    "give token ids and attention_mask"
                )
            if self._call.side == "left" and mask is None and not bool(is_text.all()):
                raise ValueError(_UNCOVERED)
            return is_text
        columns = real.shape[1] if width is None else min(width, real.shape[1])
        if offset == 0 and self._generating is not None and not bool(real[:, columns - 1].all()):
            raise ValueError(
                "a prompt ends with padding, from which generation would go on; pad on the left instead. "
                "HookedTransformer.generate also takes a text's own last token for padding where the tokenizer "
                "pads with it: there give padding_side='left', or use lrc.generate"
            )
        if offset > 0 or ids is None or self._believed(mask):
            return real
        leading, trailing = looks_padded(self._tokenizer, ids[:, :columns], real[:, :columns])
        if bool(leading.any()):
            raise ValueError(_UNCOVERED)
        # HookedTransformer makes a mask by the side that its tokenizer happens to pad on: rows of ids that the
        # caller padded on the other side would end with padding that counts as text.
        guessed = self._call is not None and not self._call.side_given and self._generating is None
        if (mask is None or guessed) and bool(trailing.any()):
            row, token = int(trailing.nonzero()[0]), self._tokenizer.decode([self._tokenizer.pad_token_id])
            if self._generating is not None:
                raise ValueError(
                    f"row {row} of the prompts ends with {token!r}, which the tokenizer pads with. Where a prompt "
                    "ends with padding, generation would go on from it: pad on the left instead; where it is "
                    "text, give attention_mask with ones there, or use lrc.generate"
                )
            raise ValueError(
                f"row {row} ends with {token!r}, which the tokenizer pads with, and nothing says whether it is "
                "padding; give a list of strings, or attention_mask, with ones where it is text"
            )
        return real

    def _believed(self, mask: Any) -> bool:
        """Whether a mask comes from the caller, or from TransformerLens where it knows which side it padded."""
        if mask is None or is_bridge(self._model):
            return mask is not None
        # HookedTransformer makes masks from ids, by the side that its tokenizer pads on: in `generate`, where it
        # drops the caller's, and with a cache.
        if self._call is not None:
            return self._call.masked
        return self._generating is None and not self._may_go_on


_UNCOVERED = (
    "a row begins with pad tokens that no attention mask covers, so the model takes them for text; give a list of "
    "strings, or attention_mask (HookedTransformer.generate ignores it: there give padding_side='left')"
)


def is_steered(model: HookedModel) -> bool:
    """Whether a steering is on in this context, for which it matters where a text ends."""
    return any(tracked is model and session.acts() for session, tracked in _tracked.get())


def track_positions(
    session: Session, model: HookedModel, *, layers: Sequence[int], begins: PassBegins | None = None
) -> Callable[[Tensor], Chunk]:
    """A function that gives a hook at one of `layers` the `Chunk` of the pass it is in, until the session closes.

    It is called with the residual that the hook sees. `begins` is told of each pass before such a hook runs. Hooks
    that others put on the model are left alone; `generate` of the model's class is followed meanwhile, to know
    where prompts end.
    """
    tracker = _Tracker(model, frozenset(layers), begins)
    tracker.watch(session)
    still_open = (pair for pair in _tracked.get() if pair[0].is_open)
    _tracked.set((*still_open, (session, model)))
    return tracker.chunk
