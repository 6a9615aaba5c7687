"""The gate between an SVG from a results file and the page: only drawing passes, and it comes out small.

Whatever is not on the lists below is refused rather than dropped: a figure that silently loses a part would show
something else than was measured. `style` attributes become presentation attributes, because the page's content
policy allows no inline style.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"
MAX_CHARACTERS = 2_000_000
MAX_DEPTH = 60


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


ELEMENTS = _words(
    "svg g defs path use rect circle ellipse line polyline polygon text tspan image clipPath pattern linearGradient "
    "radialGradient stop"
)
# They draw nothing themselves, and a style sheet would reach the whole page.
DROPPED = frozenset({"metadata", "style", "title", "desc"})
PROPERTIES = _words(
    "fill fill-opacity fill-rule stroke stroke-opacity stroke-width stroke-linecap stroke-linejoin stroke-miterlimit "
    "stroke-dasharray stroke-dashoffset opacity clip-path clip-rule stop-color stop-opacity text-anchor font-size "
    "font-family font-style font-weight font-stretch font-variant image-rendering dominant-baseline visibility "
    "display"
)
ATTRIBUTES = PROPERTIES | _words(
    "id d x y dx dy width height x1 y1 x2 y2 cx cy r rx ry fx fy points transform viewBox preserveAspectRatio href "
    "offset clipPathUnits patternUnits patternContentUnits patternTransform gradientUnits gradientTransform version "
    "textLength lengthAdjust"
)
FUNCTIONS = frozenset({"url", "translate", "scale", "rotate", "matrix", "skewX", "skewY", "rgb", "rgba"})
LOCAL = re.compile(r"url\(\s*[\"']?#([^\"')\s]+)[\"']?\s*\)")
IMAGE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]+={0,2}")
DECIMAL = re.compile(r"-?\d*\.\d+(?:[eE][-+]?\d+)?")


class FigureError(ValueError):
    """An SVG that may not stand on the page."""


def inline(svg: str, prefix: str, label: str = "") -> str:
    """Check an SVG and rewrite it for use inside HTML.

    Args:
        svg: an SVG document.
        prefix: goes before every id, so that no two figures of one page share one.
        label: what the figure shows, for readers who do not see it.

    Raises:
        FigureError: it is not well-formed, or contains anything but drawing: a script, an event handler, foreign
            content, a style sheet that loads something, an address outside the figure.
    """
    root = _parse(svg)
    identifiers = _check(root)
    references = {target: f"{prefix}{number}" for number, target in enumerate(_targets(root))}
    if missing := references.keys() - identifiers.keys():
        raise FigureError(f"the figure refers to #{min(missing)}, which is not in it")
    for element in root.iter():
        _rename(element, references)
    return _serialise(root, label)


def _parse(svg: str) -> ET.Element:
    if len(svg) > MAX_CHARACTERS:
        raise FigureError(f"the figure has {len(svg)} characters, more than {MAX_CHARACTERS}")
    if "<!DOCTYPE" in svg or "<!ENTITY" in svg:
        raise FigureError("the figure declares a document type or an entity")
    try:
        root = ET.fromstring(svg)
    except (ET.ParseError, ValueError) as error:
        raise FigureError(f"the figure is not well-formed XML: {error}") from error
    if root.tag != f"{{{SVG}}}svg":
        raise FigureError(f"the figure's outermost element is <{root.tag}>, not an SVG")
    return root


def _check(root: ET.Element) -> dict[str, ET.Element]:
    """Strip namespaces, drop what draws nothing, expand styles; returns the elements by id."""
    identifiers: dict[str, ET.Element] = {}
    for element, depth in _walk(root):
        name = _local(element.tag, SVG)
        if name not in ELEMENTS:
            raise FigureError(f"the figure contains <{name}>, which is not drawing")
        if depth > MAX_DEPTH:
            raise FigureError(f"the figure is nested more than {MAX_DEPTH} deep")
        element.tag = name
        for child in [child for child in element if _local(child.tag, SVG) in DROPPED]:
            element.remove(child)
        attributes = dict(_attributes(element))
        element.attrib.clear()
        element.attrib.update(attributes)
        if identifier := attributes.get("id"):
            if identifier in identifiers:
                raise FigureError(f"the figure has two elements with the id {identifier}")
            identifiers[identifier] = element
    _check_uses(root, identifiers)
    return identifiers


def _walk(root: ET.Element) -> Iterator[tuple[ET.Element, int]]:
    """Every element with its depth; without recursion, as the file may be nested to hurt."""
    pending = [(root, 0)]
    while pending:
        element, depth = pending.pop()
        yield element, depth
        pending.extend((child, depth + 1) for child in element)


def _local(tag: str, namespace: str) -> str:
    prefix = f"{{{namespace}}}"
    return tag.removeprefix(prefix)


def _attributes(element: ET.Element) -> Iterator[tuple[str, str]]:
    for raw, value in element.attrib.items():
        name = _local(raw, XLINK)
        if name == "style":
            yield from _declarations(value)
        elif name == "href" and element.tag == "image":
            yield name, _picture(value)
        elif name == "type" and raw.startswith("{"):
            continue  # xlink:type means nothing to a browser
        else:
            yield name, _harmless(name, value)


def _declarations(style: str) -> Iterator[tuple[str, str]]:
    for declaration in style.split(";"):
        name, _, value = declaration.partition(":")
        if name := name.strip():
            if name not in PROPERTIES:
                raise FigureError(f"the figure sets the style {name!r}, which is not on the list")
            yield name, _harmless(name, value.strip())


def _harmless(name: str, value: str) -> str:
    if name not in ATTRIBUTES:
        raise FigureError(f"the figure has the attribute {name!r}, which is not on the list")
    if "\\" in value or "/*" in value:  # CSS escapes and comments could hide an address
        raise FigureError(f"the figure's {name} contains an escape or a comment")
    if unknown := set(re.findall(r"([\w-]*)\s*\(", value)) - FUNCTIONS:
        raise FigureError(f"the figure's {name} calls {min(unknown)!r}")
    if "url" in value.lower() and not LOCAL.fullmatch(value.strip()):
        raise FigureError(f"the figure's {name} points outside the figure: {value[:80]}")
    if name == "href" and not value.startswith("#"):
        raise FigureError(f"the figure links to {value[:80]!r}")
    return value


def _picture(value: str) -> str:
    value = re.sub(r"\s", "", value)
    if not IMAGE.fullmatch(value):
        raise FigureError("the figure contains a picture that is not an embedded PNG")
    return value


def _check_uses(root: ET.Element, identifiers: dict[str, ET.Element]) -> None:
    """`use` may repeat a path and nothing else: nested repetition can grow without limit."""
    for element in root.iter("use"):
        target = identifiers.get(element.get("href", "")[1:])
        if target is None or target.tag != "path":
            raise FigureError("the figure repeats something that is not one of its own paths")


def _targets(root: ET.Element) -> list[str]:
    """The ids that something refers to, each once, in order."""
    found: dict[str, None] = {}
    for element in root.iter():
        for name, value in element.attrib.items():
            if name == "href" and element.tag != "image":
                found[value[1:]] = None
            elif match := LOCAL.fullmatch(value.strip()):
                found[match[1]] = None
    return list(found)


def _rename(element: ET.Element, references: dict[str, str]) -> None:
    identifier = element.attrib.pop("id", None)
    for name, value in element.attrib.items():
        if name == "href" and element.tag != "image":
            element.set(name, f"#{references[value[1:]]}")
        elif match := LOCAL.fullmatch(value.strip()):
            element.set(name, f"url(#{references[match[1]]})")
        elif name in {"d", "points"}:
            element.set(name, _compact(value))
    if identifier in references:
        element.set("id", references[identifier])


def _compact(path: str) -> str:
    """Hundredths of a unit are finer than any screen or printer draws."""
    rounded = DECIMAL.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), path)
    return re.sub(r"\s*([A-Za-z])\s*", r"\1", " ".join(rounded.split()))


def _serialise(root: ET.Element, label: str) -> str:
    root.attrib.pop("version", None)
    role = {"role": "img", "aria-label": label} if label else {}
    root.attrib = {"xmlns": SVG} | role | root.attrib
    for element in root.iter():
        if element.tag not in {"text", "tspan"}:
            element.text = None
        if element.tag != "tspan":
            element.tail = None
    return ET.tostring(root, encoding="unicode")
