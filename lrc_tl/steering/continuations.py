"""What `generate` gives: all continuations together, as a tuple that shows itself."""

from typing import TYPE_CHECKING, SupportsIndex, overload

import pandas as pd

from lrc_tl.steering.displays import continuations_html, continuations_text

if TYPE_CHECKING:
    from lrc_tl.steering.generation import Generated


class Continuations(tuple["Generated", ...]):
    """The results of one `generate`, prompts outermost; in a notebook a table by strength for each prompt."""

    __slots__ = ()

    @overload
    def __getitem__(self, place: SupportsIndex) -> "Generated": ...
    @overload
    def __getitem__(self, place: slice) -> "Continuations": ...
    def __getitem__(self, place: SupportsIndex | slice) -> "Generated | Continuations":
        if isinstance(place, slice):
            return Continuations(super().__getitem__(place))
        return super().__getitem__(place)

    def to_frame(self) -> pd.DataFrame:
        """One row per continuation: prompt, strength, sample, text, unsteered, mean_kl, n_changed, n_tokens.

        `mean_kl` is in nats; `n_changed` counts the tokens in place of which the unsteered model would have said
        another.
        """
        return pd.DataFrame(
            [
                (
                    result.prompt,
                    result.strength,
                    result.sample,
                    result.text,
                    result.unsteered,
                    result.mean_kl,
                    len(result.changed),
                    len(result.tokens),
                )
                for result in self
            ],
            columns=["prompt", "strength", "sample", "text", "unsteered", "mean_kl", "n_changed", "n_tokens"],
        )

    __repr__ = continuations_text
    _repr_html_ = continuations_html
