"""ConceptDirection and ConceptSet: a linear probe and a steering hook in one."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from beartype import beartype
from jaxtyping import Float, jaxtyped
from torch import Tensor

from lrc_tl.activations import subject_activations
from lrc_tl.models import HookedModel, require_hook
from lrc_tl.prompts import Prompt

Hook = Callable[..., Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class ConceptDirection:
    """The unit vector along which a model holds `relation` -> `object_name`; it reads and it writes.

    Raises:
        ValueError: the vector is not finite or not of unit length.
    """

    vector: Float[Tensor, " d_model"]
    """Unit L2 norm, float32 or wider."""
    relation: str
    object_name: str
    hook_name: str
    """Where it was trained and where it acts, e.g. `"blocks.6.hook_resid_post"`."""

    def __post_init__(self) -> None:
        norm = float(self.vector.norm())
        if not abs(norm - 1) < 1e-4:
            raise ValueError(f"the direction of {self.object_name!r} has norm {norm}; it must be a unit vector")

    @classmethod
    def from_unscaled(
        cls, vector: Float[Tensor, " d_model"], *, relation: str, object_name: str, hook_name: str
    ) -> "ConceptDirection":
        """A direction from a vector of any length but zero, scaled in float32 or wider."""
        wide = vector.to(torch.promote_types(vector.dtype, torch.float32))
        return cls(vector=wide / wide.norm(), relation=relation, object_name=object_name, hook_name=hook_name)

    @jaxtyped(typechecker=beartype)
    def score(self, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch"]:
        """Dot product with the direction, in residual-stream units."""
        scores: Tensor = resid.to(self.vector) @ self.vector
        return scores

    def hook(self, *, strength: float, unit: Literal["share", "absolute"] = "share") -> tuple[str, Hook]:
        """`(hook_name, fn)` that adds the direction at every position that it sees.

        `strength` is a share of `|h|` at each position, or residual-stream units with `unit="absolute"`.

        Raises:
            ValueError: `strength` is not finite.
        """
        if not torch.isfinite(torch.tensor(strength)):
            raise ValueError(f"strength is {strength}; it must be a finite number")

        def add(residual: Tensor, hook: Any) -> Tensor:
            vector = self.vector.to(residual)
            if unit == "absolute":
                return residual + strength * vector
            shift: Tensor = strength * residual.norm(dim=-1, keepdim=True) * vector
            return residual + shift

        return self.hook_name, add

    @contextmanager
    def steer(
        self, model: HookedModel, *, strength: float, unit: Literal["share", "absolute"] = "share"
    ) -> Iterator[None]:
        """The hook is on inside the block and gone outside, whatever happens.

        Raises:
            LookupError: the model has no such hook point.
            ValueError: `strength` is not finite.
        """
        require_hook(model, self.hook_name)
        with model.hooks(fwd_hooks=[self.hook(strength=strength, unit=unit)]):
            yield


class ConceptSet(Mapping[str, ConceptDirection]):
    """Directions of one relation by object; iteration follows the order in which they were given.

    Raises:
        ValueError: no directions, or directions of different hook points.
    """

    def __init__(self, directions: Mapping[str, ConceptDirection]) -> None:
        names = {direction.hook_name for direction in directions.values()}
        if len(names) != 1:
            raise ValueError(f"a set needs directions of one hook point; given are {sorted(names) or 'none'}")
        self._directions = dict(directions)
        self.hook_name = names.pop()

    def __getitem__(self, object_name: str) -> ConceptDirection:
        if object_name not in self._directions:
            raise KeyError(f"no concept {object_name!r}; there are {', '.join(self._directions)}")
        return self._directions[object_name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._directions)

    def __len__(self) -> int:
        return len(self._directions)

    @property
    def vectors(self) -> Float[Tensor, "concept d_model"]:
        """All directions, one a row."""
        return torch.stack([direction.vector for direction in self._directions.values()])

    def classify(self, model: HookedModel, text: str, *, subject: str) -> list[tuple[str, float]]:
        """Objects with their scores, best first, for the last subject token (arXiv:2311.08968, eq. 6).

        Raises:
            ValueError: the set has one object only, so there is nothing to choose from.
        """
        if len(self) < 2:
            raise ValueError("a set with one object cannot classify; make concepts from prompts with two or more")
        prompt = Prompt(text=text, subject=subject, object=next(iter(self)))
        layer = int(self.hook_name.split(".")[1])
        activation = subject_activations(model, [prompt], layer=layer)[0]
        scores = (self.vectors @ activation.to(self.vectors)).tolist()
        return sorted(zip(self, scores, strict=True), key=lambda pair: pair[1], reverse=True)
