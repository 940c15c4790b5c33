/* From a number to the measurements behind it: their keys, parameters, code version, digest. */

function inSlice(place, slice) {
  return place.family === slice.family && place.invariant === slice.invariant && place.quantity === slice.quantity
    && (place.probe || "") === slice.probe && place.sites.includes(slice.site) && place.bins.includes(slice.bin || "all");
}

function inUnit(unit, slice, filter) {
  return (unit.series || "") === slice.series
    && ["variant", "n_params", "step", "model", "seed"].every((name) => filter[name] === undefined || unit[name] === filter[name]);
}

/* Measurements of a slice whose unit agrees with the filter (variant, n_params, step, model, seed). */
async function measurementsOf(slice, filter) {
  const data = await load("rows");
  if (!data.rows.rows) return { total: data.total, found: [] };
  const index = (table, keep) => new Map(records(table).map((row, i) => [i, row]).filter(([, row]) => keep(row)));
  const places = index(data.places, (place) => inSlice(place, slice));
  const units = index(data.units, (unit) => inUnit(unit, slice, filter));
  const { place_at: placeAt, unit_at: unitAt } = data.rows.columns;
  const found = [];
  for (let i = 0; i < data.rows.rows; i += 1) {
    const [place, unit] = [places.get(placeAt[i]), units.get(unitAt[i])];
    if (place && unit) {
      const own = record(data.rows, i);
      if (own.unit_b === null) found.push({ ...unit, ...place, ...own });
    }
  }
  const order = ["n_params", "model", "seed", "step", "layer", "role", "head"];
  found.sort((a, b) => order.reduce((sofar, name) => sofar || compare(a[name] ?? -1, b[name] ?? -1), 0));
  return { total: data.total, found };
}

const ROW_CSV = [
  "run_id", "key", "unit", "unit_b", "series", "model", "architecture", "n_params", "n_layers", "d_model", "seed", "step",
  "train_tokens", "eval_loss", "variant", "probe", "probe_tokens", "protocol", "layer", "depth", "role", "head", "site", "capture",
  "family", "invariant", "version", "quantity", "law", "value", "stderr", "n", "error_kind", "params", "flags", "status", "error",
  "weights_digest", "code_version",
];

/* Null: not estimated; zero: exact. */
function valueText(row) {
  if (row.status !== "ok") return row.status;
  if (row.stderr === null) return `${num(row.value)} (error unknown)`;
  return row.stderr === 0 ? `${num(row.value, 6)} (exact)` : `${num(row.value, 4)} ± ${num(row.stderr, 2)}`;
}

const ROW_COLUMNS = [
  { head: "Model", value: (r) => r.model },
  { head: "Seed", value: (r) => r.seed, cell: (r) => String(r.seed ?? "–") },
  { head: "Step", value: (r) => r.step, cell: (r) => (r.step === null ? "–" : count(r.step)) },
  { head: "Variant", value: (r) => words(r.variant) },
  { head: "Layer", value: (r) => r.layer, cell: (r) => String(r.layer ?? "–") },
  { head: "Role", value: (r) => r.role || r.site || "" },
  { head: "Head", value: (r) => r.head, cell: (r) => String(r.head ?? "–") },
  { head: "Value", value: (r) => r.value, cell: valueText, number: true },
  { head: "n", value: (r) => r.n, cell: (r) => String(r.n ?? "–"), number: true },
  { head: "Key", value: (r) => r.key, cell: (r) => el("code", {}, (r.key || "").slice(0, 12)) },
];

function readable(text) {
  try {
    return Object.entries(JSON.parse(text)).map(([name, value]) => `${name}: ${value !== null && typeof value === "object" ? JSON.stringify(value) : value}`).join("\n");
  } catch {
    return text;
  }
}

const PROVENANCE = ["key", "invariant", "version", "code_version", "params", "flags", "weights_digest", "protocol", "run_id", "unit"];

function rowFacts(row) {
  const names = [...PROVENANCE, ...ROW_CSV.filter((name) => !PROVENANCE.includes(name))];
  const facts = names.filter((name) => row[name] !== null && row[name] !== undefined && row[name] !== "");
  return el("dl", { class: "row-facts" }, ...facts.map((name) => {
    const isMap = name === "params" || name === "flags";
    const text = isMap ? readable(row[name]) : String(row[name]);
    return el("div", {}, el("dt", {}, words(name)), el("dd", { class: isMap ? "pre" : null, "data-name": name }, text || "none"));
  }));
}

const rowTable = new DataTable({
  name: "Measurements", columns: ROW_COLUMNS, csv: ROW_CSV, limit: 100,
  open: (row, line) => {
    rowTable.body.querySelectorAll("[aria-selected]").forEach((other) => other.removeAttribute("aria-selected"));
    line.setAttribute("aria-selected", "true");
    $("details-row").replaceChildren(el("h3", {}, "This measurement"), rowFacts(row));
  },
});

/* Opens the panel: every measurement that a number is a mean of. */
async function showRows(slice, filter, title) {
  $("details-title").textContent = title;
  const dialog = $("details");
  $("details-table").replaceChildren(el("p", { class: "note" }, "Unpacking the measurements …"));
  $("details-row").replaceChildren();
  if (!dialog.open) dialog.showModal();
  const { total, found } = await measurementsOf(slice, filter);
  if (!found.length) {
    $("details-table").replaceChildren(el("p", { class: "note" }, total
      ? `The ${count(total)} measurements of this run are in its table measurements; this page holds no rows of this number.`
      : "This run has no measurements."));
    return;
  }
  rowTable.show(found);
  $("details-table").replaceChildren(rowTable.frame);
  rowTable.open(rowTable.shown[0], rowTable.body.rows[0]);
  rowTable.body.rows[0].focus();
}

/* All measurements of a card, of every variant, size and step, as CSV. */
async function downloadRows(slice) {
  const { total, found } = await measurementsOf(slice, {});
  if (found.length) download(`${slice.invariant}-${slice.quantity}-${slice.site}-${slice.bin || "all"}`, ROW_CSV, found);
  else window.alert(`The ${count(total)} measurements of this run are too many for this page: they are in its table measurements.`);
}
