/* One model against the series: its value of every quantity beside what the others predict. */

const MODEL_CSV = [
  "model", "seed", "n_params", "step", "series", "family", "invariant", "quantity", "probe", "site", "form", "scale", "value",
  "predicted", "low", "high", "z", "others",
];

const FORMS = { constant: "constant", power: "power law", log: "a + b ln N" };

function zCell(row) {
  if (row.z === null) return "–";
  const outside = row.low !== null && (row.value < row.low || row.value > row.high);
  return el("span", { class: outside ? "outside" : null }, row.z.toFixed(2).replace("-", "−"));
}

const MODEL_COLUMNS = [
  { head: "Family", value: (r) => r.family },
  { head: "Invariant", value: (r) => local(r.invariant, r.family) },
  { head: "Quantity", value: (r) => r.quantity, cell: (r) => el("a", { href: `#family-${r.family}`, tabindex: "-1", on: { click: () => showSlice({ ...r, depth_bin: "all" }) } }, breakable(r.quantity)) },
  { head: "Site", value: (r) => r.site },
  { head: "Probe", value: (r) => r.probe },
  { head: "Step", value: (r) => r.step, cell: (r) => (r.step === null ? "–" : count(r.step)) },
  { head: "Value", value: (r) => r.value, number: true,
    cell: (r) => el("button", { type: "button", class: "link", tabindex: "-1", on: { click: () => openModelRow(r) } }, num(r.value)) },
  { head: "Predicted", value: (r) => r.predicted, number: true },
  { head: "90 % interval", value: (r) => r.low, cell: (r) => (r.low === null ? "–" : `[${num(r.low)}, ${num(r.high)}]`), number: true },
  { head: "z", value: (r) => (r.z === null ? null : Math.abs(r.z)), cell: zCell, number: true },
  { head: "From", value: (r) => r.form, cell: (r) => `${FORMS[r.form]}, ${r.others} others` },
];

function openModelRow(row) {
  const filter = { variant: "trained", step: row.step, model: row.model, seed: row.seed };
  return showRows({ ...row, bin: "all" }, filter, `${row.quantity}: ${row.model}, ${placeText({ ...row, bin: "all" })}`);
}

class ModelPage {
  constructor(data) {
    this.rows = records(data);
    const place = $("model-body");
    if (!this.rows.length) {
      place.replaceChildren(el("p", { class: "note" }, "No quantity was judged at equal steps with enough models to predict one from the others (three for a constant, four for a line)."));
      return;
    }
    const models = [...groups(this.rows, (r) => this.name(r))].sort((a, b) => a[1][0].n_params - b[1][0].n_params || a[0].localeCompare(b[0]));
    const label = (r) => `${r.model}${models.filter(([, own]) => own[0].model === r.model).length > 1 ? `, seed ${r.seed}` : ""} (${parameters(r.n_params)})`;
    const controls = el("div", { class: "controls" });
    const add = (title, options) => {
      const [select, holder] = chooser(title, options, () => this.update());
      controls.append(holder);
      return select;
    };
    this.model = add("Model", models.map(([name, own]) => [name, label(own[0])]));
    this.model.value = models[models.length - 1][0];
    this.family = add("Family", [["", "all"], ...distinct(this.rows.map((r) => r.family)).sort().map((f) => [f, words(f)])]);
    this.parts = el("input", { type: "checkbox", on: { change: () => this.update() } });
    controls.append(el("label", { class: "check", hidden: !this.rows.some((r) => r.is_part) }, this.parts, "each weight role"));
    this.table = new DataTable({
      name: "One model against the series", columns: MODEL_COLUMNS, csv: MODEL_CSV, limit: 30, sort: 9, descending: true, open: openModelRow,
    });
    this.summary = el("p");
    const figures = el("div", { class: "figures" });
    place.replaceChildren(controls, this.summary, figures, this.table.frame);
    this.figure = new Figure(figures, "Farthest from the series", () => this.build());
    this.update();
  }

  name(row) {
    return `${row.series}\n${row.model}\n${row.seed}`;
  }

  chosen() {
    return this.rows.filter((r) => this.name(r) === this.model.value && (!this.family.value || r.family === this.family.value)
      && (this.parts.checked || !r.is_part));
  }

  update() {
    const rows = this.chosen();
    const known = rows.filter((r) => r.low !== null);
    const outside = known.filter((r) => r.value < r.low || r.value > r.high).length;
    const expected = Math.round(0.1 * known.length);
    this.summary.textContent = `${outside} of ${known.length} values lie outside the 90 % interval that the other models give; `
      + `about ${expected} would by chance.`;
    this.table.show(rows);
    this.figure.draw();
  }

  build() {
    const rows = this.chosen().filter((r) => r.z !== null).sort((a, b) => Math.abs(b.z) - Math.abs(a.z)).slice(0, 24).reverse();
    if (!rows.length) return null;
    const families = distinct(rows.map((r) => r.family)).sort();
    const names = rows.map((r) => `${safe(r.quantity)}${r.site && r.site !== "all" ? `, ${safe(r.site)}` : ""}${r.probe ? `, ${safe(r.probe)}` : ""}`);
    const traces = families.map((family, i) => {
      const [own, style] = [rows.map((r, k) => k).filter((k) => rows[k].family === family), sizeStyle(i, families.length)];
      return {
        name: words(family), meta: { color: style.stroke, mark: style.mark }, type: "scatter", mode: "markers",
        x: own.map((k) => rows[k].z), y: own, customdata: own,
        text: own.map((k) => `${names[k]}<br>${num(rows[k].value)}; predicted ${num(rows[k].predicted)} [${num(rows[k].low)}, ${num(rows[k].high)}]`),
        hovertemplate: "%{text}<br>z %{x:.2f}<extra></extra>", marker: { color: style.stroke, size: 9, symbol: style.symbol },
      };
    });
    const reach = 1.1 * Math.max(2, ...rows.map((r) => Math.abs(r.z)));
    return {
      traces, name: `against-the-series-${rows[0].model}`, clicked: (point) => openModelRow(rows[point.customdata]),
      layout: layout({
        height: 110 + 20 * rows.length, xaxis: axis("z (misses in standard errors of the prediction)", { range: [-reach, reach], zeroline: true, zerolinecolor: color("--muted") }),
        yaxis: axis("", { tickvals: rows.map((_, k) => k), ticktext: names, range: [-0.7, rows.length - 0.3], tickfont: { size: 11 } }),
      }),
      note: "Each value beside a fit to all other models, itself left out; Student's t, so that with few models |z| of 3 is nothing unusual. The 24 largest.",
    };
  }
}

STARTS.model = async () => new ModelPage(await load("models"));
