"""What the explorer shows, piece by piece and without a browser: one answer that grows while a wish is granted."""

from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Any, TypeAlias

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.errors import PositionError
from lrc_tl.markup.printable import printable
from lrc_tl.models.hooked_model import HookedModel, block_hook
from lrc_tl.models.hooking import apart, hooks_on, inside
from lrc_tl.tuning.neutral_effects import NEUTRAL_TEXTS
from lrc_tl.views.explorer_wish import Wish, WishError
from lrc_tl.views.latest_wish import LatestWish, Superseded
from lrc_tl.views.text_passes import TextPasses

Answer: TypeAlias = dict[str, Any]
"""As JSON takes it:

- `number`: of the wish; `status`: `"idle"`, `"working"`, `"done"`, `"stopped"` or `"failed"`; `doing`: what is
  under way, in words; `error`: None, or its `text` and the `field` to change (None: no one control is at fault);
- `before`, `after`: what the probe reads and the model expects, unedited and edited (`TextPasses.reading`);
- `before_text`, `after_text`: the text that the model goes on with (`TextPasses.continuation`);
- `curve`: what edits of every size do (`TextPasses.curve`);
- `code`: the same in Python; `fresh`: the names of those parts that belong to this wish already.
"""
_LONGEST_ERROR = 600
_LEAST_PAUSE = 0.12
"""Seconds between two words of a text that is being written."""


class Exploration:
    """Grants wishes one after the other in a thread of its own; `publish` is given the answer as it grows.

    A newer wish ends what is under way: between two passes of the model, so between two tokens. What goes wrong is
    part of the answer; nothing is raised.
    """

    def __init__(
        self, model: HookedModel, concepts: ConceptSet, publish: Callable[[Answer], None], *, start: int = 0
    ) -> None:
        self._model, self._concepts, self._publish = model, concepts, publish
        self.answer: Answer = {"number": start, "status": "idle", "doing": "", "error": None, "fresh": []}
        self._latest = LatestWish[Wish](self._grant)
        self._kept: dict[Any, Any] = {}
        self._published = 0.0

    def ask(self, given: Mapping[str, Any]) -> None:
        """Grant a wish, given as the values of the controls."""
        try:
            wish = Wish.of(given, self._concepts, n_layers=int(self._model.cfg.n_layers))
        except Exception as error:  # shown beside the controls
            self._latest.stop()
            number = given.get("number")
            self._failed(number if isinstance(number, int) else self.answer["number"], error)
            return
        self._latest.ask(wish)

    def stop(self) -> None:
        """End what is under way, and keep what is there."""
        self._latest.stop()

    def wait(self, seconds: float) -> bool:
        """Whether everything asked for is granted within this time."""
        return self._latest.wait(seconds)

    def _grant(self, wish: Wish, check: Callable[[], None]) -> None:
        self._tell(number=wish.number, status="working", doing="Reading the text", error=None, fresh=[])

        def look(residual: Any, hook: Any) -> None:
            check()

        def work() -> None:
            hooks = [(block_hook(0), look)]
            inside(hooks_on(self._model, hooks), partial(self._show, wish, check))

        try:
            apart(work)
        except Superseded:
            if not self._latest.is_replaced:
                self._tell(status="stopped", doing="")
            raise
        except Exception as error:  # shown in the widget
            self._failed(wish.number, error)
            return
        self._tell(status="done", doing="")

    def _show(self, wish: Wish, check: Callable[[], None]) -> None:
        passes = TextPasses(self._model, self._concepts, wish, remember=partial(self._remember, wish))
        self._show_part("code", wish.code(self._concepts, int(self._model.cfg.n_layers)))
        if wish.view == "curve":
            self._show_curve(wish, passes, check)
            return
        self._show_part("before", passes.reading(edited=False))
        check()
        if wish.is_edit:
            self._tell(doing="Reading the text with the edit")
            self._show_part("after", passes.reading(edited=True))
            check()
        else:
            self._show_part("after", None)
        self._write("before_text", passes, wish, edited=False)
        if wish.is_edit:
            self._write("after_text", passes, wish, edited=True)
        else:
            self._show_part("after_text", None)

    def _write(self, part: str, passes: TextPasses, wish: Wish, *, edited: bool) -> None:
        how = "with the edit" if edited else "without an edit"

        def said(text: str, n: int) -> None:
            doing = f"Writing {how}: {n} of {wish.n_tokens} tokens"
            if n == 1 or monotonic() - self._published >= _LEAST_PAUSE:
                self._tell(doing=doing, **{part: {**(self.answer.get(part) or {}), "partial": text}})

        self._tell(doing=f"Writing {how}")
        self._show_part(part, passes.continuation(edited=edited, said=said))

    def _show_curve(self, wish: Wish, passes: TextPasses, check: Callable[[], None]) -> None:
        if not wish.is_edit:
            raise WishError("Choose a concept to remove or to add: the curve shows what that does.", field="add")
        self._tell(doing="Trying every strength")
        curve = passes.curve()
        self._tell(curve=curve, doing="Trying every strength: what the model says")
        check()
        curve = passes.with_answers(curve)
        kl: list[list[float]] = []
        for place, text in enumerate(NEUTRAL_TEXTS):
            doing = f"Side effects on other texts: {place + 1} of {len(NEUTRAL_TEXTS)}"
            self._tell(curve=curve, doing=doing)
            check()
            kl.append(passes.side_effect(text))
            curve = {**curve, "kl": [sum(row) / len(kl) for row in zip(*kl, strict=True)]}
        self._show_part("curve", curve)

    def _remember(self, wish: Wish, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        whole = (wish.text, wish.subject, *key)
        if whole not in self._kept:
            value = make()
            while len(self._kept) >= 24:
                self._kept.pop(next(iter(self._kept)))
            self._kept[whole] = value
        return self._kept[whole]

    def _show_part(self, name: str, value: Any) -> None:
        self._tell(**{name: value}, fresh=[*self.answer["fresh"], name])

    def _tell(self, **changed: Any) -> None:
        self.answer = {**self.answer, **changed}
        self._published = monotonic()
        self._publish(self.answer)

    def _failed(self, number: int, error: Exception) -> None:
        field = error.field if isinstance(error, WishError) else None
        if isinstance(error, PositionError):
            field = "subject"
        told = {"text": said_of(error), "field": field}
        self._tell(number=number, status="failed", doing="", error=told)


def said_of(error: Exception) -> str:
    """What an error says to a reader: its text, and its name where it is none of the usual ones."""
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if not isinstance(error, ValueError | LookupError | RuntimeError | TypeError) or not text.strip():
        text = f"{type(error).__name__}: {text}"
    line = " ".join(printable(text).split())
    return line if len(line) <= _LONGEST_ERROR else f"{line[:_LONGEST_ERROR]}…"
