"""The page says what the results say, escapes everything, loads nothing, and is the same for the same results."""

import base64
import hashlib
import json
import re
import time
from html.parser import HTMLParser

import pytest

from reports.formula import FormulaError
from reports.page import display, render, write
from reports.page.closeness import closeness
from reports.svg import FigureError
from tests.reports import sample_results as sample

VOID = {"meta", "link", "br", "wbr", "input", "img", "hr"}


class Page(HTMLParser):
    """All elements as (name, attributes), and a check that every one is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


@pytest.fixture(scope="module")
def html():
    return render(sample.every_verdict())


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_every_element_is_closed(page):
    assert page.open == []


def test_equal_results_give_equal_bytes():
    assert render(sample.every_verdict()) == render(sample.every_verdict())


def test_ids_are_unique(page):
    assert len(page.ids()) == len(set(page.ids()))


def test_every_link_within_the_page_has_its_target(page):
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    targets = {link[1:] for link in links if link.startswith("#")}
    assert targets <= set(page.ids())
    assert "mahankali2023onestep/isotropic-optimum" in targets


def test_nothing_on_the_page_is_fetched(page):
    """Addresses stand only in plain links; `use` points within the page, and pictures are embedded."""
    for tag, attributes in page.elements:
        assert "src" not in attributes
        if tag != "a":
            assert attributes.get("href", "#").startswith(("#", "data:"))
        if tag == "form":
            assert "action" not in attributes


def test_no_element_has_an_event_handler_or_an_inline_style(page):
    for _, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(html, page):
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        (text,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def strings(value, path=()):
    """Every string of a results file with its place."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from strings(item, (*path, key))


MEANINGFUL = {"svg", "formula", "verdict", "level", "kind", "outcome", "value", "limit", "margin"}


def test_hostile_text_arrives_as_text_wherever_it_stands():
    results = sample.every_verdict()
    for path in list(strings(results)):
        if path[-1] not in MEANINGFUL:
            place = results
            for step in path[:-1]:
                place = place[step]
            place[path[-1]] = sample.HOSTILE + str(place[path[-1]])
    html = render(results)
    names = {tag for tag, _ in Page(html).elements}
    assert "img" not in names
    assert html.count("<script>") == 1
    assert "&lt;script&gt;" in html


def test_a_script_address_of_a_paper_is_no_link():
    results = sample.every_verdict()
    results["papers"][0]["url"] = "javascript:alert(1)"
    assert "javascript:" not in render(results)


def test_problems_come_before_the_title(html):
    assert html.index("This run failed: 2 problems") < html.index("<h1>")


def test_a_green_run_shows_no_problem_and_says_that_there_is_nothing_to_report():
    html = render(sample.results([sample.claim("mahankali2023onestep", "one")], sample.PAPERS[:1]))
    assert "This run failed" not in html
    assert "every claim that was run is plainly supported" in html


def test_findings_come_worst_first_and_before_the_papers(html):
    findings = html[html.index('id="findings"') : html.index('id="papers"')]
    chips = re.findall(r'class="chip v-([\w-]+)"', findings)
    assert chips == ["broken", "none", "refuted", "amended", "inconclusive", "not-run"]


def test_an_unrun_claim_shows_the_recorded_verdict_and_where_it_was_measured(html):
    text = " ".join(re.sub(r"<[^>]+>", "", html).split())
    assert "On record: refuted at level benchmark, measured on NVIDIA H200, 2026-11-20." in text
    assert "Not run here: needs a GPU." in text


def test_a_claim_without_verdict_says_so(html):
    assert re.search(r'data-verdict="none".{0,200}no verdict', html, re.DOTALL)


def test_a_difference_from_the_record_is_marked(html):
    assert "This run differs." in html


def test_a_dirty_checkout_is_named(html):
    assert html.count("with uncommitted changes") == 2


def test_a_run_on_a_checkpoint_says_on_which():
    text = render(sample.results([], [], environments=[sample.environment(checkpoint="mine (3 <parameters>)")]))
    assert "put to one of yours:</strong> mine (3 &lt;parameters&gt;)." in text
    assert "put to one of yours" not in render(sample.results([], []))


def test_the_page_of_no_claims_is_a_page():
    assert "no claim was selected" in render(sample.results([], []))


def test_a_claim_of_a_paper_that_is_not_listed_is_shown():
    assert 'id="unknown2020/one"' in render(sample.results([sample.claim("unknown2020", "one")], []))


def test_a_wrong_formula_names_its_claim():
    results = sample.results([sample.claim("a", "one", formula=r"\nosuch")], [])
    with pytest.raises(FormulaError, match="claim a/one"):
        render(results)


def test_a_hostile_figure_names_its_check():
    figure = {"title": "", "caption": "", "svg": "<svg xmlns='http://www.w3.org/2000/svg' onload='x'/>"}
    results = sample.results([sample.claim("a", "one", checks=[sample.check(figures=[figure])])], [])
    with pytest.raises(FigureError, match="a/one, test_no_other"):
        render(results)


def test_half_a_surrogate_pair_does_not_stop_the_page():
    json_text = json.dumps(sample.results([sample.claim("a", "one", gap="GAP")], [])).replace("GAP", "\\ud800")
    assert render(json.loads(json_text)).encode("utf-8")


def test_a_page_is_written_whole(tmp_path):
    write(sample.every_verdict(), tmp_path / "out" / "index.html")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["index.html"]


def test_a_thousand_claims_are_rendered_in_seconds_and_megabytes():
    results = sample.many(1000)
    began = time.perf_counter()
    html = render(results)
    assert time.perf_counter() - began <= 3
    assert len(html.encode()) <= 10_000_000


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0, "0"), (-3, "−3"), (480, "480"), (123456, "123456"), (0.5, "0.5"), (0.30000000000000004, "0.3"),
        (1 / 3, "0.3333"), (-12.3456, "−12.35"), (12345.6, "12346"), (0.0001234, "0.0001234"),
        (1e-9, "1 × 10<sup>−9</sup>"), (-2.5e-7, "−2.5 × 10<sup>−7</sup>"), (6.02214e23, "6.022 × 10<sup>23</sup>"),
        (99999.6, "1 × 10<sup>5</sup>"), ("Infinity", "∞"), ("-Infinity", "−∞"), (None, "–"),
    ],
)  # fmt: skip
def test_numbers_have_four_digits(value, shown):
    assert display.number(value).replace("\N{NARROW NO-BREAK SPACE}", " ") == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0 ms"),
        (0.012, "12 ms"),
        (0.0999, "0.1 s"),
        (0.314, "0.31 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (245, "4 min 5 s"),
        (7380, "2 h 3 min"),
    ],
)
def test_times_are_short(seconds, shown):
    assert display.duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_many_problems_are_counted_and_the_rest_folded():
    html = render(sample.results([], [], problems=[f"problem {number}" for number in range(20)]))
    assert "This run failed: 20 problems" in html
    assert "and 12 more" in html
    assert "problem 19" in html


def test_an_exact_rational_stands_before_its_decimal_value():
    assert display.number(-29 / 70, "-29/70").replace("\N{NARROW NO-BREAK SPACE}", " ") == "−29/70 ≈ −0.4143"


@pytest.mark.parametrize(
    ("kind", "value", "limit", "more", "words"),
    [
        ("equals", 3.1e-13, 0.0, {"error": 1e-12}, "used 31 % of the error budget"),
        ("equals", 1.0, 1.0, {"error": 1e-12}, "used none of the error budget"),
        ("equals", 3.0, 1.0, {"error": 1.0}, "2 times the error budget"),
        ("at_most", 0.999, 1.0, {}, "used more than 99 % of the allowance"),
        ("at_most", 1.0, 1.0, {}, "used all of the allowance"),
        ("less_than", 1e-9, 1.0, {}, "used less than 1 % of the allowance"),
        ("at_least", 8.0, 2.0, {}, "needed 25 % of what was measured"),
        ("at_least", 1.0, 2.0, {}, "reached 50 % of what is needed"),
        ("within", 1.5, 1.0, {"high": 3.0}, "25 % of the way between the ends"),
        ("within", 4.0, 1.0, {"high": 3.0}, "outside, above the upper end"),
    ],
)
def test_closeness_is_said_in_words(kind, value, limit, more, words):
    near = closeness(sample.quantity(value=value, kind=kind, limit=limit, **more))
    assert near is not None
    assert near.words.replace("\N{NO-BREAK SPACE}", " ") == words
    assert near.bar().startswith("<svg")


@pytest.mark.parametrize(
    ("kind", "value", "limit", "more"),
    [
        ("at_least", 1.0, 0.0, {}),  # zero gives no scale
        ("at_least", 1.0, -1.0, {}),
        ("at_most", -1.0, 2.0, {}),
        ("at_most", 1.0, "Infinity", {}),
        ("at_least", "Infinity", 1.0, {}),
        ("equals", 1.0, 1.0, {"error": 0.0}),  # exact: nothing to use up
        ("within", 1.0, 1.0, {"high": 1.0}),
        ("within", 1.0, "-Infinity", {"high": 2.0}),
    ],
)
def test_a_bound_without_a_scale_gets_no_bar(kind, value, limit, more):
    assert closeness(sample.quantity(value=value, kind=kind, limit=limit, **more)) is None
