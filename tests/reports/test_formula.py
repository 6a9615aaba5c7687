"""Formulas are set strictly: what is wrong is refused, what is set is right."""

import pytest

from reports.formula import FormulaError, to_mathml


def test_a_formula_becomes_mathml_with_its_latex_as_annotation():
    markup = to_mathml(r"\eta^\star = \frac{1}{n + d}")
    assert markup.startswith('<math display="block">')
    assert "<mfrac><mn>1</mn>" in markup
    assert r'<annotation encoding="application/x-tex">\eta^\star = \frac{1}{n + d}</annotation>' in markup


def test_a_formula_within_a_sentence_is_no_block():
    assert 'display="block"' not in to_mathml("x^2", display=False)


@pytest.mark.parametrize(
    ("latex", "reason"),
    [
        (r"\nosuchcommand x", "Unknown command"),
        (r"\frac{1}{", "closing token"),
        (r"x^", "end of input|argument|Expected"),
        ("", "empty"),
        ("  ", "empty"),
        (r"A \backslash B", "backslash"),
        (r"\text{\textbackslash}", "backslash"),
        (r"\cancel{x}", "menclose"),
    ],
)
def test_what_cannot_be_set_is_refused_with_the_formula_and_the_reason(latex, reason):
    with pytest.raises(FormulaError, match=reason) as refused:
        to_mathml(latex)
    assert repr(latex) in str(refused.value)
    assert refused.value.formula == latex
    assert "\x1b" not in str(refused.value), "math-core's colours must not reach a page"


@pytest.mark.parametrize("latex", [r"\text{</math><script>alert(1)</script>}", r"a < b > c \& d"])
def test_markup_inside_a_formula_stays_text(latex):
    markup = to_mathml(latex)
    assert "<script" not in markup
    assert markup.count("</math>") == 1


@pytest.mark.parametrize(
    "latex",
    [
        r"\begin{align}a &= b \\ c &= d\end{align}",
        r"\begin{cases}1 & x > 0 \\ 0 & \text{else}\end{cases}",
        r"\begin{array}{|c|c|}a & b \\ \hline c & d\end{array}",
        r"\int\!\!f",
        r"\dfrac12 + \cfrac{1}{x}",
        r"{\color{red} x}",
    ],
)
def test_no_inline_style_survives_because_the_page_forbids_it(latex):
    assert "style=" not in to_mathml(latex).replace("displaystyle=", "")


def test_every_class_that_stands_for_a_style_is_in_the_style_sheet():
    from reports.formula import CLASSES
    from reports.page import FOLDER

    style = (FOLDER / "style.css").read_text("utf-8")
    assert [name for name in CLASSES.values() if name and f".{name} {{" not in style] == []
