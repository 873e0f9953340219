"""Singular values and cosines are those of the objects."""

import numpy as np
import pytest
import torch
from drawn import matplotlib_cells, matplotlib_lines, plotly_cells, plotly_lines
from tiny_directions import FINGERPRINT

import lrc_tl as lrc
from lrc_tl.views import plot_cosines, plot_singular_values

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")


def an_lre(seed, rank=5):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, rank, generator=generator) @ torch.randn(rank, 8, generator=generator)
    return lrc.LinearRelationalEmbedding(
        weight=weight,
        bias=torch.zeros(8),
        subject_layer=1,
        object_layer=2,
        object_aggregation="mean",
        n_prompts=1,
        prompts_hash="ab" * 32,
        relation="city in country",
        fingerprint=FINGERPRINT,
    )


def test_singular_values_are_drawn_up_to_the_numerical_rank_on_both_backends():
    lre = an_lre(0)
    expected = np.linalg.svd(lre.weight.double().numpy(), compute_uv=False)[:5]
    figure = plot_singular_values({"a": lre, "b": an_lre(1)})
    relative = plot_singular_values({"a": lre}, relative=True)
    for read in (plotly_lines, matplotlib_lines):
        assert list(read(figure)) == ["a", "b"]
        np.testing.assert_allclose(read(figure)["a"], np.column_stack([range(1, 6), expected]), rtol=1e-5)
        np.testing.assert_allclose(read(relative)["a"][:, 1], expected / expected[0], rtol=1e-5)
    assert "Numerical rank 5." in figure.note


def test_no_panel_has_more_than_six_lres():
    figure = plot_singular_values({(1, layer): an_lre(layer) for layer in range(2, 15)})
    assert [len(panel.series) for panel in figure.panels] == [6, 6, 1]
    assert figure.panels[0].series[0].name == "layer 1 to 2"
    with pytest.raises(ValueError, match="there are no LREs"):
        plot_singular_values({})


def a_set(vectors, **options):
    return lrc.ConceptSet(
        {
            f"<b>{place}</b> $x$": lrc.ConceptDirection(
                vector=torch.nn.functional.normalize(row, dim=0),
                relation="r",
                object_name=f"<b>{place}</b> $x$",
                hook_name="blocks.1.hook_resid_post",
                method="mean",
                **{name: rows[place] for name, rows in options.items()},
            )
            for place, row in enumerate(vectors)
        }
    )


def test_cosines_are_those_of_the_directions_with_similar_ones_beside_each_other():
    basis = torch.eye(6)
    # 0 and 3 point nearly the same way, 1 and 2 too.
    vectors = torch.stack([basis[0], basis[1], basis[1] + 0.1 * basis[2], basis[0] + 0.1 * basis[3], basis[4]])
    concepts = a_set(vectors)
    figure = plot_cosines(concepts)
    heat_map = figure.panels[0].heat_map
    order = [list(concepts).index(name) for name in heat_map.x_names]
    assert abs(order.index(0) - order.index(3)) == 1
    assert abs(order.index(1) - order.index(2)) == 1
    unit = vectors / vectors.norm(dim=1, keepdim=True)
    expected = (unit @ unit.T).numpy()[np.ix_(order, order)]
    np.testing.assert_allclose(plotly_cells(figure), expected, atol=1e-6)
    np.testing.assert_allclose(matplotlib_cells(figure), expected, atol=1e-6)
    assert (heat_map.limits, heat_map.top_down) == ((-1.0, 1.0), True)


def test_writing_vectors_have_a_panel_of_their_own():
    concepts = a_set(torch.eye(4)[:3], write_vector=(torch.ones(3, 4) + torch.eye(4)[:3]) / 7**0.5, norm=[1.0] * 3)
    figure = plot_cosines(concepts)
    assert [panel.title for panel in figure.panels] == ["reading vectors", "writing vectors"]
    np.testing.assert_allclose(plotly_cells(figure, 0), np.eye(3), atol=1e-6)
    assert (plotly_cells(figure, 1) > 0.8).all()
    with pytest.raises(ValueError, match="the set has 1 directions"):
        plot_cosines(a_set(torch.eye(2)[:1]))


def test_one_lre_is_drawn_under_its_relation_and_layers():
    figure = plot_singular_values(an_lre(0))
    assert figure.title == "Singular values of the LRE of 'city in country'"
    (line,) = figure.panels[0].series
    assert line.name == "layer 1 to 2"
    assert line == plot_singular_values({(1, 2): an_lre(0)}).panels[0].series[0]
