/* Sets the formulas, makes slides fit 1280 x 720, then starts reveal.js.

   The slides are cut to size when the deck is built; what is left is measured here, once, with every folded answer open, so
   that nothing moves or leaves the slide during the lecture. */

const FLOOR = 0.64; // 18 px of prose
const GROW = 1.8; // how much larger than in the notebook a figure may get before it looks soft

window.MathJax = {
  tex: { inlineMath: [["$", "$"]], displayMath: [["$$", "$$"]], processEscapes: true },
  svg: { fontCache: "local" }, // a formula in a note must not need the definitions of another window
  options: { enableMenu: false },
  startup: { pageReady: () => MathJax.startup.defaultPageReady().finally(start) },
};

const box = (element) => element.getBoundingClientRect();

/* Whether something in a slide is lower than the footer's edge, or wider than the text. */
function overflows(slide) {
  const { top, left } = box(slide);
  const parts = [...slide.querySelectorAll(".piece, pre, table, li, p, img, mjx-container > svg")].map(box);
  return parts.some((part) => part.bottom > top + 664.5 || part.right > left + 1232.5);
}

/* An equation wider than the slide gets smaller letters, by itself. Returns whether there was one. */
function narrow(slide) {
  let found = false;
  for (const equation of slide.querySelectorAll('mjx-container[display="true"]')) {
    equation.style.removeProperty("--equation");
    const ratio = equation.parentElement.clientWidth / box(equation.querySelector("svg")).width;
    if (ratio < 1) equation.style.setProperty("--equation", `${Math.floor(ratio * 1000) / 10}%`);
    found ||= ratio < 1;
  }
  return found;
}

/* Whether a slide is good at a scale: nothing too large, and no equation made smaller where the text is made larger. */
function fits(slide, scale) {
  slide.style.setProperty("--s", scale);
  return !(narrow(slide) && scale > 1) && !overflows(slide);
}

function fit(slide) {
  const figures = [...slide.querySelectorAll(".output img")];
  for (const image of figures) image.style.setProperty("--figure", `${Math.min(image.naturalHeight, 400 / figures.length)}px`);
  let low = FLOOR;
  let high = slide.querySelector(".prose") ? 1.14 : 1.34; // a slide with little on it is set larger
  if (fits(slide, high)) low = high;
  else if (fits(slide, 1)) low = 1;
  else high = 1;
  for (let round = 0; round < 6 && low < high; round += 1) {
    const middle = (low + high) / 2;
    if (fits(slide, middle)) low = middle;
    else high = middle;
  }
  fits(slide, Math.floor(low * 1000) / 1000);
  grow(slide, figures);
}

/* Figures share what the text leaves free. */
function grow(slide, figures) {
  if (!figures.length) return;
  for (const image of figures) image.style.setProperty("--figure", "0px");
  const pieces = slide.querySelectorAll(".piece");
  const free = (box(slide).top + 664 - box(pieces[pieces.length - 1]).bottom) / figures.length;
  for (const image of figures) {
    const { naturalWidth: width, naturalHeight: height } = image;
    image.style.setProperty("--figure", `${Math.floor(Math.min(free, height * GROW, (height * 1184) / width))}px`);
    if (pieces.length === 1) image.style.marginTop = `${Math.max(0, Math.floor((free - height * GROW) / 3))}px`;
  }
}

/* A line does not end between a formula and the bracket before it, nor begin with the comma or full stop behind it. */
function glue(formula) {
  const before = formula.previousSibling?.data?.match(/[([]$/)?.[0] ?? "";
  const behind = formula.nextSibling?.data?.match(/^[.,;:?!)\]]+/)?.[0] ?? "";
  if (!before && !behind) return;
  if (before) formula.previousSibling.deleteData(formula.previousSibling.length - 1, 1);
  if (behind) formula.nextSibling.deleteData(0, behind.length);
  const whole = document.createElement("span");
  whole.className = "glued";
  formula.replaceWith(whole);
  whole.append(before, formula, behind);
}

/* A note belongs to its section: every slide of the column shows it. It stands once in the file. */
function spread(column) {
  const notes = [...column.querySelectorAll("aside.notes")];
  for (const hidden of column.querySelectorAll("aside.notes mjx-assistive-mml")) hidden.remove(); // the notes window draws it
  for (const slide of [...column.children].slice(1)) slide.append(...notes.map((note) => note.cloneNode(true)));
}

/* Key D opens the next folded answer of a slide, and closes all when none is left. */
function unfold() {
  const answers = [...Reveal.getCurrentSlide().querySelectorAll("details")];
  const next = answers.find((answer) => !answer.open);
  if (next) next.open = true;
  else for (const answer of answers) answer.open = false;
}

async function start() {
  await document.fonts.ready;
  const deck = document.querySelector(".reveal");
  await Promise.all([...deck.querySelectorAll("img")].map((image) => image.decode().catch(() => {})));
  for (const cell of deck.querySelectorAll("td:first-child")) if (cell.textContent.length <= 24) cell.classList.add("short");
  deck.querySelectorAll('.piece mjx-container:not([display="true"])').forEach(glue);
  const answers = [...deck.querySelectorAll("details")];
  for (const answer of answers) answer.open = true;
  deck.querySelectorAll(".slides section section").forEach(fit);
  for (const answer of answers) answer.open = false;
  deck.querySelectorAll(".slides > section").forEach(spread);
  for (const link of deck.querySelectorAll('a[href^="http"]')) link.target = "_blank";
  // Space and Enter on a focused answer open it; reveal.js would go to the next slide.
  deck.addEventListener("keydown", (event) => event.target.matches("summary") && [" ", "Enter"].includes(event.key) && event.stopPropagation());
  deck.classList.remove("measuring");
  await Reveal.initialize({
    width: 1280,
    height: 720,
    margin: 0,
    center: false,
    hash: true,
    slideNumber: "c/t",
    transition: "none",
    backgroundTransition: "none",
    defaultTiming: "paced" in deck.dataset ? 0 : null,
    plugins: [RevealNotes],
  });
  Reveal.addKeyBinding({ keyCode: 68, key: "D", description: "Open the next folded answer" }, unfold);
  document.documentElement.classList.add("ready");
}
