"""The explorer's widget: it carries wishes from the page to an `Exploration`, and answers back."""

import asyncio
from importlib.resources import files
from typing import Any

import anywidget
import traitlets

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.views.exploration import Answer, Exploration


def _own_file(name: str) -> str:
    return (files("lrc_tl.views") / name).read_text(encoding="utf-8")


class Explorer(anywidget.AnyWidget):
    """What `lrc.explore` gives; a notebook shows it."""

    _esm = _own_file("explorer.js")
    _css = _own_file("explorer.css")
    offer = traitlets.Dict().tag(sync=True)
    """What there is to choose from."""
    wish = traitlets.Dict().tag(sync=True)
    """The values of the controls, with a number that grows; `stop` ends what is under way."""
    answer = traitlets.Dict().tag(sync=True)
    """See `lrc_tl.views.exploration.Answer`."""

    def __init__(
        self, model: HookedModel, concepts: ConceptSet, *, offer: dict[str, Any], wish: dict[str, Any]
    ) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self.exploration = Exploration(model, concepts, self._publish)
        super().__init__(offer=offer, wish=wish, answer=self.exploration.answer)
        self.observe(self._asked, names="wish")
        if wish["text"]:
            self._asked({"new": wish})

    def __repr__(self) -> str:
        return f"Explorer({self.offer['relation']!r}, {len(self.offer['concepts'])} concepts)"

    def _asked(self, change: Any) -> None:
        self._loop = _running_loop() or self._loop
        wish = change["new"]
        if wish.get("stop"):
            self.exploration.stop()
        else:
            self.exploration.ask(wish)

    def _publish(self, answer: Answer) -> None:
        # Traits belong to the thread of the notebook, which has a loop; a plain Python has none.
        if self._loop is None or self._loop is _running_loop():
            self.answer = answer
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(setattr, self, "answer", answer)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
