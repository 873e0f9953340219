"""What a reader of the explorer wishes to see: checked, and as a steering and as Python code."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.directions.writing import swap_of
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.words import last_word
from lrc_tl.steering.places import Where, last_subject_token
from lrc_tl.steering.steering import Steering

Place: TypeAlias = Literal["subject", "prompt", "generated", "all"]
LayerChoice: TypeAlias = Literal["all", "from", "own", "some"]
View: TypeAlias = Literal["edit", "curve"]
MOST_STRENGTH = 10.0
MOST_TOKENS = 200


class WishError(ValueError):
    """A wish that cannot be granted; `field` is the control that should be changed."""

    def __init__(self, text: str, *, field: str) -> None:
        super().__init__(text)
        self.field = field


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A text, what to do to it, and what to show."""

    text: str
    subject: str
    """Empty: the last word of the text."""
    remove: str | None = None
    add: str | None = None
    place: Place = "subject"
    layers: LayerChoice = "all"
    first_layer: int = 0
    last_layer: int = 0
    """With `layers="some"`: the first and the last layer, both edited."""
    strength: float = 0.0
    n_tokens: int = 20
    view: View = "edit"
    number: int = 0

    @classmethod
    def of(cls, given: Mapping[str, Any], concepts: ConceptSet, *, n_layers: int) -> "Wish":
        """A wish from the values of the controls, as JSON gives them.

        Raises:
            WishError: a value that is missing, of another kind or not allowed; the text says which.
        """
        # A space at the end would stand between the text and what the model says.
        text = str(given.get("text") or "").rstrip(" \t")
        if not text.strip():
            raise WishError("Type a text that the model shall go on with.", field="text")
        subject = str(given.get("subject") or "").strip()
        remove, add = (_concept(given, field, concepts) for field in ("remove", "add"))
        if remove is not None and remove == add:
            raise WishError(f"{add} is to be removed and added at once; choose two concepts.", field="add")
        first, last = (_whole(given, field, 0, n_layers - 1) for field in ("first_layer", "last_layer"))
        if given.get("layers") == "some" and first > last:
            raise WishError(f"The first layer, {first}, lies behind the last, {last}.", field="first_layer")
        wish = cls(
            text=text,
            subject=subject,
            remove=remove,
            add=add,
            place=cast(Place, _one_of(given, "place", Place)),
            layers=cast(LayerChoice, _one_of(given, "layers", LayerChoice)),
            first_layer=first,
            last_layer=last,
            strength=_strength(given.get("strength")),
            n_tokens=_whole(given, "n_tokens", 1, MOST_TOKENS),
            view=cast(View, _one_of(given, "view", View)),
            number=_whole(given, "number", 0, 2**53),
        )
        wish.prompt_for(next(iter(concepts)))  # refuses a subject that is not in the text
        return wish

    @property
    def is_edit(self) -> bool:
        """Whether there is something to remove or to add."""
        return self.remove is not None or self.add is not None

    def prompt_for(self, name: str, concepts: ConceptSet | None = None) -> Prompt:
        """The text as a prompt whose object is `name`, among the objects of `concepts`.

        Raises:
            WishError: the subject is not in the text, or there is no word in it.
        """
        subject, start = self.subject, None
        if not subject:
            span = last_word(self.text)
            if span is None:
                raise WishError("There is no word in the text; type one.", field="text")
            subject, start = self.text[slice(*span)], span[0]
        try:
            return Prompt(
                text=self.text,
                subject=subject,
                object=name,
                subject_start=start,
                joint="" if self.text[-1].isspace() else " ",
                relation_objects=() if concepts is None else tuple(concepts),
            )
        except ValueError as error:
            raise WishError(f"{self.subject!r} is not in the text as a whole word.", field="subject") from error

    def steering(self, model: HookedModel, concepts: ConceptSet) -> Steering | None:
        """The edit that is wished for; None: there is none.

        One concept for another is eq. 7 of arXiv:2311.08968 at the chosen place and layers; one alone is added, or
        with minus the strength taken away.
        """
        if not self.is_edit:
            return None
        prompt = self.prompt_for(next(iter(concepts)))
        where: Where = (
            last_subject_token(model, self.text, subject=prompt.subject, subject_start=prompt.subject_start)
            if self.place == "subject"
            else self.place
        )
        if self.remove is not None and self.add is not None:
            operation: Any = swap_of(concepts[self.remove], concepts[self.add], beta=self.strength)
        else:
            sign = 1 if self.add is not None else -1
            operation = concepts[self.add or cast(str, self.remove)].add(strength=sign * self.strength).operation
        return Steering(
            operation=operation,
            hook_name=concepts.hook_name,
            layers=self._layers(concepts, int(model.cfg.n_layers)),
            where=where,
            fingerprint=concepts.fingerprint,
        )

    def _layers(self, concepts: ConceptSet, n_layers: int) -> Any:
        if self.layers == "from":
            return range(concepts.layer, n_layers)
        return range(self.first_layer, self.last_layer + 1) if self.layers == "some" else self.layers

    def code(self, concepts: ConceptSet, n_layers: int) -> str:
        """Python that does the same, with `model` and `concepts` as they were given to `lrc.explore`."""
        prompt = self.prompt_for(next(iter(concepts)))
        at = "" if prompt.subject_start is None else f", subject_start={prompt.subject_start}"
        subject = f"subject={prompt.subject!r}{at}"
        lines = [f"text = {self.text!r}", f"print(concepts.classify(model, text, {subject})[:5])"]
        if len(concepts) < 2:
            lines.pop()
        steered = ""
        if self.is_edit:
            where = f"lrc.last_subject_token(model, text, {subject})" if self.place == "subject" else None
            layers = self._layers(concepts, n_layers)
            place = f"where={where or repr(self.place)}, layers={layers!r}"
            if self.remove is not None and self.add is not None:
                edit = (
                    f"concepts.swap_steering(\n    model, remove={self.remove!r}, add={self.add!r}, text=text, "
                    f"{subject}, beta={self.strength!r}\n)"
                )
                same = self.place == "subject" and self.layers == "all"
                edit = edit if same else f"{edit}.at({place})"
            else:
                sign = 1 if self.add is not None else -1
                name = self.add or self.remove
                edit = f"concepts[{name!r}].add(strength={sign * self.strength!r}).at({place})"
            lines.append(f"edit = {edit}")
            steered = ", steering=edit"
        lines.append(f"print(lrc.generate(model, text{steered}, max_new_tokens={self.n_tokens})[0].text)")
        return "\n".join(lines)


def _concept(given: Mapping[str, Any], field: str, concepts: ConceptSet) -> str | None:
    name = given.get(field)
    if name in (None, ""):
        return None
    if not isinstance(name, str) or name not in concepts:
        raise WishError(f"There is no concept {name!r} in the set.", field=field)
    return concepts[name].object_name


def _one_of(given: Mapping[str, Any], field: str, allowed: Any) -> str:
    value = given.get(field)
    if value not in get_args(allowed):
        raise WishError(f"{field} is {value!r}; allowed are {', '.join(get_args(allowed))}.", field=field)
    return str(value)


def _whole(given: Mapping[str, Any], field: str, least: int, most: int) -> int:
    value = given.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or value % 1:
        raise WishError(f"Type a whole number from {least} to {most}.", field=field)
    if not least <= value <= most:
        raise WishError(f"{value:g} is outside {least} to {most}.", field=field)
    return int(value)


def _strength(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise WishError("Type a number as the strength, such as 0.01.", field="strength")
    if not 0 <= value <= MOST_STRENGTH:
        raise WishError(f"The strength is {value:g}; it must lie from 0 to {MOST_STRENGTH:g}.", field="strength")
    return float(value)
