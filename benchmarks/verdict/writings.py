"""Other ways for `lrc-map-combined` to write, as methods of their own that `steering.py` compares with it.

Each writes with duals of another noise, even in all directions or in the metric of the next token, or lets class
means count otherwise. They are known to this process alone, not to a sweep's workers.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from lrc_tl.lre.dual_means import MeansShare
from lrc_tl.methods import fitting
from lrc_tl.methods.method import METHODS, Method


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How a variant writes."""

    noise: float
    in_metric: bool = False
    means: float = 1.0
    """What class means count, against 1 for the duals."""


WRITINGS: Mapping[str, Writing] = {
    "even-0.01": Writing(noise=0.01),
    "even-0.1": Writing(noise=0.1),
    "even-0.1-half": Writing(noise=0.1, means=0.5),
    "even-0.1-twice": Writing(noise=0.1, means=2.0),
    "even-1": Writing(noise=1.0),
    "metric-0.1": Writing(noise=0.1, in_metric=True),
}
"""By the name of the method. The default itself writes in the metric, with a noise of 1."""


def method_of(name: str, writing: Writing) -> Method:
    """The default with other writing vectors. Where these know no metric, neither do its reading vectors."""
    default = METHODS["lrc-map-combined"]
    metric = "next_token" if writing.in_metric else None
    parts = tuple(replace(part, write_noise=writing.noise, metric=metric) for part in default.combines)
    return replace(default, name=name, summary=f"writes {name}", combines=parts, write_noise=writing.noise)


def register() -> None:
    """Make the variants methods of the library, in this process."""
    (table,) = gc.get_referents(METHODS)  # the dict behind the read-only view
    table.update({name: method_of(name, writing) for name, writing in WRITINGS.items()})
    joined_with_means = fitting.joined_with_means

    def joined(*sets: Any, method: str, **options: Any) -> Any:
        if method in WRITINGS:
            options["share"] = MeansShare(writing=WRITINGS[method].means)
        return joined_with_means(*sets, method=method, **options)

    fitting.joined_with_means = joined  # type: ignore[assignment]


register()
