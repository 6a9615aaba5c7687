"""Figures are the same bytes for the same data, collide with nothing, and carry nothing but drawing."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure

from reports.figures import FigureError, inline, to_svg


def plot(label="loss"):
    figure = Figure(figsize=(4, 2.5))
    axes = figure.subplots()
    axes.plot([1, 2, 3], [1, 4, 9], label=label)
    axes.scatter([1, 2, 3], [3, 2, 1])
    axes.fill_between([1, 2, 3], [1, 2, 3], alpha=0.2, hatch="/")
    axes.set_xlabel(r"$n^2$ steps")
    axes.legend()
    return figure


def picture():
    figure = Figure(figsize=(3, 3))
    axes = figure.subplots()
    figure.colorbar(axes.imshow(np.arange(16).reshape(4, 4)))
    return figure


@pytest.mark.parametrize("make", [plot, picture])
def test_equal_figures_are_equal_bytes(make):
    assert to_svg(make()) == to_svg(make())


@pytest.mark.parametrize("make", [plot, picture])
def test_a_drawn_figure_passes_its_own_gate(make):
    markup = inline(to_svg(make()), "f1-", "Loss & <gain>")
    assert 'aria-label="Loss &amp; &lt;gain&gt;"' in markup
    assert "style=" not in markup, "the page's policy forbids inline style"
    assert "<!" not in markup


def test_ids_of_two_figures_on_one_page_do_not_collide():
    svg = to_svg(plot())
    ids = [
        {element.get("id") for element in ET.fromstring(inline(svg, prefix)).iter() if element.get("id")}
        for prefix in ("f1-", "f2-")
    ]
    assert ids[0]
    assert ids[0].isdisjoint(ids[1])


def test_two_images_that_look_alike_may_stand_in_one_figure():
    figure = Figure()
    for axes in figure.subplots(1, 2):
        axes.imshow([[0, 1], [1, 0]])
    assert to_svg(figure).count("<image") == 2


def test_a_figure_carries_no_date_and_no_name_of_its_maker():
    svg = to_svg(plot())
    assert "matplotlib" not in svg.lower()
    assert "metadata" not in svg


def test_text_in_a_figure_cannot_become_markup():
    assert "<script" not in to_svg(plot("<script>alert(1)</script>"))


def test_a_plain_plot_is_small():
    assert len(to_svg(plot())) < 25_000


def test_pyplot_forgets_a_drawn_figure():
    import matplotlib.pyplot as pyplot

    figure = pyplot.figure()
    to_svg(figure)
    assert not pyplot.fignum_exists(figure.number)


def svg(inside, attributes=""):
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return f'<svg {names} viewBox="0 0 9 9" {attributes}>{inside}</svg>'


HOSTILE = {
    "a script": svg("<script>alert(1)</script>"),
    "an event handler": svg("", 'onload="alert(1)"'),
    "an event handler on a shape": svg('<path d="M0 0" onclick="alert(1)"/>'),
    "foreign content": svg('<foreignObject><p xmlns="http://www.w3.org/1999/xhtml">x</p></foreignObject>'),
    "an HTML element": svg('<img xmlns="http://www.w3.org/1999/xhtml" src="x"/>'),
    "an animation": svg('<set attributeName="href" to="javascript:alert(1)"/>'),
    "a link": svg('<a href="javascript:alert(1)"><path d="M0 0"/></a>'),
    "a use from outside": svg('<use href="https://example.org/x.svg#a"/>'),
    "a use from outside, the old way": svg('<use xlink:href="//example.org/x.svg#a"/>'),
    "a use of what is not there": svg('<use href="#a"/>'),
    "repetition that grows": svg('<g id="a"><path d="M0 0"/></g><g><use href="#a"/><use href="#a"/></g>'),
    "a picture from outside": svg('<image href="https://example.org/x.png"/>'),
    "an SVG as picture": svg('<image href="data:image/svg+xml;base64,AAAA"/>'),
    "a fill from outside": svg('<path d="M0 0" fill="url(https://example.org/#a)"/>'),
    "a fill from outside, in a style": svg('<path d="M0 0" style="fill: url(//example.org/#a)"/>'),
    "an escaped address": svg(r'<path d="M0 0" fill="\75rl(//example.org)"/>'),
    "an address in a second value": svg('<path d="M0 0" fill="url(#a) url(//example.org)"/>'),
    "an import function": svg('<path d="M0 0" fill="image-set(x)"/>'),
    "a style that is not drawing": svg('<path d="M0 0" style="position: fixed"/>'),
    "a class of the page": svg('<path d="M0 0" class="problems"/>'),
    "an entity": '<!DOCTYPE svg [<!ENTITY x "y">]>' + svg("&x;"),
    "no XML": "<svg><path></svg>",
    "no SVG": "<html/>",
    "an SVG of no namespace": "<svg/>",
    "nesting without end": svg("<g>" * 2000 + "</g>" * 2000),
    "two equal ids": svg('<path id="a" d="M0 0"/><path id="a" d="M0 0"/>'),
    "too much": svg(" " * 3_000_000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_whatever_is_not_drawing_is_refused(name):
    with pytest.raises(FigureError, match="figure"):
        inline(HOSTILE[name], "f1-")


def test_a_style_sheet_is_dropped_with_all_it_says():
    assert "example" not in inline(svg("<style>@import url(//example.org)</style><path d='M0 0'/>"), "f1-")
