"""The colours of lines can be told apart, with any kind of colour blindness."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.newest_only

CSS = (ROOT / "otel_dllogger" / "view" / "page" / "chart.css").read_text()
COLOURS = re.findall(r"--line-\d: (#[0-9a-f]{6});", CSS)
BACKGROUNDS = re.findall(r"--chart-back: (#[0-9a-f]{6});", CSS)
LEAST_DISTANCE = 15.0  # of CIELAB; 2.3 is just noticeable side by side
LEAST_CONTRAST = 3.0  # WCAG 2.2, 1.4.11

# How linear RGB looks with each kind of colour blindness: Machado, Oliveira and Fernandes 2009.
VISIONS = {
    "all colours": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = TO_XYZ.sum(axis=1)


def linear(colour):
    parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    ratio = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def luminance(colour):
    return float(TO_XYZ[1] @ linear(colour))


def palettes():
    assert (16, 2) == (len(COLOURS), len(BACKGROUNDS))
    return {"light": (COLOURS[:8], BACKGROUNDS[0]), "dark": (COLOURS[8:], BACKGROUNDS[1])}


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_pair_of_colours_can_be_told_apart(scheme, vision):
    colours, _back = palettes()[scheme]
    seen = {colour: lab(VISIONS[vision] @ linear(colour)) for colour in colours}
    near = {
        pair: math.dist(seen[pair[0]], seen[pair[1]]) for pair in itertools.combinations(colours, 2)
    }
    assert {pair: far for pair, far in near.items() if far < LEAST_DISTANCE} == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_each_colour_stands_out_from_the_background(scheme):
    colours, back = palettes()[scheme]
    for colour in colours:
        dark, bright = sorted((luminance(colour), luminance(back)))
        assert (bright + 0.05) / (dark + 0.05) >= LEAST_CONTRAST, colour
