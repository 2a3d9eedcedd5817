"""The built site in a browser: every page, its formulas, its links, its keys, on a desk and on a phone."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urldefrag, urljoin

import pytest
from playwright.sync_api import Page, expect

ROOT = Path(__file__).parents[2]
BUILT = ROOT / "build/site"
LESSONS = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))]
READY = "() => !window.MathJax?.startup?.promise || MathJax.startup.promise.then(() => true)"
PHONE = {"width": 390, "height": 844}

# What a page says of itself once its formulas are set.
ABOUT = r"""() => {
  const article = document.querySelector("article.bd-article") || document.body;
  const inside = node => node.closest("script, style, pre, code, dt.sig, .sig, mjx-container, .headerlink, .highlight");
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
  const raw = [];  // a dollar before a digit may be a price
  for (let node = walker.nextNode(); node; node = walker.nextNode())
    if (!inside(node.parentElement) && /\$(?!\d)|\\[([]|\\(tag|begin|frac|text)\b/.test(node.data)) raw.push(node.data.trim());
  const box = node => node.closest("div.math, pre, table, .headerlink, .pst-scrollable-table-container, mjx-assistive-mml");
  const wide = [...article.querySelectorAll("*")].filter(node =>
    !box(node) && node.getBoundingClientRect().right > innerWidth + 1).map(node => node.outerHTML.slice(0, 120));
  return {
    raw,
    errors: [...document.querySelectorAll("mjx-merror, [data-mjx-error]")].map(node => node.textContent || node.outerHTML),
    sources: document.querySelectorAll(".math.notranslate").length,
    formulas: document.querySelectorAll("mjx-container").length,
    empty: [...document.querySelectorAll(".math.notranslate")].filter(node => !node.querySelector("mjx-container")).length,
    links: [...document.querySelectorAll("a[href]")].map(link => link.href),
    ids: [...document.querySelectorAll("[id]")].map(node => node.id),
    width: document.documentElement.scrollWidth,
    wide: wide.slice(0, 3),
    cut: [...article.querySelectorAll("div.math")].filter(display => {  // what sticks out to the left cannot be scrolled to
      const formula = display.querySelector("mjx-math").getBoundingClientRect(), frame = display.getBoundingClientRect();
      return formula.left < frame.left - 1 || (formula.width > frame.width + 1 && display.scrollWidth < formula.width - 1);
    }).length,
    pictures: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
    silent: [...article.querySelectorAll("img")].filter(image => !image.alt.trim()).map(image => image.src),
    levels: [...article.querySelectorAll("h1, h2, h3, h4, h5, h6")].map(heading => Number(heading.tagName[1])),
    language: document.documentElement.lang,
  };
}"""


def pages() -> list[str]:
    """The addresses of all pages within the site."""
    found = sorted(path.relative_to(BUILT).as_posix() for path in BUILT.rglob("*.html"))
    return [name for name in found if not name.startswith("_static/")]


def visit(page: Page, address: str) -> None:
    """Open a page and wait for its formulas."""
    page.goto(address)
    page.wait_for_function(READY)


@pytest.fixture(scope="module")
def seen(browser, site) -> Iterator[tuple[dict, list[str]]]:
    """Every page on a desk: what it says of itself, and what its console and its requests said."""
    from conftest import Watch  # the founder's, beside this file

    context, watch, found = browser.new_context(viewport={"width": 1280, "height": 720}), Watch(), {}
    page = context.new_page()
    watch.follow(page)
    for name in pages():
        visit(page, f"{site}/{name}")
        found[name] = page.evaluate(ABOUT)
    yield found, watch.troubles
    context.close()


def test_every_page_loads(seen):
    """No error in the console, no request to elsewhere, no file that is not there, all pictures."""
    found, troubles = seen
    assert len(found) > 100 and not troubles, "\n".join(dict.fromkeys(troubles))
    assert not [(name, page["pictures"]) for name, page in found.items() if page["pictures"]]
    assert not [(name, page["silent"]) for name, page in found.items() if page["silent"]]


def test_every_formula_is_set(seen):
    """Each formula became one, without an error, and nothing of LaTeX is left in the text."""
    found, _ = seen
    assert sum(page["formulas"] for page in found.values()) > 800
    for name, page in found.items():
        assert not page["errors"], (name, page["errors"])
        assert not page["empty"] and page["formulas"] >= page["sources"], (name, page["empty"])
        written = [text for text in page["raw"] if not re.search(r"\^text\$", text)]  # the mark of an end, in ngram_classifier
        assert not written, (name, written)


def test_every_link_resolves(seen, site):
    """Each link within the site leads to a page, and to a place on it."""
    found, _ = seen
    dead = []
    for name, page in found.items():
        for link in dict.fromkeys(page["links"]):
            address, place = urldefrag(urljoin(f"{site}/{name}", link))
            if not address.startswith(site):
                continue
            target = address.removeprefix(f"{site}/").partition("?")[0] or "index.html"
            if target not in found or (place and place not in found[target]["ids"]):
                dead.append(f"{name} -> {link.removeprefix(site)}")
    assert not dead, "\n".join(dead)


def test_headings_and_language(seen):
    """One title a page, no level skipped; the Chinese lesson says that it is Chinese."""
    found, _ = seen
    for name, page in found.items():
        levels = page["levels"]
        assert levels.count(1) == 1 or not levels, (name, levels)
        assert all(after <= before + 1 for before, after in zip([0, *levels], levels, strict=False)), (name, levels)
        assert page["language"] == ("zh" if name.startswith("lessons/zh/") else "en"), name


def test_phone(browser, site, watch, keep):
    """At 390 pixels no page scrolls sideways; what is wide scrolls in its own box."""
    context = browser.new_context(viewport=PHONE, device_scale_factor=1)
    page = context.new_page()
    watch.follow(page)
    too_wide = {}
    for name in pages():
        if name.startswith("_modules/"):
            continue
        visit(page, f"{site}/{name}")
        about = page.evaluate(ABOUT)
        if about["width"] > PHONE["width"] or about["wide"] or about["cut"]:
            too_wide[name] = (about["width"], about["wide"], about["cut"])
        if name in {"index.html", "lessons/05_lstm_backward.html", "api/cells.html", "notation.html"}:
            keep(page, f"phone-{Path(name).stem}")
    context.close()
    assert not too_wide, too_wide


def test_previous_and_next(page, site):
    """From lesson 00 the next page leads through all lessons, and back."""
    visit(page, f"{site}/lessons/{LESSONS[0]}.html")
    for name in LESSONS[1:]:
        page.locator("a.right-next").click()
        page.wait_for_url(f"**/lessons/{name}.html")
    for name in reversed(LESSONS[:-1]):
        page.locator("a.left-prev").click()
        page.wait_for_url(f"**/lessons/{name}.html")


def test_dark(page, site, keep):
    """The switch makes the page dark; the choice holds on the next page; formulas and text stay light on it."""
    visit(page, f"{site}/lessons/04_lstm_forward.html")
    keep(page, "lesson-light")
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.locator(".theme-switch-button:visible").first.click()
    page.locator("button.theme-change-button[data-mode=dark]:visible").first.click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert page.evaluate(background) != light
    keep(page, "lesson-dark")
    visit(page, f"{site}/api/cells.html")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    keep(page, "reference-dark")


def test_search(page, site, keep):
    """The search finds the forget gate in the lesson that explains it."""
    visit(page, f"{site}/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("forget gate")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=forget+gate*")
    expect(page.locator("#search-results ul.search a[href*='04_lstm_forward']").first).to_be_visible(timeout=30_000)
    keep(page, "search")


def test_keyboard(page, site):
    """The first tab reaches a link to the content; the others walk through the page, and one sees where they are."""
    visit(page, f"{site}/lessons/05_lstm_backward.html")
    page.keyboard.press("Tab")
    assert "main content" in page.evaluate("() => document.activeElement.textContent").lower()
    page.keyboard.press("Enter")
    assert page.evaluate("() => location.hash") == "#main-content"
    places = []
    for _ in range(40):
        page.keyboard.press("Tab")
        places.append(page.evaluate("() => document.activeElement.closest('header, article, nav')?.tagName"))
        outline = "() => { const s = getComputedStyle(document.activeElement); return s.outlineStyle + s.boxShadow }"
        assert page.evaluate(outline) != "nonenone", page.evaluate("() => document.activeElement.outerHTML.slice(0, 200)")
    assert "ARTICLE" in places
    summary = page.locator("article details > summary").first
    summary.focus()
    page.keyboard.press("Enter")
    assert summary.evaluate("node => node.parentElement.open")


def test_screenshots(page, site, keep):
    """Pictures of the site for those who did not build it."""
    for name in ("index", "lessons/index", "lessons/05_lstm_backward", "api/index", "api/cells", "notation"):
        visit(page, f"{site}/{name}.html")
        keep(page, name.replace("/", "-"))


def test_explorers_show_their_picture():
    """Widgets of a lesson are pictures on the site: no script of theirs is there."""
    for name in LESSONS:
        text = (BUILT / f"lessons/{name}.html").read_text(encoding="utf-8")
        cells = json.loads((ROOT / f"notebooks/{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        outputs = [output for cell in cells for output in cell.get("outputs", [])]
        pictures = sum("image/png" in output.get("data", {}) for output in outputs)
        assert text.count("<img ") >= pictures
        assert "require.js" not in text and "html-manager" not in text and "application/vnd.jupyter.widget" not in text
