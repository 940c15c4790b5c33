/* The verdict board: filters, search, sorting, keys, CSV. */

const BADGES = {
  conserved: "●", scales: "↗", "not conserved": "✕", undetermined: "?", refused: "–", "not asked": "·",
  trivial: "○", architectural: "▢", learned: "◆",
};

function badge(kind, text) {
  const mark = el("span", { class: "mark", "aria-hidden": "true" }, BADGES[kind] || "");
  return el("span", { class: `badge ${kind.replaceAll(" ", "-")}` }, mark, text);
}

function nullBadge(row, before = "") {
  if (!row.null_class) return el("span", { class: "faint" }, "no control");
  const kind = row.null_kind;
  return kind === "undetermined"
    ? el("span", { class: "badge null open" }, `${before}undetermined`)
    : el("span", { class: `badge null ${kind}` }, el("span", { class: "mark", "aria-hidden": "true" }, BADGES[kind]), `${before}${kind}`);
}

/* Slope and its interval; with a unit of the quantity itself. */
function exponentParts(row) {
  const [slope, low, high] = [row.exponent, row.exponent_low, row.exponent_high]
    .map((v) => num(v !== null && hasUnit(row) ? v * row.unit : v));
  return [slope, `[${low}, ${high}]`];
}

const exponentText = (row) => (row.exponent === null ? "–" : exponentParts(row).join(" "));

function exponentCell(row) {
  if (row.exponent === null) return "–";
  const [slope, interval] = exponentParts(row);
  return el("span", {}, hasUnit(row) ? `${slope} per ln N` : slope, el("span", { class: "needs" }, interval));
}

function seedsCell(row) {
  const needed = row.seeds_needed !== null && row.seeds_needed > (row.n_seeds || 0);
  const small = (text, title) => el("span", { class: "needs", title }, text);
  return el("span", {}, `${row.n_seeds ?? "–"}`,
    needed ? small(`needs ${row.seeds_needed}`, null) : null,
    row.n_refused ? small(`${row.n_refused} refused`, refusedText(row)) : null);
}

function refusedText(row) {
  return `${row.n_refused} model${row.n_refused === 1 ? "" : "s"} not judged: values were refused`;
}

const DRAWN = new Set(DATA.drawn.map((pair) => pair.join("\n")));
const isDrawn = (row) => DRAWN.has(`${row.invariant}\n${row.quantity}`);

function quantityLink(row) {
  const name = breakable(row.quantity);
  const link = isDrawn(row)
    ? el("a", { href: `#family-${row.family}`, tabindex: "-1", on: { click: () => showSlice(row) } }, name) : name;
  const said = whatOf(row);
  return el("span", { title: said }, link, row.control ? controlBadge(" ") : null, said ? el("span", { class: "needs meaning" }, said) : null);
}

function controlBadge(before = "") {
  return el("span", { title: "Measured to be read beside another quantity; not counted above" }, before,
    el("span", { class: "badge null control" }, "control"));
}

const verdictText = (row) => words(row.verdict || "refused").toLowerCase();

function verdictCell(row) {
  const mark = row.fragile ? el("span", { class: "needs", title: "Another verdict with one of the models left out" }, "fragile") : null;
  return el("span", {}, badge(row.verdict_kind, verdictText(row)), mark);
}

/* A line; the whole on request. */
function reasonCell(row) {
  if (!row.brief || row.brief === row.reason) return el("span", { class: "reason" }, row.reason || "");
  return el("details", { class: "reason" }, el("summary", {}, row.brief), row.reason);
}

const RANK = ["conserved", "scales", "not conserved", "undetermined", "refused", "not asked"];

const COLUMNS = [
  { head: "Verdict", value: (r) => RANK.indexOf(r.verdict_kind), cell: verdictCell },
  { head: "Quantity", value: (r) => r.quantity, cell: quantityLink, row: true },
  { head: "Null class", value: (r) => r.null_kind, cell: (r) => nullBadge(r) },
  { head: "Reason", value: (r) => r.brief || "", cell: reasonCell },
  { head: "Certified change", value: (r) => r.certified_change, cell: (r) => amount(r, r.certified_change), number: true },
  { head: "Form", value: (r) => words(r.form), cell: (r) => words(r.form) || "–" },
  { head: "Exponent / slope", value: (r) => r.exponent, cell: exponentCell, number: true },
  { head: "Conservation error", value: (r) => r.conservation_error, cell: (r) => amount(r, r.conservation_error), number: true },
  { head: "Site", value: (r) => r.site || "" },
  { head: "Depth", value: (r) => r.depth_bin, cell: (r) => binText(r.depth_bin) },
  { head: "Probe", value: (r) => r.probe || "" },
  { head: "Comparison", value: (r) => words(r.comparison) },
  { head: "Models", value: (r) => r.n_models, cell: (r) => `${r.n_models ?? "–"}`, number: true },
  { head: "Seeds", value: (r) => r.n_seeds, cell: seedsCell, number: true },
  { head: "Family", value: (r) => r.family },
  { head: "Invariant", value: (r) => local(r.invariant, r.family) },
];

const FIRST_ROWS = 200;
const table = { sort: null, descending: false, all: false, shown: [] };
const COLLATOR = new Intl.Collator("en", { numeric: true });

function wanted(row) {
  const depth = document.querySelector("#filter-depth input:checked");
  const text = $("search").value.trim().toLowerCase();
  const checks = [
    [$("filter-family").value, row.family],
    [$("filter-verdict").value, row.verdict_kind],
    [$("filter-null").value, row.null_kind || "none"],
    [$("filter-comparison").value, row.comparison],
    [depth ? depth.value : "", row.depth_bin || ""],
  ];
  if (checks.some(([value, own]) => value && value !== own)) return false;
  if (row.is_part && !$("filter-roles").checked) return false;
  if (row.control && !$("filter-controls").checked) return false;
  if ($("filter-q").checked && !(row.q !== null && row.q < 0.05)) return false;
  return text.split(/\s+/).every((word) => row.text.includes(word));
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return COLLATOR.compare(String(a), String(b));
}

function ordered(rows) {
  if (table.sort === null) return rows;
  const { value } = COLUMNS[table.sort];
  const missing = (v) => v === null || v === undefined || v === "";
  return rows.slice().sort((r, s) => {
    const [a, b] = [value(r), value(s)];
    if (missing(a) || missing(b)) return missing(a) - missing(b); // no number: last in both orders
    return table.descending ? compare(b, a) : compare(a, b);
  });
}

function tableRow(row, i) {
  return el("tr", { tabindex: i ? "-1" : "0" }, ...COLUMNS.map((column) => {
    const content = column.cell ? column.cell(row) : column.value(row) || "–";
    return column.row
      ? el("th", { scope: "row" }, content)
      : named(content, "td", { class: column.number ? "number" : null });
  }));
}

function drawTable() {
  const rows = ordered(VERDICTS.filter(wanted));
  const shown = table.all ? rows : rows.slice(0, FIRST_ROWS);
  table.shown = rows;
  $("verdict-table").tBodies[0].replaceChildren(...shown.map(tableRow));
  $("verdict-table").querySelectorAll("thead th").forEach((head, i) => {
    head.setAttribute("aria-sort", i !== table.sort ? "none" : table.descending ? "descending" : "ascending");
  });
  $("count").textContent = VERDICTS.length
    ? `${count(shown.length)} of ${count(VERDICTS.length)} verdicts shown`
    : "This run has no verdicts.";
  const hidden = rows.length - shown.length;
  const more = () => {
    table.all = true;
    drawTable();
    focusRow($("verdict-table").tBodies[0].rows[FIRST_ROWS]);
  };
  $("more").replaceChildren(...(hidden ? [el("button", { type: "button", on: { click: more } }, `Show ${count(hidden)} more`)] : []));
}

function sortBy(i) {
  table.descending = table.sort === i && !table.descending;
  table.sort = i;
  drawTable();
}

function fillSelect(select, options, every) {
  select.replaceChildren(
    el("option", { value: "" }, every),
    ...options.map(([value, text]) => option(value, text)),
  );
}

function depthChoice() {
  const present = new Set(VERDICTS.map((row) => row.depth_bin || ""));
  const bins = ["all", "early", "middle", "late"].filter((bin) => present.has(bin));
  const initial = bins.includes("all") ? "all" : "";
  const choice = (value, text) => el("label", {},
    el("input", { type: "radio", name: "depth", value, checked: value === initial }), el("span", {}, text));
  $("filter-depth").append(...bins.map((bin) => choice(bin, bin === "all" ? "whole" : bin)), choice("", "every"));
}

/* ---- filters in the address, so that what is shown can be linked ---- */

const ADDRESS = "#verdicts?";
const fields = () => [...$("filters").elements].filter((field) => field.id || field.name === "depth");
const initial = { state: "" };

function filterState() {
  const state = new URLSearchParams();
  for (const field of fields()) {
    if (field.type === "radio") {
      if (field.checked) state.set("depth", field.value);
    } else if (field.type === "checkbox") state.set(field.id, field.checked ? "1" : "");
    else if (field.id) state.set(field.id, field.value);
  }
  return state;
}

function writeAddress() {
  const first = new URLSearchParams(initial.state);
  const changed = [...filterState()].filter(([name, value]) => value !== (first.get(name) || ""));
  history.replaceState(null, "", changed.length ? ADDRESS + new URLSearchParams(changed) : "#verdicts");
}

/* What the address asks for; what it does not name, or what this run does not have, stays. */
function readAddress() {
  if (!location.hash.startsWith(ADDRESS)) return;
  const state = new URLSearchParams(location.hash.slice(ADDRESS.length));
  for (const field of fields()) {
    const value = state.get(field.type === "radio" ? "depth" : field.id);
    if (value === null) continue;
    if (field.type === "radio") field.checked = field.value === value;
    else if (field.type === "checkbox") field.checked = value === "1";
    else if (field.tagName !== "SELECT" || [...field.options].some((o) => o.value === value)) field.value = value;
  }
  $("filters").parentElement.open = true;
  drawTable();
  $("verdicts").scrollIntoView();
}

function startTable() {
  for (const row of VERDICTS) {
    row.text = [row.family, row.invariant, row.quantity, row.site, row.depth_bin, row.probe, words(row.comparison),
      words(row.verdict), words(row.form), words(row.null_class), row.control ? "control" : "", row.fragile ? "fragile" : "",
      meaningOf(row), row.reason].join(" ").toLowerCase();
  }
  const same = (values) => distinct(values).filter(Boolean).map((v) => [v, v]);
  fillSelect($("filter-family"), same(VERDICTS.map((r) => r.family)), "all");
  fillSelect($("filter-verdict"), RANK.filter((k) => VERDICTS.some((r) => r.verdict_kind === k)).map((k) => [k, k]), "all");
  const nulls = same(VERDICTS.map((r) => r.null_kind));
  if (VERDICTS.some((r) => !r.null_kind)) nulls.push(["none", "no control"]);
  fillSelect($("filter-null"), nulls, "all");
  const comparisons = distinct(VERDICTS.map((r) => r.comparison)).filter(Boolean);
  fillSelect($("filter-comparison"), comparisons.map((c) => [c, words(c)]), "all");
  const main = ["equal_steps", "final"].find((c) => comparisons.includes(c));
  if (main) $("filter-comparison").value = main;
  $("filter-comparison").parentElement.hidden = comparisons.length < 2;
  $("filter-roles").parentElement.hidden = !VERDICTS.some((r) => r.is_part);
  $("filter-controls").parentElement.hidden = !VERDICTS.some((r) => r.control);
  depthChoice();
  $("verdict-table").tHead.rows[0].append(...COLUMNS.map((column, i) => el("th",
    { scope: "col", class: column.number ? "number" : null, "aria-sort": "none" },
    el("button", { type: "button", on: { click: () => sortBy(i) } }, column.head))));
  $("filters").addEventListener("input", () => {
    drawTable();
    writeAddress();
  });
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("csv").addEventListener("click", () => download("verdicts-shown", csvNames(), table.shown));
  $("csv-all").addEventListener("click", () => download("verdicts", csvNames(), VERDICTS));
  rowKeys($("verdict-table").tBodies[0], (row) => row.querySelector("a")?.click());
  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || $("details").open;
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    $("filters").parentElement.open = true;
    $("search").focus();
    event.preventDefault();
  });
  drawTable();
  initial.state = filterState().toString();
  readAddress();
  window.addEventListener("hashchange", readAddress);
}

/* Every column of the verdicts table, without those that are made for this page. */
function csvNames() {
  return Object.keys(DATA.verdicts.columns).filter((name) => !["verdict_kind", "null_kind", "is_part", "brief"].includes(name));
}
