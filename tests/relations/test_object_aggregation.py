"""How objects are read: the same at all layers, or at each in its own way."""

import pytest

from lrc_tl.relations.object_aggregation import aggregations


def test_one_way_serves_all_layers_and_several_serve_their_own():
    assert aggregations([13, 11, 13], "mean") == {11: "mean", 13: "mean"}
    ways = {11: "mean", 13: "first_token", 17: "mean"}
    assert aggregations([13, 11], ways) == {11: "mean", 13: "first_token"}
    assert aggregations([], "mean") == {}


def test_a_layer_without_a_way_and_another_way_are_refused():
    with pytest.raises(ValueError, match=r"no entry for the object layers \[12\]; give one for each"):
        aggregations([11, 12], {11: "mean"})
    with pytest.raises(ValueError, match="object_aggregation is 'last'; allowed are 'mean' or 'first_token'"):
        aggregations([11], {11: "last"})
