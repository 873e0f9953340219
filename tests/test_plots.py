"""Figures show the numbers of the result, in the right order."""

import pytest
from test_protocol_result import RECORDS, RESULT, record

import lrc_tl as lrc
from lrc_tl.plots import plot_relations, plot_sweep

pytest.importorskip("matplotlib")


def test_every_relation_has_its_two_means_ordered_by_their_difference(tmp_path):
    figure = plot_relations(RESULT, first="lrc", second="mean")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "d"]
    drawn = {collection.get_label(): collection.get_offsets().data for collection in axes.collections[1:]}
    assert drawn["lrc"][:, 0] == pytest.approx([0.75, 0.5, 0.8])
    assert drawn["mean"][:, 0] == pytest.approx([0.625, 0.25, 0.2])
    assert drawn["chance"][:, 0] == pytest.approx([0.25] * 3)
    figure.savefig(tmp_path / "relations.png")
    assert (tmp_path / "relations.png").stat().st_size > 5000


def test_relations_without_the_figure_are_not_drawn():
    (axes,) = plot_relations(RESULT, first="lrc", second="mean", figure="causality").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [collection.get_label() for collection in axes.collections[1:]] == ["lrc", "mean"]


def swept(layers):
    records = []
    for one in (RECORDS[0], RECORDS[2]):
        own = {
            f"lrc@object={layer}": {**one["methods"]["lrc"], "object_layer": layer, "rank": 4} for layer in layers
        }
        for number, layer in enumerate(layers):
            own[f"lrc@object={layer}"]["accuracy"] = 0.1 * number
        records.append({**one, "methods": own})
    return lrc.ProtocolResult(records=tuple(records), methods=tuple(own))


def test_a_sweep_is_a_line_over_its_values(tmp_path):
    figure = plot_sweep(swept([3, 5, 7]), over="object_layer")
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}
    assert lines["lrc, accuracy"].tolist() == [[3, 0.0], [5, 0.1], [7, 0.2]]
    assert lines["lrc, causality"][:, 1] == pytest.approx([0.875] * 3)
    apart = plot_sweep(swept([3, 5]), over="object_layer", figures=["accuracy"], by_object_tokens=True)
    labels = {line.get_label() for line in apart.axes[0].get_lines()}
    assert labels == {"lrc, multi-token, accuracy", "lrc, single-token, accuracy"}


def test_what_the_result_lacks_is_refused_with_what_it_has():
    with pytest.raises(LookupError, match="no method 'svm'; it has lrc, mean"):
        plot_relations(RESULT)
    with pytest.raises(LookupError, match="no figure 'acuracy'; it has seed, accuracy"):
        plot_relations(RESULT, second="mean", figure="acuracy")
    with pytest.raises(LookupError, match="fewer than two values of rank; run a sweep over it"):
        plot_sweep(swept([3, 5]), over="rank")


def test_objects_of_one_and_of_several_tokens_are_counted_apart():
    one = record("a", 1, lrc=([True, False, True, True], [True, False, True, True]))
    one["test_prompts"] = [[f"s{n} is", f"s{n}", name] for n, name in enumerate("xyxz")]
    one["object_tokens"] = [1, 2, 1, 1]
    one["edits"] = [["s0", "x", "y"], ["s1", "y", "x"], ["s2", "x", "z"], ["s3", "z", "y"]]
    table = lrc.ProtocolResult(records=(one,), methods=("lrc",)).by_object_tokens().set_index("object")
    assert table.loc["single-token", ["accuracy", "n_prompts", "causality", "n_edits"]].tolist() == [1, 3, 1, 3]
    assert table.loc["multi-token", ["accuracy", "n_prompts", "causality", "n_edits"]].tolist() == [0, 1, 0, 1]
