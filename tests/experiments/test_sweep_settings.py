"""Settings, cells and plans of sweeps: what is refused before anything runs, and what a plan counts."""

from dataclasses import replace

import pytest
from spoken import spoken_relations
from tiny_sweep import SETTINGS

import lrc_tl as lrc
from lrc_tl.experiments.settings import ExperimentSettings
from lrc_tl.experiments.sweep_cells import sweep_cells
from lrc_tl.experiments.sweep_settings import SweepSettings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ()}, "methods: none were given; give at least one"),
        ({"methods": ("lrc", "lrc")}, "'lrc' was given 2 times"),
        ({"methods": "lcr"}, "no method 'lcr'; did you mean lrc"),
        ({"subject_layers": ()}, "subject_layers: none were given"),
        ({"object_layers": ()}, "object_layers: none were given"),
        ({"ranks": ()}, "ranks: none were given"),
        ({"ranks": (2, 2)}, "ranks: 2 was given 2 times"),
        ({"ranks": 0}, "ranks: 0 was given; it must be 1 or more"),
        ({"betas": ()}, "betas: none were given"),
        ({"betas": float("nan")}, "betas: nan was given; give finite numbers"),
        ({"ridges": (0.1, 0.0)}, "ridges: 0.0 was given; it must be above 0"),
        ({"noises": -1.0}, "noise is -1.0; it must be above 0"),
        ({"places": "everywhere"}, "places: there is no 'everywhere'; there are all, from, subject"),
        ({"metrics": "acuracy"}, r"metrics: there is no 'acuracy'; did you mean accuracy"),
        ({"seeds": ()}, "seeds: none were given"),
        ({"shots": -1}, "shots: -1 was given; it must be 0 or more"),
        ({"validation": 1.0}, "validation is 1.0; it is a share, from 0 to below 1"),
        ({"validation": 0, "validation_edits": 3}, "validation_edits needs validation facts"),
        ({"max_edits": 0}, "max_edits is 0; it must be 1 or more"),
        ({"solver": "fast"}, "fast"),
        ({"methods": "lrc-ridge", "solver": "low_rank"}, "lrc-ridge needs all singular values"),
    ],
)
def test_bad_settings_are_refused_in_one_line(changes, message):
    with pytest.raises(ValueError, match=message) as refused:
        replace(SETTINGS, **changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("changes", [{"ranks": (2.5,)}, {"seeds": (True,)}, {"betas": ("a",)}, {"places": (1,)}])
def test_what_is_no_number_or_name_is_refused(changes):
    with pytest.raises(TypeError):
        replace(SETTINGS, **changes)


def test_settings_come_back_from_plain_values_and_share_their_defaults_with_the_protocol():
    settings = replace(SETTINGS, ridges=0.2, methods=("lrc-ridge", "mean"), validation_edits=3)
    assert SweepSettings.from_dict(settings.to_dict()) == settings
    with pytest.raises(ValueError, match="settings of a sweep have no colour"):
        SweepSettings.from_dict({**settings.to_dict(), "colour": 1})
    defaults, protocol = SweepSettings(methods="mean", subject_layers=0), ExperimentSettings()
    assert defaults.shots == (protocol.shots,)
    assert defaults.max_lre_prompts == (protocol.max_lre_prompts,)
    assert defaults.n_side_effects == protocol.n_side_effects


def test_axes_apply_to_the_methods_that_have_them():
    settings = SweepSettings(
        methods=("lrc", "lrc-ridge", "lrc-map", "svm"), subject_layers=(0, 2), object_layers=(1, 3), ranks=(2, 4),
        ridges=(0.1, 0.2, 0.3), noises=(1.0, 3.0), max_lre_prompts=(5, 10), shots=(0, 4),
    )  # fmt: skip
    cells = sweep_cells(settings, 4)
    counts = {name: sum(cell.method == name for cell in cells) for name in settings.methods}
    # Pairs (0, 1), (0, 3), (2, 3); the last layer is 3.
    assert counts == {"lrc": 3 * 2 * 4, "lrc-ridge": 3 * 3 * 4, "lrc-map": 2 * 2 * 4, "svm": 2 * 2}
    assert len({cell.name for cell in cells}) == len(set(cells)) == len(cells)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"subject_layers": 3}, "subject_layers: there is no layer 3; this model has layers 0 to 2"),
        ({"subject_layers": (0, -3)}, "subject_layers: 0 was given 2 times"),
        ({"subject_layers": (1, 2), "object_layers": (0, 2)}, "object_layers: 0 is not above any subject layer"),
        ({"ranks": 13}, "ranks: 13 was given, and the model's residual stream has width 12"),
    ],
)
def test_what_the_model_has_not_is_refused_before_it_runs(word_model, changes, message):
    relation = lrc.Relation.from_pairs("r", [("w1", "w2"), ("w3", "w2")], templates=["{} w5"])
    for call in (lrc.plan_sweep, lrc.run_sweep):
        with pytest.raises(ValueError, match=message):
            call(word_model, relation, settings=replace(SETTINGS, **changes))


def test_a_plan_counts_products_and_rows_and_what_sharing_saves(word_model, tmp_path):
    relations = spoken_relations(word_model, 2)
    settings = replace(SETTINGS, object_layers=(1, 2), validation_edits=3)
    plan = lrc.plan_sweep(word_model, relations, settings=settings, out=tmp_path)
    assert len(plan.units) == 4
    # lrc at the pairs (0, 1), (0, 2), (1, 2) and two ranks; 4 prompts, 12 rows each, to two object layers.
    assert plan.products == 4 * (4 * 12 * 2)
    assert plan.products_cell_by_cell == 4 * (6 * 4 * 12)
    assert plan.texts < plan.texts_cell_by_cell
    assert "times as many" in str(plan)
    result = lrc.run_sweep(word_model, relations, settings=settings, out=tmp_path)
    assert len(result.to_frame()) <= plan.rows
    again = lrc.plan_sweep(word_model, relations, settings=settings, out=tmp_path, resume=True)
    assert (again.units, again.products, again.n_finished) == ((), 0, 4 * 8)
    grown = lrc.plan_sweep(
        word_model, relations, settings=replace(settings, seeds=(1, 2, 3)), out=tmp_path, resume=True
    )
    assert [(unit.relation.name, unit.seed) for unit in grown.units] == [(r.name, 3) for r in relations]
    shard = lrc.plan_sweep(word_model, relations, settings=settings, shard="1/3")
    assert [(unit.relation.name, unit.seed) for unit in shard.units] == [(relations[0].name, 2)]


def test_the_sizes_of_a_model_are_read_from_its_folder(tmp_path):
    from tiny_sweep import model_folder

    from lrc_tl.models.sizes import model_sizes

    folder, _, _ = model_folder(tmp_path)
    sizes = model_sizes(folder)
    assert (sizes.n_layers, sizes.d_model) == (3, 12)
    with pytest.raises(lrc.errors.ModelError, match="no packaged model 'packaged:x'"):
        model_sizes("packaged:x")


def test_a_low_rank_sweep_may_not_grow_along_the_axes_that_it_fits_together():
    given = {"methods": ("lrc",), "subject_layers": (0, 1), "object_layers": 2, "ranks": (2, 4)}
    for solver, fixed in (("exact", False), ("low_rank", True)):
        settings = lrc.SweepSettings(**given, solver=solver)
        for name, value in (("ranks", (2, 4, 8)), ("subject_layers", (0,)), ("methods", ("lrc", "svm"))):
            grown = replace(settings, **{name: value})
            assert (grown.shared() != settings.shared()) == fixed, (solver, name)
        assert replace(settings, seeds=(7, 8)).shared() == settings.shared()


def test_noises_are_of_methods_without_one_of_their_own():
    settings = lrc.SweepSettings(
        methods=("lrc-map", "lrc-fisher", "lrc-map-combined"), subject_layers=1, object_layers=2, noises=(1.0, 3.0)
    )
    cells = [(cell.method, cell.noise) for cell in sweep_cells(settings, 4)]
    assert cells == [("lrc-map", 1.0), ("lrc-map", 3.0), ("lrc-fisher", None), ("lrc-map-combined", None)]
