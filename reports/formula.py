"""LaTeX to MathML, strictly: a formula is either right on the page or refused with a reason."""

from __future__ import annotations

import functools
import html
import re
import xml.etree.ElementTree as ET

ELEMENTS = (
    "math semantics annotation mrow mi mn mo mtext mspace mfrac msqrt mroot mpadded mphantom msub msup msubsup munder "
    "mover munderover mmultiscripts mprescripts mtable mtr mtd"
)
# The page's content policy allows no inline style. What math-core writes as style has a class in style.css instead.
CLASSES = {
    "width:100%": "m-full",
    "width:50%": "m-half",
    "width:7.5%": "m-indent",
    "text-align:left": "m-left",
    "text-align:right": "m-right",
    "justify-items:start": "",  # repeats text-align for browsers that lay cells out as grids
    "justify-items:end": "",
    "padding-left:0": "m-pl0",
    "padding-left:1em": "m-pl1",
    "padding-right:0": "m-pr0",
    "padding-right:0.1667em": "m-prs",
    "padding-top:0": "m-pt0",
    "padding-top:0.1667em": "m-pts",
    "padding-bottom:0": "m-pb0",
    "margin-left:-0.16666667em": "m-back",
    "border-top:0.05em solid currentcolor": "m-bt",
    "border-left:0.05em solid currentcolor": "m-bl",
    "border-right:0.05em solid currentcolor": "m-br",
    "border-right:0.05em dashed currentcolor": "m-brd",
}
ANSI = re.compile(r"\x1b\[[0-9;]*m")
ENTITY = re.compile(r"&(?!(?:amp|lt|gt|quot);)\w+;")


class FormulaError(ValueError):
    """A formula that cannot be set; says which and why."""

    def __init__(self, formula: str, reason: str) -> None:
        super().__init__(f"the formula {formula!r} cannot be set: {reason}")
        self.formula, self.reason = formula, reason


@functools.lru_cache(maxsize=4096)
def to_mathml(latex: str, *, display: bool = True) -> str:
    """Convert one formula; the LaTeX stays inside as annotation.

    Args:
        latex: the formula, without dollar signs.
        display: on a line of its own, or within a sentence.

    Raises:
        FormulaError: an unknown command, unbalanced input, nothing to set, or anything the page could not show as
            meant: a backslash left in the text, a style or an element that browsers do not draw.
    """
    import math_core  # only rendering needs it; a machine that only runs checks may lack it

    if not latex.strip():
        raise FormulaError(latex, "it is empty")
    converter = math_core.LatexToMathML(annotation=True)
    try:
        markup = converter.convert_with_local_state(latex, displaystyle=display)
    except math_core.LatexError as error:
        raise FormulaError(latex, _first_line(error)) from None
    root = ET.fromstring(ENTITY.sub(lambda match: html.unescape(match[0]), markup))
    for element in root.iter():
        _check(element, latex)
        _style_to_class(element, latex)
    return ET.tostring(root, encoding="unicode")


def _first_line(error: Exception) -> str:
    """math-core draws a coloured picture around the message; the message is its first line."""
    lines = [line.strip() for line in ANSI.sub("", str(error)).splitlines() if line.strip()]
    return lines[0].removeprefix("Error:").strip() if lines else "math-core refuses it"


def _check(element: ET.Element, latex: str) -> None:
    if element.tag not in ELEMENTS.split():
        raise FormulaError(latex, f"browsers do not draw <{element.tag}>")
    if element.tag != "annotation" and "\\" in (element.text or ""):
        raise FormulaError(latex, f"a backslash remains in the text {element.text!r}; write \\setminus for the sign")
    if "\\" in (element.tail or ""):
        raise FormulaError(latex, f"a backslash remains in the text {element.tail!r}")


def _style_to_class(element: ET.Element, latex: str) -> None:
    classes = []
    for declaration in filter(None, re.split(r"\s*;\s*", element.attrib.pop("style", ""))):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name == "color" and re.fullmatch(r"#[0-9A-Fa-f]{6}", value):
            element.set("mathcolor", value)
        elif (rule := f"{name}:{value}") in CLASSES:
            classes.append(CLASSES[rule])
        else:
            raise FormulaError(latex, f"it needs the style {rule!r}, which style.css does not have")
    if any(classes):
        element.set("class", " ".join(filter(None, classes)))
