"""A result draws what it shows best, with the numbers of the result."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from drawn import matplotlib_lines
from made_up_sweep import sweep_frame
from test_protocol_result import RECORDS, RESULT, at_betas, changed, record, with_kl

import lrc_tl as lrc
from lrc_tl.experiments.record import AskedEdit, AskedPrompt
from lrc_tl.views import (
    plot_curves,
    plot_layers,
    plot_object_tokens,
    plot_ranks,
    plot_relations,
    plot_sweep,
    save_plots,
)
from lrc_tl.views.plots import drawable_kinds, figures_of
from lrc_tl.views.tidy import metric_of, tidy_frame

pytest.importorskip("matplotlib")


def test_every_relation_of_a_benchmark_has_its_two_means_and_chance(tmp_path):
    figure = plot_relations(RESULT, first="lrc", second="mean")
    assert figure.panels[0].y.tick_labels == ("a", "b", "d")
    drawn = matplotlib_lines(figure)
    assert drawn["lrc"][:, 0] == pytest.approx([0.75, 0.5, 0.8])
    assert drawn["mean"][:, 0] == pytest.approx([0.625, 0.25, 0.2])
    assert drawn["chance"][:, 0] == pytest.approx([0.25] * 3)
    assert figure.save(tmp_path / "relations.png").stat().st_size > 5000


def test_relations_without_the_metric_are_not_drawn():
    figure = plot_relations(RESULT, first="lrc", second="mean", metric="causality", where={"beta": 0.1})
    assert figure.panels[0].y.tick_labels == ("a", "b")
    assert list(matplotlib_lines(figure)) == ["lrc", "mean"]


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


def test_a_sweep_of_the_protocol_is_a_line_over_its_values():
    lines = matplotlib_lines(plot_layers(swept([3, 5, 7])))
    assert lines["accuracy"].tolist() == [[3, 0.0], [5, 0.1875], [7, 0.375]]
    assert lines["causality"][:, 1] == pytest.approx([0.875] * 3)
    apart = plot_object_tokens(swept([3, 5]))
    assert list(matplotlib_lines(apart)) == ["single-token objects", "multi-token objects"]
    frame = swept([3, 5]).by_object_tokens()
    single = frame[frame["object"] == "single-token"].sort_values("object_layer")
    np.testing.assert_allclose(matplotlib_lines(apart)["single-token objects"][:, 1], single["accuracy"])


def test_what_the_result_lacks_is_refused_with_what_it_has():
    with pytest.raises(LookupError, match="no method 'svm'; it has lrc, mean"):
        plot_relations(RESULT, second="svm")
    with pytest.raises(LookupError, match="no metric 'acuracy'; it has accuracy, top3"):
        plot_relations(RESULT, second="mean", metric="acuracy")
    with pytest.raises(LookupError, match="fewer than two values of rank; run a sweep over it"):
        plot_ranks(swept([3, 5]))
    with pytest.raises(ValueError, match="kind='heat' is no kind of figure; there are grid, layers"):
        plot_sweep(RESULT, kind="heat")


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


def test_curves_of_a_benchmark_go_over_beta_and_over_side_effects():
    records = with_kl(RECORDS, lrc=(1, 2), mean=(1, 2))  # ten times their beta
    figure = plot_curves(lrc.ProtocolResult(records=records, methods=("lrc", "mean")))
    drawn = matplotlib_lines(figure)
    # Relation a: (3/4 + 2/4) / 2 and (4/4 + 2/4) / 2 over its seeds; relation b: 6/6 twice.
    np.testing.assert_allclose(drawn["lrc"], [[0.1, 0.8125], [0.2, 0.875]])
    np.testing.assert_allclose(drawn["mean"], [[0.1, 0.375], [0.2, (0.5 + 4 / 6) / 2]])
    over_kl = matplotlib_lines(figure, 1)["lrc"]
    np.testing.assert_allclose(over_kl, [[1.0, drawn["lrc"][0][1]], [2.0, drawn["lrc"][1][1]]])
    assert len(plot_curves(RESULT, methods=["mean"]).panels) == 1, "without side effects there is nothing beside"
    with pytest.raises(LookupError, match="no row has place 'subject'; there are all"):
        plot_curves(RESULT, where={"place": "subject"})


def test_betas_that_were_selected_for_each_relation_are_no_curve():
    selected = tuple(at_betas(RECORDS[place], (beta, 0.2)) for place, beta in ((0, 0.3), (2, 0.5)))
    with pytest.raises(LookupError, match="or not the same for all relations"):
        plot_curves(lrc.ProtocolResult(records=selected, methods=("lrc", "mean")))


def at_layer(methods, layer):
    return {name: replace(method, subject_layer=layer) for name, method in methods.items()}


def test_layers_that_were_selected_are_no_sweep(tmp_path):
    at_zero = changed(RECORDS[:1], lambda methods: at_layer(methods, 0))
    selected = at_zero + changed(RECORDS[2:], lambda methods: at_layer(methods, 2))
    saved = save_plots(lrc.ProtocolResult(records=selected, methods=("lrc", "mean")), tmp_path)
    assert [path.name for path in saved] == ["curves.png", "curves_hard.png", "relations.png"]


def test_what_can_be_drawn_is_saved(tmp_path):
    saved = save_plots(RESULT, tmp_path / "new")
    assert [path.name for path in saved] == ["curves.png", "curves_hard.png", "relations.png"]
    names = [path.name for path in save_plots(swept([3, 5]), tmp_path)]
    assert names[:2] == ["sweep_object_layer.png", "sweep_object_layer_by_tokens.png"]
    assert all(path.stat().st_size > 5000 for path in saved)


def test_a_benchmark_draws_what_it_shows_best():
    over_layers = swept([3, 5, 7]).plot()
    assert over_layers.panels[0].x.label == "object layer"
    assert list(matplotlib_lines(over_layers)) == ["accuracy", "causality"]
    assert RESULT.plot().panels[0].x.label.startswith("beta")
    assert list(matplotlib_lines(RESULT.plot())) == ["lrc", "mean"]
    assert list(matplotlib_lines(RESULT.plot(methods=["mean"]))) == ["mean"]
    one_beta = [record("a", 1, lrc=([True, False], [True, False]), mean=([True, True], [True, True]))]
    relations = lrc.ProtocolResult(records=tuple(one_beta), methods=("lrc", "mean")).plot()
    assert relations.panels[0].y.tick_labels == ("a",)
    assert relations.panels[0].x.label == "accuracy"
    alone = lrc.ProtocolResult(records=tuple(one_beta), methods=("lrc",))
    with pytest.raises(LookupError, match="one method, lrc, at one setting and beta, which no figure can compare"):
        alone.plot()


@pytest.mark.parametrize(
    ("axes", "kind"),
    [
        ({}, "grid"),
        ({"object_layers": [12]}, "layers"),
        ({"object_layers": [12], "subject_layers": [6]}, "ranks"),
        ({"object_layers": [12], "subject_layers": [6], "ranks": [64]}, "curves"),
        ({"object_layers": [12], "subject_layers": [6], "ranks": [64], "betas": [0.05]}, "relations"),
    ],
)
def test_a_sweep_draws_the_axes_that_it_has(axes, kind):
    frame = sweep_frame(**axes)
    assert drawable_kinds(tidy_frame(frame))[0] == kind
    assert plot_sweep(frame) == plot_sweep(frame, kind=kind)


def test_every_kind_takes_the_options_of_plot_sweep():
    frame = sweep_frame()
    assert plot_sweep(frame, metric="hard_causality").title.startswith("New object said: subject by object layer")
    assert plot_sweep(frame, kind="ranks", metric="causality").panels[0].series[0].name == "causality"
    assert plot_sweep(frame, kind="relations", methods=["svm", "lrc-map"]).title.startswith("svm and lrc-map")
    assert len(plot_sweep(frame, kind="trade_off", methods=["svm"], where={"subject_layer": 5}).legend) == 1
    centred = plot_sweep(frame, kind="layers", reading="centred", where={"object_layer": 12})
    assert "Scores are centred." in centred.note


def test_a_sweep_has_all_of_its_figures():
    assert list(figures_of(sweep_frame())) == [
        "grid_accuracy",
        "grid_causality",
        "grid_hard_causality",
        "sweep_object_layer",
        "sweep_subject_layer",
        "sweep_rank",
        "curves",
        "curves_hard",
        "relations",
    ]


WITHOUT_ACCURACY = [("causality",), ("hard_causality", "kl_elsewhere"), ("kl_elsewhere",), ("top3", "causality")]


def frame_with(metrics, **axes):
    frame = sweep_frame(relations=("a", "b"), seeds=(0,), ranks=(16, 64), **axes)
    accuracies = frame[(frame["metric"] == "accuracy") & (frame["reading"] == "plain")]
    frame = pd.concat([frame, accuracies.assign(metric="top3")], ignore_index=True)
    return frame[frame["metric"].isin(metrics)]


@pytest.mark.parametrize("metrics", WITHOUT_ACCURACY, ids=" ".join)
@pytest.mark.parametrize("object_layers", [(10, 12), (12,)], ids=str)
def test_rows_without_accuracy_are_drawn_by_the_metric_that_they_have(metrics, object_layers):
    frame = frame_with(metrics, subject_layers=(4, 6), object_layers=object_layers)
    figures = figures_of(frame)
    assert {"sweep_subject_layer", "sweep_rank", "relations"} <= set(figures)
    assert ("grid_" + metrics[0] in figures) == (len(object_layers) > 1)
    (kind, *_) = drawable_kinds(tidy_frame(frame))
    assert plot_sweep(frame) == plot_sweep(frame, kind=kind, metric=metrics[0])
    relations = figures["relations"].panels[0]
    assert relations.x.label == metric_of(metrics[0]).label
    by_hand = frame[(frame["metric"] == metrics[0]) & (frame["method"] == "svm")]
    assert set(matplotlib_lines(figures["relations"])["svm"][:, 0]) <= set(by_hand["value"])
