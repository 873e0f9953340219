"""Figures show the numbers of the result, in the right order."""

from dataclasses import replace

import pytest
from test_protocol_result import RECORDS, RESULT, at_betas, changed, record, with_kl

import lrc_tl as lrc
from lrc_tl.experiments.record import AskedEdit, AskedPrompt
from lrc_tl.views.plots import plot_curves, plot_relations, plot_sweep, save_plots

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


def test_relations_without_the_statistic_are_not_drawn():
    (axes,) = plot_relations(RESULT, first="lrc", second="mean", statistic="causality").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert [collection.get_label() for collection in axes.collections[1:]] == ["lrc", "mean"]


def swept(layers):
    """The first is right about one test prompt, the second about two, and so on."""
    records = []
    for one in (RECORDS[0], RECORDS[2]):
        methods = {}
        for number, layer in enumerate(layers):
            correct = tuple(place < number for place in range(one.n_prompts))
            methods[f"lrc@object={layer}"] = replace(
                one.methods["lrc"], object_layer=layer, rank=4, correct=correct, accuracy=number / one.n_prompts
            )
        records.append(replace(one, methods=methods))
    return lrc.ProtocolResult(records=tuple(records), methods=tuple(methods))


def test_a_sweep_is_a_line_over_its_values(tmp_path):
    figure = plot_sweep(swept([3, 5, 7]), over="object_layer")
    lines = {line.get_label(): line.get_xydata() for line in figure.axes[0].get_lines()}
    assert lines["lrc, accuracy"].tolist() == [[3, 0.0], [5, 0.1875], [7, 0.375]]
    assert lines["lrc, causality"][:, 1] == pytest.approx([0.875] * 3)
    apart = plot_sweep(swept([3, 5]), over="object_layer", statistics=["accuracy"], by_object_tokens=True)
    labels = {line.get_label() for line in apart.axes[0].get_lines()}
    assert labels == {"lrc, multi-token, accuracy", "lrc, single-token, accuracy"}


def test_what_the_result_lacks_is_refused_with_what_it_has():
    with pytest.raises(LookupError, match="no method 'svm'; it has lrc, mean"):
        plot_relations(RESULT)
    with pytest.raises(LookupError, match="no statistic 'acuracy'; it has seed, accuracy"):
        plot_relations(RESULT, second="mean", statistic="acuracy")
    with pytest.raises(LookupError, match="fewer than two values of rank; run a sweep over it"):
        plot_sweep(swept([3, 5]), over="rank")


def test_objects_of_one_and_of_several_tokens_are_counted_apart():
    one = record("a", 1, lrc=([True, False, True, True], [True, False, True, True]))
    edits = [("s0", "x", "y"), ("s1", "y", "x"), ("s2", "x", "z"), ("s3", "z", "y")]
    one = replace(
        one,
        test_prompts=tuple(AskedPrompt(f"s{n} is", f"s{n}", name) for n, name in enumerate("xyxz")),
        object_tokens=(1, 2, 1, 1),
        edits=tuple(AskedEdit(*edit) for edit in edits),
    )
    table = lrc.ProtocolResult(records=(one,), methods=("lrc",)).by_object_tokens().set_index("object")
    assert table.loc["single-token", ["accuracy", "n_prompts", "causality", "n_edits"]].tolist() == [1, 3, 1, 3]
    assert table.loc["multi-token", ["accuracy", "n_prompts", "causality", "n_edits"]].tolist() == [0, 1, 0, 1]


def test_curves_go_over_beta_and_over_side_effects():
    records = with_kl(RECORDS, lrc=(1, 2), mean=(1, 2))  # ten times their beta
    result = lrc.ProtocolResult(records=records, methods=("lrc", "mean"))
    over_beta, over_kl = plot_curves(result).axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in over_beta.get_lines()}
    # Relation a: (3/4 + 2/4) / 2 and (4/4 + 2/4) / 2 over its seeds; relation b: 6/6 twice.
    assert drawn["lrc"] == [[0.1, pytest.approx(0.8125)], [0.2, pytest.approx(0.875)]]
    assert drawn["mean"] == [[0.1, pytest.approx(0.375)], [0.2, pytest.approx((0.5 + 4 / 6) / 2)]]
    assert over_kl.get_lines()[0].get_xydata().tolist() == [[1.0, drawn["lrc"][0][1]], [2.0, drawn["lrc"][1][1]]]
    assert len(plot_curves(RESULT, methods=["mean"]).axes) == 1, "without side effects there is nothing beside"
    with pytest.raises(LookupError, match="no edits of 'own' layers"):
        plot_curves(RESULT, layers="own")
    with pytest.raises(LookupError, match="no method 'svm'; it has lrc, mean"):
        plot_curves(RESULT, methods=["svm"])


def test_curves_are_of_known_statistics_and_of_betas_that_all_relations_have():
    with pytest.raises(LookupError, match="the curves have no statistic 'beta'; they have causality, "):
        plot_curves(RESULT, statistic="beta")
    selected = tuple(at_betas(RECORDS[place], (beta, 0.2)) for place, beta in ((0, 0.3), (2, 0.5)))
    with pytest.raises(LookupError, match="or not the same for all relations"):
        plot_curves(lrc.ProtocolResult(records=selected, methods=("lrc", "mean")))


def at_layer(methods, layer):
    return {name: replace(method, subject_layer=layer) for name, method in methods.items()}


def test_layers_that_were_selected_are_no_sweep(tmp_path):
    at_zero = changed(RECORDS[:1], lambda methods: at_layer(methods, 0))
    selected = at_zero + changed(RECORDS[2:], lambda methods: at_layer(methods, 2))
    saved = save_plots(lrc.ProtocolResult(records=selected, methods=("lrc", "mean")), tmp_path)
    assert [path.name for path in saved] == ["relations.png", "curves.png", "curves_hard.png"]


def test_what_can_be_drawn_is_saved(tmp_path):
    saved = save_plots(RESULT, tmp_path / "new")
    assert [path.name for path in saved] == ["relations.png", "curves.png", "curves_hard.png"]
    names = [path.name for path in save_plots(swept([3, 5]), tmp_path)]
    assert names[-2:] == ["sweep_object_layer.png", "sweep_object_layer_by_tokens.png"]
    assert all(path.stat().st_size > 5000 for path in saved)


def test_a_result_draws_what_it_shows_best():
    def lines(figure):
        return {line.get_label() for line in figure.axes[0].get_lines()}

    over_layers = swept([3, 5, 7]).plot()
    assert over_layers.axes[0].get_xlabel() == "object layer"
    assert lines(over_layers) == {"lrc, accuracy", "lrc, causality"}
    assert RESULT.plot().axes[0].get_xlabel() == "beta"
    assert lines(RESULT.plot()) == {"lrc", "mean"}
    one_beta = [record("a", 1, lrc=([True, False], [True, False]), mean=([True, True], [True, True]))]
    relations = lrc.ProtocolResult(records=tuple(one_beta), methods=("lrc", "mean")).plot()
    assert [label.get_text() for label in relations.axes[0].get_yticklabels()] == ["a"]
    assert relations.axes[0].get_xlabel() == "accuracy"
    alone = lrc.ProtocolResult(records=tuple(one_beta), methods=("lrc",))
    with pytest.raises(LookupError, match="one method, lrc, at one setting and beta, which no figure can compare"):
        alone.plot()
