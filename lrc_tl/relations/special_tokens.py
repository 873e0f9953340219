"""Text as token ids with one beginning-of-sequence token, and which ids are special. Needs no torch."""

from typing import Any, Protocol, runtime_checkable

from lrc_tl.turns import turn


@runtime_checkable
class Tokenizing(Protocol):
    """A model with its tokenizer, as far as it is needed to turn text into the model's own tokens."""

    tokenizer: Any

    def to_tokens(self, input: str) -> Any:
        """Token ids with the model's beginning-of-sequence policy, shape `1 pos`."""


def token_ids(model: Tokenizing, text: str) -> list[int]:
    """Token ids of `text` as the model is given it, with at most one beginning-of-sequence token in front.

    A text that itself begins with that token, as chat templates write it, gets no second one.

    Raises:
        ValueError: the model has no tokenizer, the text itself begins with that token twice, or the tokenizer puts
            an end token after it.
    """
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer, so it cannot be given texts; load it with one")
    ids = _with_one_beginning(model, text)
    end, number = (getattr(model.tokenizer, name, None) for name in ("eos_token", "eos_token_id"))
    unknown = getattr(model.tokenizer, "unk_token_id", None)
    # HookedTransformer takes such a token for a beginning one, and drops the first of the text.
    if end and ids[-1:] == [number] != [unknown] and not text.rstrip().endswith(end):
        raise ValueError(
            f"the tokenizer puts its end token {end!r} behind {text[-60:]!r}, so that nothing can follow; load it "
            "with add_eos_token=False, or the model with backend='bridge'"
        )
    return ids


def _with_one_beginning(model: Tokenizing, text: str) -> list[int]:
    token = getattr(model.tokenizer, "bos_token", None)
    number = getattr(model.tokenizer, "bos_token_id", None)
    ids = _ids(model, text)
    if not token or not text.startswith(token):
        return ids
    # Where the model puts one, the text without its own is the same text; cutting the ids would not do, since a
    # text of the context's length has already lost its end.
    without = _ids(model, text.removeprefix(token))
    if without[:1] == [number]:
        ids = without
    if ids[:2] == [number, number]:
        raise ValueError(
            f"{text[:60]!r} begins with the beginning-of-sequence token {token!r} twice; give it once"
        )
    return ids


def _ids(model: Tokenizing, text: str) -> list[int]:
    with turn(model):
        ids: list[int] = model.to_tokens(text)[0].tolist()
    return ids


def special_ids(tokenizer: Any) -> frozenset[int]:
    """Ids of tokens that are not words: beginning, end, padding, separators, marks of a chat.

    The unknown token stands for a word, so it is not special unless it also serves as one of the others.
    """
    named = {getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "eos", "pad", "sep", "cls", "mask")}
    special = {int(number) for number in named if number is not None}
    unknown = getattr(tokenizer, "unk_token_id", None)
    others = (int(number) for number in getattr(tokenizer, "all_special_ids", ()))
    return frozenset(special | {number for number in others if number != unknown})
