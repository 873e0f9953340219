"""Which beta an edit of eq. 7 gets where none is given. Needs no torch."""

import math
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

from lrc_tl.arguments.plain_numbers import real_number

DEFAULT_BETA = 0.005
"""Taken where no beta is given and none is stored with the concepts. Of the sizes with side effects within the
limits of `lrc_tl.tuning.beta_choice`, the one after which two small models say the new object most often, on
training facts of built-in relations (`benchmarks/default_beta.py`, with its results). It is only a start:
the right size depends on model, layers and rank, so let `select_settings` choose one. On Gemma 3 270M at README's
settings it is this, at the presets' less than half of it; on SmolLM2 135M edits of this size do nothing yet. The
paper's 0.1 (arXiv:2311.08968) is twenty times as large: on Gemma it makes the new object likelier than the old
one, but the model seldom says it, and other texts break."""
BETA_KEY = "beta"
"""Where `ConceptSet.settings` holds the beta that was chosen for the set."""

BetaSource: TypeAlias = Literal["given", "stored with the concepts", "default"]


def beta_or_stored(beta: float | None, settings: Mapping[str, Any]) -> tuple[float, BetaSource]:
    """The beta to use, and where it comes from: given, else stored in a set's `settings`, else `DEFAULT_BETA`.

    Raises:
        TypeError: `beta` is no number.
        ValueError: what is stored is no finite number.
    """
    if beta is not None:
        return real_number(beta, "beta"), "given"
    stored = settings.get(BETA_KEY)
    if stored is not None:
        if isinstance(stored, bool) or not isinstance(stored, (int, float)) or not math.isfinite(stored):
            raise ValueError(f"the beta stored with the concepts is {stored!r}; it must be a finite number")
        return float(stored), "stored with the concepts"
    return DEFAULT_BETA, "default"
