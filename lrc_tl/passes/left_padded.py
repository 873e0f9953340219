"""Generation from token ids of different lengths, where what is padding is known and not guessed."""

import inspect
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import torch

from lrc_tl.models.hooked_model import HookedModel, require_evaluation_mode
from lrc_tl.numerics.precision import HOST
from lrc_tl.passes.padding import own_tokens
from lrc_tl.passes.prefix_cache import keeps_followed_cache


def generate_from(
    model: HookedModel, sequences: Sequence[Sequence[int]], *, max_new_tokens: int, **options: Any
) -> Any:
    """`model.generate` from these token ids, padded on the left, with `return_type="tokens"` and no progress bar.

    Strings would not do where the tokenizer pads with a token that texts hold too: HookedTransformer takes such a
    token at the end of a single text, and both classes one in front of a text of a batch, for padding.

    Raises:
        ModelError: the model drops activations at random.
        ValueError: the model would take the beginning of a text for padding whatever it is told.
    """
    require_evaluation_mode(model)
    tokenizer = model.tokenizer
    pad = getattr(tokenizer, "pad_token_id", None)
    lengths = [len(sequence) for sequence in sequences]
    width = max(lengths)
    ids = torch.full((len(sequences), width), 0 if pad is None else int(pad), device=HOST)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = torch.tensor(sequence, device=HOST)
    device = model.cfg.device
    given: dict[str, Any] = {"max_new_tokens": max_new_tokens, "verbose": False, "return_type": "tokens"}
    if "attention_mask" in inspect.signature(type(model).generate).parameters:
        if len(sequences) > 1:
            given["attention_mask"] = own_tokens(lengths, width, side="left", device=device).long()
    else:
        given["padding_side"] = "left"
        spared = pad == getattr(tokenizer, "bos_token_id", None) and bool(model.cfg.default_prepend_bos)
        for sequence in sequences:
            if len(list(takewhile(lambda token: token == pad, sequence))) > int(spared):
                beginning, token = tokenizer.decode(list(sequence[:3])), tokenizer.decode([pad])
                raise ValueError(
                    f"a text begins with {beginning!r}..., and HookedTransformer.generate takes {token!r} in "
                    "front, with which the tokenizer pads, for padding; begin the text with another token, or "
                    "load the model with backend='bridge'"
                )
    if not keeps_followed_cache(model):
        given["use_past_kv_cache"] = False
    return model.generate(ids.to(device), **given, **options)
