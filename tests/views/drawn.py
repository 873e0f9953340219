"""What stands in a drawn figure, read back from matplotlib's artists and from plotly's traces."""

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("plotly")
from matplotlib.collections import PathCollection, QuadMesh


def plotly_traces(figure, place=0):
    """The traces of one panel."""
    drawn = figure.plotly()
    suffix = "" if place == 0 else str(place + 1)
    return [trace for trace in drawn.data if (trace.xaxis or "x") == f"x{suffix}"]


def plotly_lines(figure, place=0):
    """Name -> points, of everything that has a name."""
    return {
        trace.name: np.column_stack([trace.x, trace.y]).astype(float)
        for trace in plotly_traces(figure, place)
        if trace.type == "scatter" and trace.name
    }


def plotly_cells(figure, place=0):
    """The heat map's values, row by row."""
    (trace,) = [trace for trace in plotly_traces(figure, place) if trace.type == "heatmap"]
    return np.array(trace.z, dtype=float)


def axes_of(figure, place=0):
    """Matplotlib's axes of one panel; colour bars come after all panels."""
    return figure.matplotlib().axes[place]


def matplotlib_lines(figure, place=0):
    """Name -> points, of lines and scattered marks."""
    axes = axes_of(figure, place)
    lines = {line.get_label(): np.array(line.get_xydata(), dtype=float) for line in axes.get_lines()}
    marks = [marks for marks in axes.collections if isinstance(marks, PathCollection)]
    return lines | {marks.get_label(): np.array(marks.get_offsets(), dtype=float) for marks in marks}


def matplotlib_cells(figure, place=0):
    """The heat map's values, row by row."""
    (mesh,) = [mesh for mesh in axes_of(figure, place).collections if isinstance(mesh, QuadMesh)]
    return np.ma.filled(mesh.get_array().astype(float), np.nan)


def bands(figure, place=0):
    """Corners (x, y) of matplotlib's bands, one set for each."""
    return [
        {(float(x), float(y)) for x, y in polygon.get_paths()[0].vertices}
        for polygon in axes_of(figure, place).collections
        if type(polygon).__name__ == "FillBetweenPolyCollection"
    ]
