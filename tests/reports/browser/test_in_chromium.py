"""The page in headless Chromium: it filters, follows links, is accessible, and asks nothing of the network."""

import contextlib
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from reports.page import write
from reports.screenshot import chromium
from tests.reports import sample_results as sample

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

try:
    PATH, ARGUMENTS = chromium()
except FileNotFoundError as missing:
    pytest.skip(str(missing), allow_module_level=True)

OPTIMUM = "mahankali2023onestep/isotropic-optimum"
BROKEN = "shazeer2020talking/mixing-helps"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=PATH, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "index.html"
    write(sample.every_verdict(), path)
    return path


@pytest.fixture
def visit(browser, report):
    """Opens the report; at the end of the test nothing may have been logged, raised or requested besides the page."""
    seen, contexts = [], []

    def open_page(fragment="", *, address=None, **options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(5000)
        page.on("console", lambda message: seen.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: seen.append(f"error: {error}"))
        start = address or report.as_uri()
        page.on("request", lambda request: None if request.url.split("#")[0] == start or request.url.startswith("data:")
                else seen.append(f"request: {request.url}"))  # fmt: skip
        page.goto(start + (f"#{fragment}" if fragment else ""))
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert seen == []


def shown(page):
    """Keys of the claims that are visible."""
    return page.eval_on_selector_all(
        "article.claim", "all => all.filter(one => one.checkVisibility()).map(one => one.id)"
    )


def test_all_claims_are_shown_at_first_and_counted(visit):
    page = visit()
    assert len(shown(page)) == 8
    assert page.locator("#shown").inner_text() == "8 claims"


def test_verdicts_filter_and_add_up(visit):
    page = visit()
    page.get_by_role("checkbox", name=re.compile("broken")).check()
    assert shown(page) == [BROKEN]
    page.get_by_role("checkbox", name=re.compile("supported")).check()
    assert shown(page) == [OPTIMUM, BROKEN]
    assert page.locator("#shown").inner_text() == "2 of 8 claims"


def test_level_paper_and_text_filter_together(visit):
    page = visit()
    page.get_by_label("Level").select_option("exact")
    assert len(shown(page)) == 2
    page.locator("[name=paper]").select_option("ramapuram2025sigmoid")
    assert shown(page) == ["ramapuram2025sigmoid/lipschitz-bound"]
    page.get_by_role("searchbox").fill("lipschitz CONSTANT")
    assert shown(page) == ["ramapuram2025sigmoid/lipschitz-bound"]
    page.get_by_role("searchbox").fill("lipschitz nonsense")
    assert shown(page) == []
    page.get_by_role("button", name="Show all claims").click()
    assert len(shown(page)) == 8


def test_a_paper_without_matching_claims_leaves_the_page(visit):
    page = visit()
    page.get_by_role("checkbox", name=re.compile("broken")).check()
    assert not page.locator("section.paper").first.is_visible()


def test_a_filtered_view_has_an_address(visit):
    page = visit("?verdict=broken&verdict=none")
    assert len(shown(page)) == 2
    page.get_by_role("checkbox", name=re.compile("no verdict")).uncheck()
    assert page.evaluate("location.hash") == "#?verdict=broken"


def test_a_deep_link_opens_its_claim_below_the_filter(visit):
    page = visit(OPTIMUM, viewport={"width": 1280, "height": 800})
    claim = page.locator(f'[id="{OPTIMUM}"]')
    assert claim.locator("details.check[open]").count() == 2
    bar = page.locator("#filter").bounding_box()
    box = claim.bounding_box()
    assert bar["y"] + bar["height"] <= box["y"] <= 400


def test_a_deep_link_to_a_check_opens_that_check(visit):
    page = visit(f"{OPTIMUM}/test_the_gradient_vanishes_there")
    assert page.locator(f'[id="{OPTIMUM}"] details.check[open]').count() == 1


def test_a_link_to_a_hidden_claim_clears_the_filter(visit):
    page = visit("?verdict=supported")
    page.locator(f'.findings .cite a[href="#{BROKEN}"]').click()
    page.wait_for_function("document.querySelectorAll('article[hidden]').length === 0")
    assert page.locator(f'[id="{BROKEN}"]').is_visible()


def test_a_link_opens_its_claim_again_after_it_was_closed(visit):
    page = visit(OPTIMUM)
    check = page.locator(f'[id="{OPTIMUM}"] details.check').first
    check.locator("> summary").click()
    assert check.get_attribute("open") is None
    page.locator(f'[id="{OPTIMUM}"] .where').click()
    assert check.get_attribute("open") is not None


def test_a_broken_fragment_does_no_harm(visit):
    assert len(shown(visit("%E0%A4%A"))) == 8


def test_the_copy_button_copies_the_rerun_line(visit):
    page = visit(OPTIMUM, permissions=["clipboard-read", "clipboard-write"])
    page.locator(f'[id="{OPTIMUM}"] button.copy').first.click()
    page.wait_for_function("document.getElementById('said').textContent === 'Copied'")
    rerun = page.locator(f'[id="{OPTIMUM}"] .rerun code').first.inner_text()
    assert page.evaluate("navigator.clipboard.readText()") == rerun


def test_hostile_text_is_shown_as_text_and_does_not_run(visit):
    page = visit()
    assert page.get_by_text("<script>window.hacked = 1</script>").first.is_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0


def test_the_policy_stops_a_script_that_got_in(browser, report, tmp_path):
    """Were the escaping to fail, the content policy still stands."""
    path = tmp_path / "index.html"
    path.write_text(report.read_text("utf-8").replace("</main>", "<script>window.hacked = 1</script></main>"), "utf-8")
    with contextlib.closing(browser.new_page()) as page:
        page.goto(path.as_uri())
        assert page.evaluate("window.hacked") is None


def test_without_scripts_the_page_reads_and_its_details_open(visit):
    page = visit(OPTIMUM, java_script_enabled=False)
    assert not page.locator("#filter").is_visible()
    check = page.locator(f'[id="{OPTIMUM}"] details.check').first
    assert not check.locator(".rerun").first.is_visible()
    check.locator("> summary").click()
    assert check.locator(".rerun").first.is_visible()


def test_from_a_server_nothing_else_is_requested(visit, report):
    """Over http a browser would also ask for an icon; the page brings its own."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=report.parent))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        visit(address=f"http://127.0.0.1:{server.server_port}/index.html").wait_for_timeout(100)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert asked == ["/index.html"]


def test_printing_opens_the_checks_of_findings_only(visit):
    page = visit()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator(f'[id="{BROKEN}"] details.check[open]').count() == 1
    assert page.locator(f'[id="{OPTIMUM}"] details.check[open]').count() == 0
    assert not page.locator("#filter").is_visible()


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_window(visit, width):
    page = visit(viewport={"width": width, "height": 800})
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(visit, scheme, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true })")
    # Claims that are laid out only when they come into view would move under axe while it measures contrast.
    page.add_style_tag(content=".claim { content-visibility: visible !important }")
    found = axe.Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_five_hundred_claims_open_and_filter_swiftly(browser, tmp_path):
    path = tmp_path / "index.html"
    write(sample.many(500), path)
    with contextlib.closing(browser.new_page()) as page:
        page.goto(path.as_uri())
        page.get_by_role("searchbox").fill("claim-377")
        page.wait_for_function("document.getElementById('shown').textContent === '1 of 500 claims'", timeout=10_000)
        assert shown(page) == ["author27paper/claim-377"]
