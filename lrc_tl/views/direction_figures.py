"""Figures of single objects: the singular values of LREs, and how the directions of a set lie to each other."""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from lrc_tl.arguments.numbers_checked import numbers_checked
from lrc_tl.directions.concept_set import ConceptSet
from lrc_tl.lre.embedding import LinearRelationalEmbedding
from lrc_tl.views.figure import Axis, Figure, HeatMap, Panel, Series, log_axis
from lrc_tl.views.layer_figures import joined, laid_out
from lrc_tl.views.looks import MOST_LINES

_MOST_CONCEPTS = 400


@numbers_checked
def plot_singular_values(
    lres: LinearRelationalEmbedding
    | Mapping[str, LinearRelationalEmbedding]
    | Mapping[tuple[int, int], LinearRelationalEmbedding],
    *,
    relative: bool = False,
) -> Figure:
    """Singular values of one or several LREs, largest first, on logarithmic axes, up to each numerical rank.

    More than six LREs are drawn in several panels.

    Args:
        lres: an LRE, several by name, or what `fit_layer_grid` gives.
        relative: each as a share of its largest.

    Raises:
        ValueError: there are no LREs.
    """
    if isinstance(lres, LinearRelationalEmbedding):
        title = f"Singular values of the LRE of {lres.relation!r}"
        lres = {f"layer {lres.subject_layer} to {lres.object_layer}": lres}
    else:
        title = "Singular values of LREs"
    if not lres:
        raise ValueError("there are no LREs to draw; give at least one")
    lines, ranks = [], []
    for place, (key, lre) in enumerate(lres.items()):
        name = key if isinstance(key, str) else f"layer {key[0]} to {key[1]}"
        values = lre.singular_values.double().cpu()
        rank = lre.numerical_rank
        values = (values / values[0] if relative else values)[:rank]
        ranks.append(rank)
        lines.append(
            Series(
                name=name,
                x=tuple(map(float, range(1, rank + 1))),
                y=tuple(values.tolist()),
                look=place % MOST_LINES,
                details=tuple(f"{name}, number {n}: {value:.4g}" for n, value in enumerate(values.tolist(), 1)),
            )
        )
    y = "share of the largest singular value" if relative else "singular value"
    panels = tuple(
        Panel(
            x=log_axis("number", (1, *ranks)),
            y=log_axis(y, (value for line in lines for value in line.y)),
            series=tuple(lines[start : start + MOST_LINES]),
        )
        for start in range(0, len(lines), MOST_LINES)
    )
    shown = f"{min(ranks)}" if min(ranks) == max(ranks) else f"{min(ranks)} to {max(ranks)}"
    return Figure(title=title, panels=panels, note=joined(f"Numerical rank {shown}"), **laid_out(len(panels)))


def plot_cosines(concepts: ConceptSet) -> Figure:
    """Cosines between the directions of a set, similar ones beside each other (average linkage on 1 - cosine).

    A set whose directions write with other vectors than they read with has a panel for each, in the same order.

    Raises:
        ValueError: the set has fewer than two directions, or more than 400.
    """
    names = list(concepts)
    if not 1 < len(names) <= _MOST_CONCEPTS:
        raise ValueError(f"the set has {len(names)} directions; cosines of 2 to {_MOST_CONCEPTS} can be drawn")
    read = torch.stack([direction.vector for direction in concepts.values()])
    write = torch.stack(
        [
            direction.vector if direction.write_vector is None else direction.write_vector
            for direction in concepts.values()
        ]
    )
    order = _similar_beside(_cosines(read))
    kinds = {"": read} if torch.equal(read, write) else {"reading vectors": read, "writing vectors": write}
    panels = []
    size = max(3.6, min(9.0, 1.9 + 0.3 * len(names)))
    for title, vectors in kinds.items():
        cosines = _cosines(vectors)[np.ix_(order, order)]
        ordered = tuple(names[place] for place in order)
        panels.append(
            Panel(
                title=title,
                x=Axis(label=""),
                y=Axis(label=""),
                heat_map=HeatMap(
                    x_names=ordered,
                    y_names=ordered,
                    values=tuple(tuple(map(float, row)) for row in cosines),
                    label="cosine",
                    limits=(-1.0, 1.0),
                    details=tuple(
                        tuple(f"{one}, {other}: {value:.3f}" for other, value in zip(ordered, row, strict=True))
                        for one, row in zip(ordered, cosines, strict=True)
                    ),
                    top_down=True,
                ),
            )
        )
    off = _cosines(read)[~np.eye(len(names), dtype=bool)]
    note = f"{len(names)} directions at {concepts.hook_name}; cosines of different ones: mean {off.mean():.2f}"
    return Figure(
        title=f"Cosines between the concepts of {concepts.relation!r}",
        panels=tuple(panels),
        note=joined(f"{note}, {off.min():.2f} to {off.max():.2f}"),
        columns=len(panels),
        panel_size=(size + 0.6, size),
    )


def _cosines(vectors: torch.Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    unit = torch.nn.functional.normalize(vectors.detach().double().cpu(), dim=-1)
    cosines: np.ndarray[tuple[int, int], np.dtype[np.float64]] = (unit @ unit.T).clamp(-1, 1).numpy()
    return cosines


def _similar_beside(cosines: np.ndarray[tuple[int, int], np.dtype[np.float64]]) -> list[int]:
    if len(cosines) < 3:
        return list(range(len(cosines)))
    distances = 1 - cosines
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), method="average", optimal_ordering=len(cosines) <= 100)
    return [int(place) for place in leaves_list(tree)]
