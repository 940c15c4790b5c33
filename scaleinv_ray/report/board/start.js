/* Starts the page: the verdict board at once, every section when it comes near the view. */

const SECTIONS = new Map();
const POINTS = {};

function loadPoints() {
  return once("all points", async () => {
    const [points, curves] = await Promise.all([load("points"), load("curves")]);
    const [predictions, transitions, collapses] = await Promise.all(["predictions", "transitions", "collapses"].map(tableOf));
    Object.assign(POINTS, {
      slices: points.slices, runs: points.runs, profiles: points.profiles, curves: curves.curves, bars: curves.bars, axes: curves.axes,
      predictions: records(predictions), transitions: records(transitions), collapses: records(collapses),
      hasTransitions: transitions !== null, hasCollapses: collapses !== null,
    });
  });
}

async function showSlice(row) {
  const family = SECTIONS.get(row.family);
  if (!family) return;
  await family.ready();
  family.show(row);
}

/* Runs once, when an element comes near the view. */
function whenNear(element, f) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    f();
  }, { rootMargin: "300px" });
  observer.observe(element);
}

function startSections() {
  for (const name of DATA.families) SECTIONS.set(name, new Family(name));
  if (!DATA.families.length) $("families").append(el("p", { class: "note" }, "There are no measurements with a value to draw."));
  const others = [...document.querySelectorAll("section.later")];
  const first = [["picture", "Change"], ["verdicts", "Verdicts"]].filter(([id]) => $(id));
  const links = [...first, ...DATA.families.map((name) => [`family-${name}`, words(name)]), ...others.map((section) => [section.id, section.querySelector("h2").textContent])];
  $("contents").replaceChildren(...links.map(([id, text]) => el("a", { href: `#${id}` }, text)));
  for (const section of others) {
    const start = STARTS[section.id] || (section.dataset.table && startPlainTable);
    if (start) whenNear(section, () => start(section));
  }
  $("foot").textContent = DATA.paired
    ? `${count(DATA.paired)} measurements compare two models; they are not drawn against parameters.` : "";
}

themeListeners.push(() => FIGURES.forEach((figure) => figure.recolour()));
/* Paper has no view to come into. */
window.addEventListener("beforeprint", () => FIGURES.forEach((figure) => {
  figure.seen = true;
  figure.draw();
}));
startTheme();
startTable();
// after the frame in which the table is painted
requestAnimationFrame(() => setTimeout(() => performance.mark("first-view")));
startSections();
