/* What compares models: pairs, universality classes, collapses, transitions. A run may lack each. */

const missing = (text) => el("p", { class: "note" }, text);
const stepCell = (r) => (r.step === null || r.step === undefined ? "–" : count(Math.round(r.step)));
const WHERE = [
  { head: "Family", value: (r) => r.family },
  { head: "Invariant", value: (r) => local(r.invariant, r.family) },
];
const PLACES = [
  { head: "Site", value: (r) => r.site || "" },
  { head: "Depth", value: (r) => r.depth_bin, cell: (r) => binText(r.depth_bin) },
  { head: "Probe", value: (r) => r.probe || "" },
];
const REASON = { head: "Reason", value: (r) => r.reason || "", cell: (r) => el("span", { class: "reason", title: r.reason }, r.reason || "") };

const Q_COLUMN = { head: "q", value: (r) => r.q ?? null, number: true };

/* How many of what was asked would be called by chance, and how many stand after all of them are counted. */
function chanceText(rows, what, would) {
  const asked = rows.filter((r) => r.q !== null && r.q !== undefined);
  if (!asked.length) return [];
  const families = distinct(asked.map((r) => `${r.n_asked}\n${r.by_chance}`)).map((text) => text.split("\n").map(Number));
  const all_ = families.map(([tests, chance]) => `of ${count(tests)} ${what} asked at most ${num(chance, 2)}`).join(", ");
  const stand = asked.filter((r) => r.q <= 0.05).length;
  return [`By chance, ${all_} ${would} on average; ${count(stand)} of the ${count(asked.length)} here have q at most 0.05.`];
}

/* ---- pairs: overlap of two models against the ratio of their sizes ---- */

class PairPage {
  constructor(rows) {
    this.rows = rows;
    const controls = el("div", { class: "controls" });
    const add = (title, values, text) => {
      const [select, holder] = chooser(title, distinct(values).map((v) => [v, text(v)]), () => this.update());
      controls.append(holder);
      return select;
    };
    this.quantity = add("Quantity", rows.map((r) => this.name(r)), (v) => v.split("\n").map((part, i) => (i ? part : local(part, part.split(".")[0]))).join(" · "));
    this.probe = add("Probe", rows.map((r) => r.probe || ""), (v) => v || "–");
    this.site = add("Site", rows.map((r) => r.site || ""), (v) => v || "–");
    this.bin = add("Depth", ["all", "early", "middle", "late"].filter((b) => rows.some((r) => (r.depth_bin || "all") === b)), binText);
    this.step = add("Step", rows.map((r) => String(r.step ?? "")).sort((a, b) => b - a), (v) => (v ? count(Number(v)) : "–"));
    const figures = el("div", { class: "figures" });
    this.table = new DataTable({
      name: "Pairs of models", limit: 20, csv: Object.keys(rows[0]), open: null, columns: [
        { head: "Model", value: (r) => r.model_a }, { head: "beside", value: (r) => r.model_b },
        { head: "Sizes", value: (r) => r.n_params_b / r.n_params_a, cell: (r) => `${parameters(r.n_params_a)} : ${parameters(r.n_params_b)}`, number: true },
        { head: "Variant", value: (r) => words(r.variant) },
        { head: "Value", value: (r) => r.value, cell: (r) => (r.value === null ? "–" : `${num(r.value)}${r.stderr === null ? "" : ` ± ${num(r.stderr, 2)}`}`), number: true },
        { head: "Floor", value: (r) => r.floor, number: true }, { head: "Ceiling", value: (r) => r.ceiling, number: true },
        { head: "Relative", value: (r) => r.relative, number: true }, { head: "Pairs", value: (r) => r.n_pairs, cell: (r) => String(r.n_pairs ?? "–"), number: true }, REASON,
      ],
    });
    $("pairs-body").replaceChildren(controls, figures, this.table.frame);
    this.figure = new Figure(figures, "Agreement against the ratio of sizes", () => this.build());
    this.update();
  }

  name(row) {
    return `${row.invariant}\n${row.quantity}`;
  }

  chosen() {
    return this.rows.filter((r) => this.name(r) === this.quantity.value && (r.probe || "") === this.probe.value && (r.site || "") === this.site.value
      && (r.depth_bin || "all") === this.bin.value && String(r.step ?? "") === this.step.value);
  }

  update() {
    this.table.show(this.chosen());
    this.figure.draw();
  }

  build() {
    const rows = this.chosen().filter((r) => r.value !== null && r.n_params_a && r.n_params_b);
    if (!rows.length) return null;
    const ratio = (r) => Math.max(r.n_params_b / r.n_params_a, r.n_params_a / r.n_params_b);
    const text = (r) => `${safe(r.model_a)} beside ${safe(r.model_b)}<br>${num(r.value)}${r.stderr === null ? "" : ` ± ${num(r.stderr, 2)}`}`
      + `<br>floor ${num(r.floor)}, ceiling ${num(r.ceiling)}`;
    const points = [...groups(rows, (r) => r.variant)].map(([variant, own]) => {
      const style = VARIANTS[variant] || { label: words(variant), color: "--muted", symbol: "x", mark: "×" };
      const stroke = color(style.color);
      return {
        name: style.label, meta: { color: stroke, mark: style.mark }, type: "scatter", mode: "markers", x: own.map(ratio), y: own.map((r) => r.value),
        error_y: { type: "data", array: own.map((r) => r.stderr || 0), color: stroke, thickness: 1.3, width: 4 },
        text: own.map(text), hovertemplate: "%{text}<extra></extra>", marker: { color: stroke, size: 9, symbol: style.symbol },
      };
    });
    const trained = rows.filter((r) => r.variant === "trained");
    const limits = [["ceiling", "ceiling: same size, other seed", "line-ew", "▬"], ["floor", "floor: rows permuted", "line-ew", "┄"]].flatMap(([key, name, symbol, mark]) => {
      const own = trained.filter((r) => r[key] !== null);
      if (!own.length) return [];
      const stroke = color(key === "ceiling" ? "--learned" : "--muted");
      const reach = (r, end) => (r[`${key}_${end}`] === null || r[`${key}_${end}`] === undefined ? 0 : Math.abs(r[`${key}_${end}`] - r[key]));
      return [{
        name, meta: { color: stroke, mark }, type: "scatter", mode: "markers", x: own.map(ratio), y: own.map((r) => r[key]),
        error_y: { type: "data", symmetric: false, array: own.map((r) => reach(r, "high")), arrayminus: own.map((r) => reach(r, "low")), color: stroke, thickness: 1, width: 6 },
        hovertemplate: `${key} %{y:.3g}<extra></extra>`, marker: { color: stroke, size: 16, symbol, line: { color: stroke, width: 2 } },
      }];
    });
    const place = placeText(rows[0]);
    return {
      traces: [...points, ...limits], name: `${rows[0].quantity}-pairs`,
      layout: layout({ height: 400, xaxis: ratioAxis(rows.map(ratio)), yaxis: axis(safe(rows[0].quantity)) }),
      note: `${place ? `${place}. ` : ""}The ceiling is what two seeds of one size reach, the floor what rows matched at random reach; an overlap says something only between them.`,
    };
  }
}

/* Ticks at 1, 2, 5, 10, ... */
function ratioAxis(ratios) {
  const top = Math.max(...ratios);
  const ticks = [];
  for (let power = 1; power <= 10 * top; power *= 10) ticks.push(power, 2 * power, 5 * power);
  return axis("larger / smaller, parameters", {
    type: "log", tickvals: ticks, ticktext: ticks.map(String), range: [-0.04, Math.log10(top) + 0.06],
  });
}

/* ---- universality classes ---- */

function classCard(rows) {
  const [first] = rows;
  const title = [first.comparison === "sizes" ? "sizes of the trained series" : words(first.comparison), first.n_params ? parameters(first.n_params) : "", placeText(first)];
  const kind = { same_class: "conserved", different: "not conserved" }[first.outcome] || "undetermined";
  const numbers = (r) => [["distance", r.distance], ["width", r.width], ["apart", r.apart], ["p", r.p], ["S", r.quality]]
    .filter(([, value]) => value !== null && value !== undefined).map(([name, value]) => `${name} ${num(value)}`).join(", ");
  return el("article", { class: "card" },
    el("div", { class: "card-head" }, badge(kind, words(first.outcome)), el("span", {}, title.filter(Boolean).join(", "))),
    el("ol", { class: "classes" }, ...rows.sort((a, b) => a.class - b.class).map((r) => el("li", {},
      ...(r.members || []).map((m) => named(m, "span", { class: "member" })), el("span", { class: "faint" }, numbers(r))))),
    first.reason ? el("p", { class: "faint" }, first.reason) : null);
}

function startClasses(rows) {
  const comparisons = distinct(rows.map((r) => r.comparison));
  const order = ["sizes", ...comparisons.filter((c) => c !== "sizes")].filter((c) => comparisons.includes(c));
  const bins = ["all", "early", "middle", "late"].filter((b) => rows.some((r) => (r.depth_bin || "all") === b));
  const cards = el("div", { class: "cards class-cards" });
  const update = () => {
    const own = rows.filter((r) => r.comparison === comparison.value && (r.depth_bin || "all") === bin.value);
    const question = (r) => [r.series, r.probe, r.invariant, r.site, r.step, r.n_params].join("\n");
    cards.replaceChildren(...[...groups(own, question).values()].map(classCard));
  };
  const [comparison, first] = chooser("Compared", order.map((c) => [c, words(c)]), update);
  const [bin, second] = chooser("Depth", bins.map((b) => [b, binText(b)]), update);
  const save = el("button", { type: "button", class: "quiet", on: { click: () => download("universality-classes", Object.keys(rows[0]), rows) } }, "Download CSV");
  $("classes-body").replaceChildren(el("div", { class: "controls" }, first, second, save), cards);
  update();
}

/* ---- collapses and transitions ---- */

function exponents(row) {
  return row.S_rescaled === null ? "–" : `${num(row.S_rescaled)} at a ${num(row.exponent_x)}, b ${num(row.exponent_y)}`;
}

function startCollapses(rows) {
  const table = new DataTable({
    name: "Collapse of curves", csv: Object.keys(rows[0]), limit: 30, sort: 7, open: null, columns: [
      ...WHERE, { head: "Curve", value: (r) => r.curve }, ...PLACES, { head: "Variant", value: (r) => words(r.variant) },
      { head: "S", value: (r) => r.S, number: true }, { head: "S rescaled", value: (r) => r.S_rescaled, cell: exponents, number: true },
      { head: "Supercollapse", value: (r) => r.supercollapse, number: true },
      { head: "Sizes", value: (r) => r.n_models, cell: (r) => String(r.n_models ?? "–"), number: true }, { head: "Seeds", value: (r) => r.n_seeds, cell: (r) => String(r.n_seeds ?? "–"), number: true }, REASON,
    ],
  });
  const help = el("p", { class: "note" }, "S: mean squared distance of the curves of all sizes in units of their errors, as measured and at the best exponents of x N^−a, y N^−b; "
    + "about 1 where sizes agree. Supercollapse: spread between sizes over the noise of seeds.");
  $("collapses-body").replaceChildren(help, table.frame);
  table.show(rows);
}

function startTransitions(rows) {
  const interval = (r) => (r.step_low === null ? "–" : `[${num(r.step_low)}, ${num(r.step_high)}]`);
  const table = new DataTable({
    name: "Transitions over training", csv: Object.keys(rows[0]), limit: 30, open: (row) => goTo(row), columns: [
      ...WHERE, { head: "Quantity", value: (r) => r.quantity, cell: (r) => breakable(r.quantity) }, { head: "Model", value: (r) => r.model },
      { head: "Seed", value: (r) => r.seed, cell: (r) => String(r.seed ?? "–"), number: true }, ...PLACES,
      { head: "Kind", value: (r) => r.kind }, { head: "Step", value: (r) => r.step, cell: stepCell, number: true }, { head: "95 % interval", value: (r) => r.step_low, cell: interval, number: true },
      { head: "Seeds that agree", value: (r) => (r.n_agree === null ? null : r.n_agree / r.n_seeds), cell: agreement, number: true },
      { head: "p", value: (r) => r.p, number: true }, Q_COLUMN,
      { head: "Slope before", value: (r) => r.slope_before, number: true }, { head: "after", value: (r) => r.slope_after, number: true }, REASON,
    ],
  });
  const found = rows.filter((r) => r.step !== null);
  const runs = distinct(rows.map((r) => [r.model, r.seed, r.invariant, r.quantity, r.site, r.depth_bin, r.probe].join("\n"))).length;
  const sentence = `${count(found.length)} transitions in ${count(runs)} runs of a quantity. Enter on a row leads to its figure over training.`;
  const chance = chanceText(found, "curves", "would have a transition").join(" ");
  const help = el("p", { class: "note" }, "p: of the transition where it was looked for; q: of the claim that its curve has any, Benjamini-Hochberg over all curves searched. Seeds that agree: of the same size, with the same kind in an interval that meets this one.");
  $("transitions-body").replaceChildren(el("p", {}, `${sentence} ${chance} ${agreementText(found)}`), table.frame, help);
  const shared = (r) => (r.n_agree ?? 0) / (r.n_seeds || 1);
  table.show(found.length ? found.slice().sort((r, s) => (r.q ?? 2) - (s.q ?? 2) || shared(s) - shared(r) || (s.depth_bin === "all") - (r.depth_bin === "all")) : rows);
  tableOf("orders").then((orders) => $("transitions-body").append(...ordersOf(records(orders))));
}

const agreement = (r) => (r.n_agree === null ? "–" : `${r.n_agree} of ${r.n_seeds}`);

/* How many are in every seed of their size: a single run has transitions of its own. */
function agreementText(found) {
  const several = found.filter((r) => r.n_seeds > 1);
  if (!several.length) return "With one seed a size nothing is said of what seeds have in common.";
  const shared = several.filter((r) => r.n_agree === r.n_seeds && r.q !== null && r.q <= 0.05);
  return `${count(shared.length)} of these are in every seed of their size as well.`;
}

function ordersOf(rows) {
  if (!rows.length) return [];
  const slope = (r) => (r.slope === null ? "–" : `${num(r.slope)}${r.slope_low === null ? "" : ` [${num(r.slope_low)}, ${num(r.slope_high)}]`}`);
  const table = new DataTable({
    name: "Order of transitions", limit: 20, csv: Object.keys(rows[0]), open: (row) => goTo(row), columns: [
      ...WHERE, { head: "Quantity", value: (r) => r.quantity, cell: (r) => breakable(r.quantity) }, ...PLACES,
      { head: "Outcome", value: (r) => words(r.outcome) }, { head: "Runs: sigmoid, power law", value: (r) => r.n_sigmoid, cell: (r) => `${r.n_sigmoid}, ${r.n_power_law} of ${r.n_runs}`, number: true },
      { head: "Width, ln(1 + step)", value: (r) => r.width, number: true }, { head: "d ln width / d ln N", value: (r) => r.slope, cell: slope, number: true },
      { head: "p", value: (r) => r.p, number: true }, Q_COLUMN, REASON,
    ],
  });
  table.show(rows);
  const chance = chanceText(rows, "places", "would have a slope").join(" ");
  const help = missing("A sigmoid or a power law of the step is fitted to every run. The width of a sigmoid is in ln (1 + step), a median over runs; its slope over ln N, with a 95 % interval, is below zero where a transition sharpens with size. q: Benjamini-Yekutieli over all places asked.");
  return [el("h3", {}, "Order: does a transition sharpen with size?"), el("p", {}, chance), help, table.frame];
}

const ACROSS = {
  pairs: [(rows) => new PairPage(rows), "This run has no table of pairs: no invariant of two models was measured or judged."],
  classes: [startClasses, "This run has no table of universality classes."],
  collapses: [startCollapses, "This run has no table of collapses: whether the curves of different sizes fall onto one was not tested."],
  transitions: [startTransitions, "This run has no table of transitions: its runs were not searched for breaks or jumps."],
};

async function startAcross(name) {
  const table = await tableOf(name);
  const [start, absent] = ACROSS[name];
  const rows = records(table);
  if (rows.length) start(rows);
  else $(`${name}-body`).replaceChildren(missing(table ? `The table of ${name} of this run is empty.` : absent));
}

for (const name of Object.keys(ACROSS)) STARTS[name] = () => startAcross(name);
