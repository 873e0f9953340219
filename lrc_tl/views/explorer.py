"""`explore`: a widget to see concepts read, swapped and steered with, live."""

from typing import TYPE_CHECKING, Any

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.models.hooked_model import HookedModel
from lrc_tl.relations.prompts import Prompt
from lrc_tl.relations.relation_files import built_in_relations, find_relation, load_relation
from lrc_tl.relations.words import same_name
from lrc_tl.views.explorer_wish import MOST_TOKENS, Wish

if TYPE_CHECKING:
    from lrc_tl.views.explorer_widget import Explorer


@numbers_checked
def explore(
    model: HookedModel,
    concepts: ConceptSet,
    *,
    text: str | None = None,
    subject: str | None = None,
    remove: str | None = None,
    add: str | None = None,
    strength: float | None = None,
    max_new_tokens: int = 20,
) -> "Explorer":
    """A widget for JupyterLab, VS Code and marimo: a text, an edit of its subject, and what both do to the model.

    It shows how the set ranks its objects at the subject, how likely the model finds each, and the text that it
    goes on with, coloured by the concepts' scores, all before and after the edit; on a second page the
    probabilities and the side effects at every strength. What is given here are only the first values of its
    controls. Without `text` it is one of the relation's prompts, where the relation is built in; without
    `strength` the set's own `beta`. The model runs in a thread of its own: a newer wish ends what is under way,
    and passes of other cells on the same model take turns with it.

    Raises:
        FingerprintMismatch: the set was made on another model.
        ImportError: anywidget is not installed; the extra `notebook` has it.
        KeyError: no such concept.
        ValueError: the model has no tokenizer, the subject is not in the text, or a value is not one that its
            control allows.
    """
    widget: Any = _widget()
    if model.tokenizer is None:
        raise ValueError("the model has no tokenizer, so it cannot be given texts; load it with one")
    concepts.require_model(model)
    prompt = _first_prompt(concepts) if text is None else None
    if prompt is not None:
        text, subject = prompt.text, prompt.subject if subject is None else subject
        remove = prompt.object if remove is None and prompt.object in concepts else remove
    others = (name for name in concepts if remove is None or same_name(name) != same_name(remove))
    add = next(others, None) if add is None else add
    n_layers = int(model.cfg.n_layers)
    wish = {
        "number": 1,
        "text": text or "",
        "subject": subject or "",
        "remove": None if remove is None else concepts[remove].object_name,
        "add": None if add is None else concepts[add].object_name,
        "place": "subject",
        "layers": "all",
        "first_layer": concepts.layer,
        "last_layer": n_layers - 1,
        "strength": concepts.beta if strength is None else strength,
        "n_tokens": max_new_tokens,
        "view": "edit",
    }
    typed = wish if text else {**wish, "text": "text", "subject": ""}  # the first is still to be typed
    Wish.of(typed, concepts, n_layers=n_layers)
    offer = {
        "relation": concepts.relation,
        "model": _model_name(model, concepts),
        "layer": concepts.layer,
        "n_layers": n_layers,
        "concepts": list(concepts),
        "most_tokens": MOST_TOKENS,
    }
    explorer: Explorer = widget(model, concepts, offer=offer, wish=wish)
    return explorer


def _widget() -> Any:
    try:
        import anywidget  # noqa: F401
    except ImportError as error:
        raise ImportError(
            "the explorer needs the package anywidget; install lrc-tl with its extra: lrc-tl[notebook]"
        ) from error
    from lrc_tl.views.explorer_widget import Explorer

    return Explorer


def _first_prompt(concepts: ConceptSet) -> Prompt | None:
    """A prompt of the set's relation about one of its objects; None where the relation is not built in."""
    try:
        relation = find_relation([load_relation(name) for name in built_in_relations()], concepts.relation)
    except LookupError:
        return None
    return next((prompt for prompt in relation.prompts() if prompt.object in concepts), None)


def _model_name(model: HookedModel, concepts: ConceptSet) -> str:
    known = None if concepts.fingerprint is None else concepts.fingerprint.name
    return str(known or getattr(model.cfg, "model_name", None) or "model")
