"""Art styles: how a drawing's shapes are painted. One style is never seen in any training."""

from __future__ import annotations

import colorsys
import random
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from functools import cache

from slq.miniature.world.concepts import concepts

SVG = "http://www.w3.org/2000/svg"
ET.register_namespace("", SVG)

COLOURS = {
    "red": "#d8352a",
    "orange": "#f08a1d",
    "yellow": "#f2cf1f",
    "green": "#3c9d3c",
    "blue": "#2f66d0",
    "purple": "#8540b5",
    "pink": "#f08fbe",
    "brown": "#865230",
    "grey": "#8b9096",
}


@dataclass(frozen=True)
class Style:
    """Rules that turn a drawing's classes into paint.

    Attributes:
        name: key in `STYLES`.
        stroke: width of the contour in drawing units; 0 for none.
        stroke_colour: of the contour: `ink`, `paint` or `dark`.
        hollow: whether painted shapes are filled with a pale tint, so that contours alone carry colour.
        gradient: whether paint is a gradient from light to dark.
        filter: name of an SVG filter in `FILTERS`; empty for none.
        saturation: factor on the paint's saturation.
        brightness: factor on the paint's lightness.
    """

    name: str
    stroke: float = 0.0
    stroke_colour: str = "ink"
    hollow: bool = False
    gradient: bool = False
    filter: str = ""
    saturation: float = 1.0
    brightness: float = 1.0


STYLES = {
    style.name: style
    for style in (
        Style("flat"),
        Style("cartoon", stroke=3.5),
        Style("outline", stroke=4.0, stroke_colour="paint", hollow=True),
        Style("shaded", gradient=True),
        Style("sketch", stroke=2.0, filter="wobble", saturation=0.85),
        Style("pastel", filter="soft", saturation=0.72, brightness=1.15),
        Style("crayon", stroke=3.0, stroke_colour="dark", filter="wax"),
    )
}
HELD_OUT_STYLE = "crayon"
TRAINING_STYLES = tuple(name for name in STYLES if name != HELD_OUT_STYLE)

FILTERS = {
    "wobble": '<feTurbulence type="fractalNoise" baseFrequency="0.09" numOctaves="1" seed="{seed}" result="n"/>'
    '<feDisplacementMap in="SourceGraphic" in2="n" scale="2.2" xChannelSelector="R" yChannelSelector="G"/>',
    "soft": '<feGaussianBlur stdDeviation="0.9"/>',
    "wax": '<feTurbulence type="fractalNoise" baseFrequency="0.3 0.12" numOctaves="2" seed="{seed}" result="n"/>'
    '<feColorMatrix in="n" type="matrix" values="0 0 0 0 1  0 0 0 0 1  0 0 0 0 1  0 0 0 -5 2.1" result="specks"/>'
    '<feComposite in="specks" in2="SourceGraphic" operator="in" result="gaps"/>'
    '<feMerge result="waxy"><feMergeNode in="SourceGraphic"/><feMergeNode in="gaps"/></feMerge>'
    '<feDisplacementMap in="waxy" in2="n" scale="1" xChannelSelector="R" yChannelSelector="G"/>',
}


@dataclass(frozen=True)
class Paint:
    """The colours that one group is painted with; hex strings."""

    paint: str
    dark: str
    light: str

    @classmethod
    def mix(cls, colour: str, style: Style, rng: random.Random) -> Paint:
        """The named colour in the style's palette, jittered a little so that no two reds are equal.

        Args:
            colour: its name.
            style: whose palette it is of.
            rng: random numbers.
        """
        red, green, blue = (int(COLOURS[colour][i : i + 2], 16) / 255 for i in (1, 3, 5))
        hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
        hue = (hue + rng.uniform(-0.012, 0.012)) % 1
        saturation *= style.saturation * rng.uniform(0.88, 1.08)
        lightness *= style.brightness * rng.uniform(0.92, 1.08)

        def tone(factor: float) -> str:
            value = lightness * factor if factor <= 1 else 1 - (1 - lightness) / factor
            channels = colorsys.hls_to_rgb(hue, min(value, 0.97), min(saturation, 1.0))
            return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)

        return cls(paint=tone(1.0), dark=tone(0.66), light=tone(1.8))


@cache
def _shapes(concept: str) -> ET.Element:
    """The drawing as a `<g>` without its preview style sheet."""
    root = ET.fromstring(concepts()[concept].drawing)
    group = ET.Element(f"{{{SVG}}}g")
    group.extend(child for child in root if not child.tag.endswith("style"))
    return group


def draw(concept: str, paint: Paint, style: Style, gradient_id: str) -> str:
    """One concept as an SVG fragment in a 100 x 100 box, painted in a style.

    Args:
        concept: its name.
        paint: the colours.
        style: the rules.
        gradient_id: id of the gradient, unique in the document.

    Returns:
        The fragment, with the definition of its gradient in front where the style has one.
    """
    group = ET.fromstring(ET.tostring(_shapes(concept)))
    fills = {"paint": paint.paint, "dark": paint.dark, "light": paint.light, "ink": "#222222", "white": "#ffffff"}
    contour = {"ink": "#222222", "paint": paint.paint, "dark": paint.dark}[style.stroke_colour]
    for shape in group.iter():
        role = shape.attrib.pop("class", "")
        colour, _, line = role.partition("-")
        if line:
            shape.set("fill", "none")
            shape.set("stroke", fills[colour])
            shape.set("stroke-linecap", "round")
            shape.set("stroke-linejoin", "round")
            shape.attrib.setdefault("stroke-width", "4")
        elif colour:
            shape.set("fill", _fill(colour, fills, style, gradient_id))
            if style.stroke and colour != "ink":
                shape.set("stroke", contour)
                shape.set("stroke-width", str(style.stroke))
                shape.set("stroke-linejoin", "round")
    fragment = ET.tostring(group, encoding="unicode")
    if style.gradient:
        fragment = (
            f'<linearGradient id="{gradient_id}" x1="0.2" y1="0" x2="0.7" y2="1">'
            f'<stop offset="0" stop-color="{paint.light}"/><stop offset="0.5" stop-color="{paint.paint}"/>'
            f'<stop offset="1" stop-color="{paint.dark}"/></linearGradient>'
        ) + fragment
    return fragment


def _fill(colour: str, fills: dict[str, str], style: Style, gradient_id: str) -> str:
    if style.hollow and colour in ("paint", "light"):
        return "#fbfbf8"
    if style.gradient and colour == "paint":
        return f"url(#{gradient_id})"
    return fills[colour]
