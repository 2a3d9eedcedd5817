"""The slides in a browser: every slide of every deck lies within 1280 x 720, is large enough to read, and needs no network.

Each deck is opened as a file, as from a USB stick. On every slide the test measures what is drawn, first as it comes, then
with every folded answer open, then with each one open by itself: the rectangles of all text, formulas, tables and pictures.
"""

from __future__ import annotations

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import Page

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
KINDS = {"table": "table", "equation": 'mjx-container[display="true"]', "code": ".code", "figure": "img", "answers": "details"}

# One pass over a deck. Rectangles of letters come from ranges, not from the boxes that the deck's own script measures.
MEASURE = r"""() => {
  const troubles = [], colours = {}, kinds = {};
  const visible = (node) => !node.parentElement.closest("aside, mjx-container, script, style");
  const look = (slide, where) => {
    const outer = slide.getBoundingClientRect();
    const inside = (rect, what) => {
      if (!rect.width || !rect.height) return;
      const [left, top] = [rect.left - outer.left, rect.top - outer.top];
      const [right, bottom] = [left + rect.width, top + rect.height];
      if (left < -0.5 || top < -0.5 || right > 1280.5 || bottom > 720.5)
        troubles.push(`${where}: ${what} ends at ${Math.round(right)} x ${Math.round(bottom)}`);
      for (const [name, area] of Object.entries(corner))
        if (rect.right > area.left && rect.left < area.right && rect.bottom > area.top && rect.top < area.bottom)
          troubles.push(`${where}: ${what} lies under the ${name}`);
    };
    const corner = { controls: document.querySelector(".controls").getBoundingClientRect(),
                     "number of the slide": document.querySelector(".slide-number").getBoundingClientRect() };
    const walk = document.createTreeWalker(slide, NodeFilter.SHOW_TEXT);
    for (let node = walk.nextNode(); node; node = walk.nextNode()) {
      const text = node.textContent.trim();
      if (!text || !visible(node)) continue;
      const range = document.createRange();
      range.selectNodeContents(node);
      const rects = [...range.getClientRects()].filter((rect) => rect.width);
      if (!rects.length) continue;  // in an answer that is folded
      rects.forEach((rect) => inside(rect, `"${text.slice(0, 30)}"`));
      const style = getComputedStyle(node.parentElement), size = parseFloat(style.fontSize) * outer.width / 1280;
      const code = node.parentElement.closest("pre, code");
      if (size < (code ? 14 : 16) - 0.01) troubles.push(`${where}: "${text.slice(0, 30)}" is set in ${size.toFixed(1)} px`);
      if (!code && /\$|\\[a-z]+\{/.test(text)) troubles.push(`${where}: raw TeX, "${text.slice(0, 40)}"`);
      let ground = node.parentElement;
      const bare = (element) => getComputedStyle(element).backgroundColor === "rgba(0, 0, 0, 0)";
      while (ground.parentElement && bare(ground)) ground = ground.parentElement;
      colours[`${style.color} on ${getComputedStyle(ground).backgroundColor}`] = `${where}: "${text.slice(0, 30)}"`;
    }
    for (const formula of slide.querySelectorAll(".piece mjx-container, header mjx-container")) {
      if (!formula.getClientRects().length) continue;
      inside(formula.querySelector("svg").getBoundingClientRect(), "a formula");
      const size = parseFloat(getComputedStyle(formula).fontSize);
      if (size < 15.99) troubles.push(`${where}: a formula is set in ${size.toFixed(1)} px`);
    }
    slide.querySelectorAll("table, img, pre, details").forEach((element) => {
      inside(element.getBoundingClientRect(), element.tagName);
      if (element.scrollWidth > element.clientWidth + 1 && element.matches("pre")) troubles.push(`${where}: code is cut off`);
    });
    if (slide.querySelector("mjx-merror, [data-mjx-error]")) troubles.push(`${where}: MathJax did not understand a formula`);
    for (const image of slide.querySelectorAll("img")) {
      const least = image.naturalHeight > 420 ? 0.6 : 1;
      if (!image.naturalWidth || image.getBoundingClientRect().height < least * image.naturalHeight)
        troubles.push(`${where}: a figure is smaller than in the notebook`);
      if (!image.alt) troubles.push(`${where}: a figure has no alternative text`);
    }
  };
  document.querySelectorAll(".slides > section").forEach((column, h) => [...column.children].forEach((slide, v) => {
    Reveal.slide(h, v, 99);
    const where = `slide ${h}.${v}`, answers = [...slide.querySelectorAll("details")];
    if (Reveal.getCurrentSlide() !== slide) troubles.push(`${where} cannot be reached`);
    look(slide, where);
    for (const one of answers) {
      one.open = true;
      look(slide, `${where}, one answer open`);
      one.open = false;
    }
    for (const one of answers) one.open = true;
    if (answers.length > 1) look(slide, `${where}, answers open`);
    for (const one of answers) one.open = false;
    for (const [kind, selector] of Object.entries(KINDS)) if (slide.querySelector(selector)) kinds[kind] ??= [h, v];
  }));
  return { troubles, colours, kinds, count: Reveal.getTotalSlides() };
}"""


def measure(page: Page) -> dict:
    """Visit every slide; return what is wrong with them, the pairs of colours, and a slide of each kind."""
    result = page.evaluate(MEASURE.replace("() => {", f"() => {{ const KINDS = {KINDS};", 1))
    for pair, where in result["colours"].items():
        if contrast(pair) < 4.5:
            result["troubles"].append(f"{where}: contrast {contrast(pair):.1f} of {pair}")
    return result


def contrast(pair: str) -> float:
    """Return the contrast of ``rgb(..) on rgb(..)`` by WCAG 2."""
    numbers = [int(number) / 255 for number in re.findall(r"\d+", pair)]
    assert len(numbers) == 6, f"a colour is transparent: {pair}"
    linear = [n / 12.92 if n <= 0.04045 else ((n + 0.055) / 1.055) ** 2.4 for n in numbers]
    low, high = sorted(0.2126 * red + 0.7152 * green + 0.0722 * blue for red, green, blue in (linear[:3], linear[3:]))
    return (high + 0.05) / (low + 0.05)


def open_deck(page: Page, address: str) -> None:
    """Open a deck and wait until it is set and reveal.js runs."""
    page.goto(address)
    page.wait_for_selector("html.ready", state="attached", timeout=60_000)


@pytest.fixture
def served(decks) -> Iterator[str]:
    """The address of the folder of the decks, served."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=decks[0].parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def deck_of(decks: list[Path], name: str) -> Path:
    """Return the deck of a lesson."""
    return next(deck for deck in decks if deck.stem == name)


@pytest.mark.parametrize("name", NAMES)
def test_every_slide_fits_and_is_legible(decks, page, keep, name):
    open_deck(page, deck_of(decks, name).as_uri())
    result = measure(page)
    assert not result["troubles"], "\n".join(result["troubles"][:20])
    assert result["count"] >= 10
    for kind, (h, v) in {"title": (0, 0), **result["kinds"]}.items():
        page.evaluate(f"Reveal.slide({h}, {v})")
        keep(page, f"{name[:2]}-{kind}")


PLANTED = {  # what is put behind the pieces of a slide, and what must be said of it
    "too tall": ('<p style="margin-top: 640px">low</p>', '"low" ends at'),
    "too wide": (f'<p style="white-space: nowrap">{"wide " * 80}</p>', '"wide wide'),
    "too small": ('<p style="font-size: 15px">small</p>', "is set in 15.0 px"),
    "small code": ('<pre style="font-size: 13px">small</pre>', "is set in 13.0 px"),
    "pale": ('<p style="color: #888888">pale</p>', "contrast 3.5"),
    "raw": ("<p>$x_t$</p>", "raw TeX"),
    "in an answer": (
        '<details><summary>More</summary><p style="margin-top: 640px">deep</p></details>',
        'one answer open: "deep" ends at',
    ),
    "no alternative text": ('<img src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">', "no alternative text"),
    "a formula": ("<mjx-merror></mjx-merror>", "did not understand"),
}


@pytest.mark.parametrize("bug", PLANTED)
def test_planted_troubles_are_seen(decks, page, bug):
    plant, said = PLANTED[bug]
    open_deck(page, decks[0].as_uri())
    page.eval_on_selector(
        ".slides > section:nth-child(3) > section", f"slide => slide.insertAdjacentHTML('beforeend', {plant!r})"
    )
    assert any(said in trouble for trouble in measure(page)["troubles"])


def test_the_deck_shrinks_what_is_a_little_too_tall(decks, page, tmp_path):
    """The script in the deck, on a slide of which one paragraph has become four."""
    text = decks[2].read_text(encoding="utf-8")
    paragraph = re.search(r'<div class="piece prose"><p>[^$]{120,400}?</p>', text)[0]
    grown = text.replace(paragraph, paragraph + re.sub(r"<div.*?>", "", paragraph) * 3, 1)
    deck = decks[2].with_name(".planted.html")
    deck.write_text(grown, encoding="utf-8")
    try:
        open_deck(page, deck.as_uri())
        assert not measure(page)["troubles"]
    finally:
        deck.unlink()


def test_keys(decks, page):
    deck = deck_of(decks, "02_rnn")
    open_deck(page, deck.as_uri())
    place = "() => { const { h, v } = Reveal.getIndices(); return [h, v]; }"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(place) == [2, 0]
    page.keyboard.press("ArrowDown")
    assert page.evaluate(place) == [2, 1]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Space")
    assert page.evaluate(place) == [2, 1]
    page.keyboard.press("Shift+Space")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(place) == [1, 0]
    for close in ("o", "Escape"):
        page.keyboard.press("o")
        assert page.evaluate("Reveal.isOverview()")
        page.keyboard.press(close)
        assert not page.evaluate("Reveal.isOverview()")
    page.evaluate(
        "() => Reveal.slide(...Object.values(Reveal.getIndices(document.querySelector('section:has(> .piece details)'))))"
    )
    h, v = page.evaluate(place)
    open_now = "() => [...Reveal.getCurrentSlide().querySelectorAll('details')].map((answer) => answer.open)"
    page.keyboard.press("d")
    assert page.evaluate(open_now)[0] is True
    while not all(page.evaluate(open_now)):
        page.keyboard.press("d")
    page.keyboard.press("d")
    assert not any(page.evaluate(open_now))
    page.evaluate("Reveal.getCurrentSlide().querySelector('summary').focus()")
    page.keyboard.press("Space")
    assert page.evaluate(open_now)[0] is True and page.evaluate(place) == [h, v]
    assert re.fullmatch(r"\d+ ?/ ?\d+", page.locator(".slide-number").inner_text().strip())


@pytest.mark.parametrize("way", ["file", "served"])
def test_the_notes_window_shows_the_notes_of_the_section(decks, served, page, keep, way):
    name = "02_rnn"
    book = nbformat.read(ROOT / "notebooks" / "instructor" / f"{name}.ipynb", as_version=4)
    number = next(k for k, cell in enumerate(book.cells) if cell.metadata.get("slideshow", {}).get("slide_type") == "notes")
    above = next(cell for cell in reversed(book.cells[:number]) if cell.source.startswith("#"))
    title = re.match(r"#+ (.*)", above.source)[1]
    address = deck_of(decks, name).as_uri() if way == "file" else f"{served}/{name}.html"
    open_deck(page, address)
    page.evaluate(
        """(title) => { const columns = [...document.querySelectorAll(".slides > section")];
        Reveal.slide(columns.findIndex((column) => column.querySelector("header").innerText.trim() === title)); }""",
        title,
    )
    with page.context.expect_page() as opened:
        page.keyboard.press("s")
    window = opened.value
    window.set_viewport_size({"width": 1100, "height": 700})
    words = re.findall(r"\w+", re.sub(r"[*`$]", "", book.cells[number].source))[:6]
    notes = window.locator(".speaker-controls-notes .value")
    window.wait_for_function("() => document.querySelector('.speaker-controls-notes .value')?.innerText.trim()", timeout=30_000)
    assert re.findall(r"\w+", notes.inner_text())[:6] == words
    frame = next(frame for frame in window.frames if "receiver" in frame.url)
    frame.wait_for_selector("html.ready", state="attached", timeout=60_000)
    page.keyboard.press("Space")  # a column shows its note on every slide
    if page.evaluate("Reveal.getIndices().v") == 1:
        window.wait_for_timeout(300)
        assert re.findall(r"\w+", notes.inner_text())[:6] == words
    if "min ·" in book.cells[number].source:
        assert window.locator(".pacing").is_visible() and re.match(r"\d+ min", notes.inner_text().strip())
    keep(window, f"notes-{way}")


def test_the_index_leads_to_every_deck(decks, served, page, keep):
    page.goto(f"{served}/index.html")
    links = page.eval_on_selector_all("li a", "links => links.map((link) => link.getAttribute('href'))")
    assert links == [deck.name for deck in decks]
    keep(page, "index")
    page.click(f'a[href="{decks[0].name}"]')
    page.wait_for_selector("html.ready", state="attached", timeout=60_000)
    assert page.evaluate("document.documentElement.lang") == "en"
