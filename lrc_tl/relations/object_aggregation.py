"""How the tokens of an object are read at each object layer."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias, get_args

from lrc_tl.relations.prompts import ObjectAggregation

Aggregations: TypeAlias = ObjectAggregation | Mapping[int, ObjectAggregation]
"""The same at all object layers, or one for each of them."""


def aggregations(layers: Iterable[int], given: Aggregations) -> dict[int, ObjectAggregation]:
    """How the object is read at each layer.

    Raises:
        ValueError: another way to read it, or a layer for which none is given.
    """
    layers = sorted(set(layers))
    by_layer = dict(given) if isinstance(given, Mapping) else dict.fromkeys(layers, given)
    if without := [layer for layer in layers if layer not in by_layer]:
        raise ValueError(f"object_aggregation has no entry for the object layers {without}; give one for each")
    for aggregation in by_layer.values():
        if aggregation not in get_args(ObjectAggregation):
            allowed = " or ".join(map(repr, get_args(ObjectAggregation)))
            raise ValueError(f"object_aggregation is {aggregation!r}; allowed are {allowed}")
    return {layer: by_layer[layer] for layer in layers}
