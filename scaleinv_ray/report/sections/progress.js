/* Kinds of progress: which run has which between which checkpoints, and what moves in each. */

const KIND_COLORS = ["--trained", "--random", "--weights", "--tokens", "--size-1", "--open"];
const kindColor = (row) => color(KIND_COLORS[(row.progress - 1) % KIND_COLORS.length]);
const KINDS_ABSENT = "This run has no table of kinds of progress.";
const SIGNED = (z) => `${z > 0 ? "+" : ""}${num(z, 2)}`;

/* A row a run, a column an interval of steps; every cell the kind, by number and colour. */
function kindGrid(rows) {
  const cells = new Map(), spans = new Map();
  for (const row of rows) {
    row.runs.forEach((run, i) => {
      const span = `${row.step_low[i]}-${row.step_high[i]}`;
      spans.set(span, [row.step_low[i], row.step_high[i]]);
      cells.set(`${run}\n${span}`, row);
    });
  }
  const columns = [...spans].sort((a, b) => a[1][0] - b[1][0] || a[1][1] - b[1][1]);
  const runs = distinct(rows.flatMap((row) => row.runs)).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
  const head = el("tr", {}, el("th", { scope: "col" }, "Run \\ steps"), ...columns.map(([span]) => el("th", { scope: "col", class: "number" }, span.replace("-", "–"))));
  const body = runs.map((run) => el("tr", {}, el("th", { scope: "row" }, cut(run)), ...columns.map(([span]) => {
    const row = cells.get(`${run}\n${span}`);
    if (!row) return el("td", { class: "kind", title: "not measured" }, "–");
    const cell = el("td", { class: "kind", title: `${run}, steps ${span}: kind ${row.progress}` }, String(row.progress));
    cell.style.background = kindColor(row);
    return cell;
  })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Kinds by run and steps" },
    el("table", { class: "kinds" }, el("caption", { class: "hidden" }, "The kind of every run between two checkpoints"), el("thead", {}, head), el("tbody", {}, ...body)));
}

function kindMoves(title, names, values) {
  if (!names.length) return [];
  const most = Math.max(...values.map(Math.abs));
  const lines = names.map((name, i) => {
    const bar = el("span", { class: values[i] < 0 ? "bar-z down" : "bar-z" });
    bar.style.width = `${Math.round((70 * Math.abs(values[i])) / most)}px`;
    return el("tr", {}, el("td", {}, breakable(name)), el("td", { class: "number" }, SIGNED(values[i])), el("td", {}, bar));
  });
  return [el("div", {}, el("h4", {}, title), el("table", { class: "moves" }, el("tbody", {}, ...lines)))];
}

function kindCard(row) {
  const mark = el("span", { class: "kind-mark" }, String(row.progress));
  mark.style.background = kindColor(row);
  const what = row.calendar === null ? "the only one" : row.calendar ? "a stage of the calendar" : "a kind of its own";
  return el("div", { class: "card" },
    el("div", { class: "card-head" }, mark, el("h3", {}, what), el("span", { class: "faint" }, `${count(row.n_events)} intervals of ${count(row.n_runs)} runs: ${row.intervals.join(", ").replaceAll("-", "–")}`)),
    el("p", { class: "faint" }, row.reason, row.by_interval === null ? "." : `. The interval gives ${percent(row.by_interval)} of what there is to know of it${row.by_loss === null ? "" : `, the loss at its beginning ${percent(row.by_loss)}`}.`),
    el("div", { class: "moved" }, ...kindMoves("What moves, over the scatter of seeds", row.moves, row.moves_z), ...kindMoves("Losses and gains meanwhile", row.behaviour, row.behaviour_z)));
}

function kindsOf(series, rows) {
  const known = rows.filter((row) => row.progress !== null);
  const heading = el("h3", {}, cut(series));
  if (!known.length) return [heading, missing(`No kinds are looked for: ${rows[0].reason}.`)];
  const [first] = known;
  const stages = known.filter((row) => row.calendar).length;
  const said = first.n_kinds === 1
    ? `One kind alone can be claimed (p ${num(first.p)} of one, among surrogates that have one).`
    : `${first.n_kinds} kinds can be claimed (p ${num(first.p)} of a single one; of pairs of a kind held-out seeds keep ${percent(first.strength)} together). ${stages === first.n_kinds ? "All" : stages || "None"} of them ${stages === 1 ? "is a stage" : "are stages"} of the calendar.`;
  return [heading, el("p", { class: "note" }, said), kindGrid(known), el("div", { class: "cards" }, ...known.map(kindCard))];
}

async function startKinds() {
  const table = await tableOf("kinds");
  const rows = table ? records(table) : [];
  const save = el("button", { type: "button", class: "quiet", on: { click: () => download("kinds", Object.keys(rows[0]), rows) } }, "Download CSV");
  const place = $("kinds-body");
  if (!rows.length) place.replaceChildren(missing(table ? "No run has checkpoints enough to be followed over training." : KINDS_ABSENT));
  else place.replaceChildren(el("div", { class: "controls" }, save), ...[...groups(rows, (row) => row.series)].flatMap(([series, own]) => kindsOf(series, own)));
}

STARTS.kinds = startKinds;
