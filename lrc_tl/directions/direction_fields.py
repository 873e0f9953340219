"""What the names, the vector and the numbers of a direction must be, and how they are shown."""

import math
from typing import TYPE_CHECKING

import torch

from lrc_tl.directions.writing import OWN_VECTOR, writing_vector
from lrc_tl.errors import unprintable

if TYPE_CHECKING:
    from lrc_tl.directions.concept_direction import ConceptDirection


def require_fields(direction: "ConceptDirection") -> None:
    """Check all of them but the writing vector.

    Raises:
        ValueError: the vector is not one finite vector of unit length in float32 or wider, norm or offset is not
            finite, or a name holds control characters.
    """
    for field in ("relation", "object_name", "method", "hook_name"):
        if unprintable(getattr(direction, field)):
            raise ValueError(
                f"the {field} of a direction, {getattr(direction, field)!r}, holds a control character or half of "
                "a surrogate pair, which tables and files cannot show; take it out"
            )
    name, vector = repr(direction.object_name), direction.vector
    if vector.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"the direction of {name} is {vector.dtype}; it must be float32 or float64; use from_unscaled"
        )
    if vector.ndim != 1:
        raise ValueError(f"the direction of {name} has the shape {tuple(vector.shape)}; it must be one vector")
    length = float(vector.norm())
    if not abs(length - 1) < 1e-4:
        raise ValueError(f"the direction of {name} has norm {length}; it must be a unit vector")
    if direction.offset is None or not math.isfinite(direction.offset):
        raise ValueError(f"the offset of {name} is {direction.offset}; it must be a finite number")
    if direction.norm is not None and not math.isfinite(direction.norm):
        raise ValueError(f"the norm of {name} is {direction.norm}; it must be a finite number")


def description(direction: "ConceptDirection") -> str:
    """One line that says what the direction is, and a second one where it writes with another vector."""
    norm = "not recorded" if direction.norm is None else f"{direction.norm:.4g}"
    first = (
        f"ConceptDirection({direction.relation!r}: {direction.object_name!r} at {direction.hook_name}, "
        f"{direction.method}, norm {norm})"
    )
    if direction.write_rule == OWN_VECTOR:
        return first
    cosine = float(direction.vector.double() @ writing_vector(direction).double())
    # Only Sigma v keeps u.h for every u with u.Sigma.v = 0.
    kept = "" if direction.write_rule == "covariance" else "; directions uncorrelated with it are not kept"
    return f"{first}\n  writes with another vector, cosine {cosine:.2g}{kept}"
