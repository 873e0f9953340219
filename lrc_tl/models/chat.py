"""Chat messages as text: the tokenizer's own template, continued where the assistant speaks last."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from lrc_tl.arguments.near_names import did_you_mean
from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.arguments.sequences import as_tuple
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.special_tokens import Tokenizing

Message: TypeAlias = Mapping[str, str]
"""`{"role": "user", "content": "..."}`."""
Text: TypeAlias = str | Sequence[Message]
"""A text as it is, or the messages of one chat."""
ROLES = ("system", "user", "assistant")


def chat_text(model: Tokenizing, messages: Sequence[Message]) -> str:
    """The messages in the template of the model's tokenizer, as one text.

    After a last message of the user (or the system) the assistant's turn is opened, and a last message of the
    assistant is left open, to be gone on with. The text is run with one beginning-of-sequence token, whether the
    template writes one or not. Subjects are looked for in this text; characters (`subject_start`) count in it.

    Raises:
        TypeError: the messages are no list of mappings.
        ValueError: no messages; one with another role, other keys, or without content; a tokenizer without a
            template; or what the template itself refuses. The text says which message.
    """
    messages = as_tuple(messages, "messages", Mapping)
    if not messages:
        raise ValueError("there are no messages; give at least one, as in [{'role': 'user', 'content': 'Hello'}]")
    for number, message in enumerate(messages):
        _require_message(message, number)
    if not getattr(model.tokenizer, "chat_template", None):
        raise ValueError(
            "the model's tokenizer has no chat template, so messages cannot be put into words for it; give a "
            "text, or load a model that was trained on chats"
        )
    goes_on = messages[-1]["role"] == "assistant"
    try:
        return _templated(model, messages, goes_on=goes_on)
    # A template may refuse in any way: it is a small program that comes with the tokenizer.
    except Exception as error:
        number = _first_refused(model, messages)
        role = messages[number]["role"]
        raise ValueError(f"the chat template refuses messages[{number}] (of the {role}): {error}") from error


@numbers_checked
def chat_prompt(
    model: Tokenizing,
    messages: Sequence[Message],
    *,
    subject: str,
    object: str,
    relation: str = "",
    subject_start: int | None = None,
) -> Prompt:
    """A prompt from a chat: `chat_text`, behind which the object is to come.

    Behind a text that ends in white space, as most do that open the assistant's turn, the object follows directly,
    else after a space (`Prompt.joint`). The subject is its last occurrence in any message, or the one at character
    `subject_start` of `chat_text`. For many facts take `chat_text` of messages that hold `{}` in place of the
    subject: it is a template of a `Relation`.

    Raises:
        TypeError, ValueError: as `chat_text`.
        PositionError: the subject is not in the text.
    """
    text = chat_text(model, messages)
    return Prompt(
        text=text,
        subject=subject,
        object=object,
        relation=relation,
        subject_start=subject_start,
        joint="" if text[-1:].isspace() else " ",
    )


def as_text(model: Tokenizing, given: Text) -> str:
    """A text as it is, or the messages of a chat in the tokenizer's template: `chat_text`."""
    return given if isinstance(given, str) else chat_text(model, given)


def as_texts(model: Tokenizing, given: Sequence[Text], name: str) -> tuple[str, ...]:
    """`as_text` of each; `name` is what an error calls the argument.

    Raises:
        TypeError: one text, or one chat, in place of several.
    """
    if is_one_chat(given):
        raise TypeError(f"{name} is one chat; give a list of chats, if only of this one")
    texts = as_tuple(given, name)
    for number, text in enumerate(texts):
        if not isinstance(text, str | Sequence):
            kind = type(text).__name__
            raise TypeError(f"{name}[{number}] is {text!r:.60} ({kind}); each must be a str or a list of messages")
    return tuple(as_text(model, text) for text in texts)


def is_one_chat(given: Any) -> bool:
    """Whether these are the messages of one chat, and not several texts."""
    return (
        isinstance(given, Sequence)
        and not isinstance(given, str)
        and bool(given)
        and isinstance(given[0], Mapping)
    )


def _require_message(message: Message, number: int) -> None:
    if set(message) != {"role", "content"}:
        raise ValueError(
            f"messages[{number}] has the keys {sorted(map(str, message))}; a message has 'role' and 'content'"
        )
    if message["role"] not in ROLES:
        hint = did_you_mean(str(message["role"]), ROLES, otherwise="allowed are")
        raise ValueError(f"messages[{number}] has the role {message['role']!r}; {hint}")
    if not isinstance(message["content"], str) or not message["content"].strip():
        raise ValueError(f"messages[{number}] has the content {message['content']!r}; give some text")


def _templated(model: Tokenizing, messages: Sequence[Message], *, goes_on: bool) -> str:
    text: str = model.tokenizer.apply_chat_template(
        [dict(message) for message in messages],
        tokenize=False,
        add_generation_prompt=not goes_on,
        continue_final_message=goes_on,
    )
    return text


def _first_refused(model: Tokenizing, messages: Sequence[Message]) -> int:
    """The first message with which the template fails; the last one, where it fails on none of the beginnings."""
    for number in range(len(messages)):
        try:
            _templated(model, messages[: number + 1], goes_on=False)
        except Exception:  # whatever the template raises; the caller reports it
            return number
    return len(messages) - 1
