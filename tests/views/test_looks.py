"""Series can be told apart: by colour for everyone, by dashes and marks without colour, on white and on dark."""

import itertools

import numpy as np
import pytest

from lrc_tl.views.looks import HEAT, LOOKS, MOST_LINES, SURFACES, look_of

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def linear(colour):
    values = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(rgb):
    """Ottosson 2020."""
    to_cones = [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
    to_lab = [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
    return np.array(to_lab) @ np.cbrt(np.clip(np.array(to_cones) @ rgb, 0, None))


def contrast(first, second):
    lights = [float(linear(colour) @ [0.2126, 0.7152, 0.0722]) for colour in (first, second)]
    return (max(lights) + 0.05) / (min(lights) + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_differ_for_every_sight(sight):
    seen = [oklab(np.clip(np.array(SIGHT[sight]) @ linear(look.colour), 0, 1)) for look in LOOKS]
    nearest = min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))
    assert nearest > 0.09  # about .02 can just be seen


@pytest.mark.parametrize("paper", ["#ffffff", "#111111"])
def test_colours_and_ink_can_be_read_on_white_and_on_dark(paper):
    assert all(contrast(look.colour, paper) >= 3 for look in LOOKS)
    assert contrast(SURFACES[None].ink, paper) >= 4


def test_ink_on_its_own_paper_has_the_contrast_of_text():
    for theme in ("light", "dark"):
        assert contrast(SURFACES[theme].ink, SURFACES[theme].paper) >= 12


def test_looks_differ_without_colour():
    assert (
        len({(look.dashes, look.marker) for look in LOOKS}) == len({look.dashes for look in LOOKS}) == MOST_LINES
    )
    assert len({look.marker for look in LOOKS}) == len({look.plotly_symbol for look in LOOKS}) == MOST_LINES
    assert len({look.plotly_dash for look in LOOKS}) == MOST_LINES
    assert look_of(MOST_LINES) == LOOKS[0]


def test_the_heat_scale_grows_lighter_all_along():
    mpl = pytest.importorskip("matplotlib")
    scale = mpl.colormaps[HEAT](np.linspace(0, 1, 64))[:, :3]
    lightness = [oklab(np.where(row <= 0.04045, row / 12.92, ((row + 0.055) / 1.055) ** 2.4))[0] for row in scale]
    assert (np.diff(lightness) > 0).all()
