/* Capabilities over training, and whether quantities announce them: onsets over runs, in ln tokens. */

const OUTCOMES = {
  predicts: { kind: "conserved", says: "associated, and ahead by more than the spacing of checkpoints" },
  associated: { kind: "scales", says: "runs with an early onset of the one have an early onset of the other" },
  not_established: { kind: "undetermined", says: "tested, p above 0.05" },
  refused: { kind: "refused", says: "too few runs with both onsets for a test" },
};
const MOST_NAMES = 8;
const tokensText = (tokens) => (tokens < 1000 ? num(tokens) : parameters(Number(tokens.toPrecision(3))));
const lnTokens = (ln) => (ln === null ? "–" : tokensText(Math.exp(ln)));
const capabilityOf = (row) => `${row.task}\n${row.metric}`;
const capabilityText = (name) => name.split("\n").join(" · ");
const twoLines = (first, ...others) => el("span", {}, first, ...others.filter(Boolean).map((text) => el("span", { class: "needs" }, text)));

/* ---- curves: means over runs of a size; where a size has one run, its own standard error ---- */

/* One line a size (a model where its size is not known): [{ name, points }], the smallest first. */
function capabilityLines(rows) {
  const bySize = [...groups(rows, (r) => r.n_params ?? r.model)];
  const order = ([size]) => (typeof size === "number" ? size : Infinity);
  return bySize.sort((a, b) => order(a) - order(b) || compare(String(a[0]), String(b[0]))).map(([size, own]) => ({
    name: typeof size === "number" ? parameters(size) : safe(size),
    points: [...groups(own, (r) => r.tokens)].map(([tokens, found]) => capabilityPoint(tokens, found)).sort((a, b) => a.tokens - b.tokens),
  }));
}

function capabilityPoint(tokens, rows) {
  const runs = [...groups(rows, (r) => `${r.model}\n${r.seed}`).values()];
  const values = runs.map((own) => sum(own.map((r) => r.value)) / own.length);
  const mean = sum(values) / values.length;
  const between = runs.length > 1 ? Math.sqrt(sum(values.map((v) => (v - mean) ** 2)) / (values.length - 1)) : null;
  return { tokens, mean, runs: runs.length, spread: runs.length > 1 ? between : rows.length > 1 ? null : rows[0].stderr };
}

/* Before the first token: a place of its own, left of the first checkpoint with tokens. */
function tokenAxis(tokens) {
  const trained = all(tokens.filter((t) => t > 0));
  if (!trained.length) return null;
  const [least, most] = [trained[0], trained[trained.length - 1]];
  const zero = least / (trained.length > 1 ? Math.max(2, Math.min(10, trained[1] / least)) : 2);
  const start = trained.length < tokens.length ? zero : least;
  const powers = [];
  for (let t = 10 ** Math.ceil(Math.log10(least)); t <= most; t *= 10) powers.push(t);
  const ticks = powers.length > 1 ? powers : trained;
  const pad = 0.03 * Math.max(1, Math.log10(most / start));
  return {
    place: (t) => (t > 0 ? t : zero),
    axis: axis("training tokens", {
      type: "log", tickvals: start === zero ? [zero, ...ticks] : ticks, ticktext: [...(start === zero ? ["0"] : []), ...ticks.map(tokensText)],
      range: [Math.log10(start) - pad, Math.log10(most) + pad],
    }),
  };
}

function capabilityTraces({ name, points }, i, count_, place) {
  const style = sizeStyle(i, count_);
  const known = points.filter((p) => p.spread !== null);
  const band = known.length > 1
    ? [bandTrace(name, known.map((p) => place(p.tokens)), known.map((p) => p.mean - p.spread), known.map((p) => p.mean + p.spread), style.stroke)] : [];
  return [...band, {
    name, meta: { color: style.stroke, mark: style.mark }, type: "scatter", mode: "lines+markers",
    x: points.map((p) => place(p.tokens)), y: points.map((p) => p.mean),
    text: points.map((p) => `${name}, ${tokensText(p.tokens)} tokens<br>${num(p.mean)}${p.spread === null ? "" : ` ± ${num(p.spread, 2)}`} (${p.runs} run${p.runs === 1 ? "" : "s"})`),
    hovertemplate: "%{text}<extra></extra>",
    line: { color: style.stroke, width: 1.8 }, marker: { color: style.stroke, size: 7, symbol: style.symbol },
  }];
}

function chanceTrace(level, tokens, place) {
  const stroke = color("--muted");
  const ends = [Math.min(...tokens), Math.max(...tokens)].map(place);
  return {
    name: "by chance", meta: { color: stroke, mark: "┄" }, mode: "lines", type: "scatter", x: ends, y: [level, level],
    hovertemplate: "by chance %{y:.3g}<extra></extra>", line: { color: stroke, width: 1.3, dash: "dash" },
  };
}

function buildCapability(rows) {
  const own = rows.filter((r) => r.value !== null && r.tokens !== null);
  const tokens = all(own.map((r) => r.tokens));
  const scale = tokenAxis(tokens);
  if (!scale) return null;
  const lines = capabilityLines(own);
  const chances = distinct(own.map((r) => r.chance));
  const chance = chances.length === 1 && chances[0] !== null ? [chanceTrace(chances[0], tokens, scale.place)] : [];
  const lost = rows.length - own.length;
  return {
    name: `${rows[0].task}-${rows[0].metric}-over-tokens`,
    traces: [...lines.flatMap((line, i) => capabilityTraces(line, i, lines.length, scale.place)), ...chance],
    layout: layout({ height: 400, xaxis: scale.axis, yaxis: axis(`${safe(rows[0].metric)}, ${safe(rows[0].task)}`) }),
    note: "Means over the runs of a size; bands one standard deviation between runs, where a size has one run the standard error of its evaluation."
      + (tokens[0] === 0 ? " Before the first token: at the left edge." : "") + (lost ? ` ${count(lost)} of ${count(rows.length)} values have no number of tokens and are not drawn.` : ""),
  };
}

/* ---- emergence: what was established of each quantity and capability ---- */

function outcomeBadge(row) {
  const { kind, says } = OUTCOMES[row.outcome];
  return el("span", { title: says }, badge(kind, words(row.outcome)));
}

const leadText = (r) => (r.lead === null ? "–" : num(r.lead));
const missed = (r) => (r.predicted === null || r.observed === null ? null : Math.abs(r.predicted - r.observed));

const EMERGENCE_COLUMNS = [
  { head: "Outcome", value: (r) => Object.keys(OUTCOMES).indexOf(r.outcome), cell: outcomeBadge },
  { head: "Quantity", value: (r) => r.quantity, cell: (r) => twoLines(breakable(r.quantity), breakable(r.invariant), placeText(r)) },
  { head: "Capability", value: capabilityOf, cell: (r) => twoLines(breakable(r.metric), breakable(r.task)) },
  { head: "Lead, ln tokens", value: (r) => r.lead, number: true, cell: (r) => twoLines(leadText(r), r.lead === null ? "" : `[${num(r.lead_low)}, ${num(r.lead_high)}]`) },
  { head: "Spacing", value: (r) => r.spacing, number: true },
  { head: "Correlation", value: (r) => r.correlation, number: true },
  { head: "p", value: (r) => r.p, number: true, cell: (r) => twoLines(num(r.p), r.least_p === null ? "" : `least ${num(r.least_p, 2)}`) },
  Q_COLUMN,
  { head: "p given loss", value: (r) => r.p_given_loss, number: true },
  { head: "Onset predicted", value: (r) => r.predicted, number: true,
    cell: (r) => twoLines(lnTokens(r.predicted), r.predicted === null ? "" : `[${lnTokens(r.predicted_low)}, ${lnTokens(r.predicted_high)}]`) },
  { head: "observed", value: (r) => r.observed, number: true, cell: (r) => lnTokens(r.observed) },
  { head: "Missed by", value: missed, number: true, cell: (r) => twoLines(num(missed(r)), r.naive_error === null ? "" : `naive ${num(r.naive_error)}`) },
  { head: "Runs", value: (r) => r.n_runs, number: true, cell: (r) => twoLines(count(r.n_runs), `${r.n_sizes} size${r.n_sizes === 1 ? "" : "s"}`) },
  REASON,
];
const isTested = (row) => row.outcome !== "refused";

/* Reasons that differ in their numbers only are one, told as its first wording. */
function commonestReason(rows) {
  const alike = groups(rows, (r) => (r.reason || "").replaceAll(/[\d.]+(e-?\d+)?/g, "#"));
  const [most] = [...alike.values()].sort((a, b) => b.length - a.length);
  return `most often (${count(most.length)}): “${most[0].reason || "no reason given"}”`;
}

function emergenceText(rows) {
  const of = (name) => rows.filter((r) => r.outcome === name).length;
  const tested = rows.filter(isTested);
  const refused = rows.filter((r) => !isTested(r));
  const parts = [`Of ${count(rows.length)} pairs of a quantity and a capability, ${count(tested.length)} could be tested: `
    + `predicts ${count(of("predicts"))}, only associated ${count(of("associated"))}, not established (p above 0.05) ${count(of("not_established"))}.`];
  parts.push(...chanceText(tested, "pairs", "would be associated"));
  if (refused.length) parts.push(`${count(refused.length)} had to be left undetermined, ${commonestReason(refused)}.`);
  return parts.join(" ");
}

const EMERGENCE_HELP = "Onset: where a run's curve over ln tokens changes. Runs are compared within their size: correlation and permutation p, one-sided (early goes with early); "
  + "q: Benjamini-Yekutieli over all pairs tested, which holds however they depend on each other; given loss: with the held-out loss at the onset partialled out. Lead: ln tokens by which the quantity changes first, 95 % interval; it counts above the spacing of checkpoints only. "
  + "Onset predicted: mean of the largest size in tokens, from the smaller ones, 90 % interval; missed by: in ln tokens, beside the better of two guesses without the quantity.";

class EmergencePage {
  constructor(rows, place) {
    this.rows = rows;
    const bins = ["all", "early", "middle", "late"].filter((b) => rows.some((r) => (r.depth_bin || "all") === b));
    const names = Object.keys(OUTCOMES).filter((name) => rows.some((r) => r.outcome === name));
    const update = () => this.update();
    const [outcome, first] = chooser("Outcome", [["tested", "tested"], ...names.map((n) => [n, words(n)]), ["", "all"]], update);
    const [bin, second] = chooser("Depth", bins.map((b) => [b, binText(b)]), update);
    const [capability, third] = chooser("Capability of the rows", [["", "all"], ...distinct(rows.map(capabilityOf)).sort().map((c) => [c, capabilityText(c)])], update);
    Object.assign(this, { outcome, bin, capability });
    this.sentence = el("p");
    this.table = new DataTable({ name: "Emergence", columns: EMERGENCE_COLUMNS, csv: Object.keys(rows[0]), limit: 20, open: goTo });
    this.table.frame.classList.add("emergence");
    place.append(this.sentence, el("div", { class: "controls" }, first, second, third), this.table.frame, el("p", { class: "note" }, EMERGENCE_HELP));
    this.update();
  }

  update() {
    const rows = this.rows.filter((r) => (r.depth_bin || "all") === this.bin.value && (!this.capability.value || capabilityOf(r) === this.capability.value));
    this.sentence.textContent = emergenceText(rows);
    const kept = rows.filter((r) => !this.outcome.value || (this.outcome.value === "tested" ? isTested(r) : r.outcome === this.outcome.value));
    const rank = (r) => Object.keys(OUTCOMES).indexOf(r.outcome);
    this.table.show(kept.sort((a, b) => rank(a) - rank(b) || (a.p ?? 2) - (b.p ?? 2)));
  }
}

function emergenceAbsent(table) {
  return table ? "The table of emergence of this run is empty: no run has a quantity and a capability over enough checkpoints to be followed."
    : "This run has no table of emergence: whether a quantity announces a capability was not tested.";
}

/* Published evaluations that are of no model of the run, by reason. */
function unjoinedOf(rows) {
  if (!rows.length) return [];
  const listed = (own, name) => {
    const found = distinct(own.map((r) => r[name]).filter((value) => value !== null));
    return found.slice(0, MOST_NAMES).join(", ") + (found.length > MOST_NAMES ? ` and ${count(found.length - MOST_NAMES)} more` : "");
  };
  const reasons = [...groups(rows, (r) => r.reason).entries()].map(([reason, own]) => (
    { reason, models: listed(own, "model"), tasks: listed(own, "task"), files: listed(own, "file"), values: own.length }));
  const texts = ["reason", "models", "tasks", "files"].map((name) => ({ head: words(name), value: (r) => r[name], cell: (r) => r[name] || "–" }));
  const table = new DataTable({
    name: "Evaluations that are not joined", limit: 20, csv: Object.keys(reasons[0]), open: null,
    columns: [...texts, { head: "values", value: (r) => r.values, cell: (r) => count(r.values), number: true }],
  });
  table.show(reasons.sort((a, b) => b.values - a.values));
  const said = el("p", {}, el("strong", {}, count(rows.length)), " published values are joined with no checkpoint of this run and count for nothing below.");
  return [said, table.frame];
}

async function startCapabilities() {
  const [capabilities, emergence, unjoined] = await Promise.all(["capabilities", "emergence", "unjoined"].map(tableOf));
  const [rows, pairs] = [records(capabilities), records(emergence)];
  const place = $("capabilities-body");
  place.replaceChildren(...unjoinedOf(records(unjoined)));
  if (rows.length) {
    const names = distinct(rows.map(capabilityOf)).sort();
    const controls = el("div", { class: "controls" });
    const figures = el("div", { class: "figures" });
    const save = el("button", { type: "button", class: "quiet", on: { click: () => download("capabilities", Object.keys(rows[0]), rows) } }, "Download CSV");
    const [chosen, holder] = chooser("Capability", names.map((name) => [name, capabilityText(name)]), () => figure.draw());
    controls.append(holder, save);
    place.append(controls, figures);
    const figure = new Figure(figures, "Capability over training tokens", () => buildCapability(rows.filter((r) => capabilityOf(r) === chosen.value)));
  } else place.append(missing(capabilities ? "The table of capabilities of this run is empty." : "This run has no table of capabilities."));
  if (pairs.length) new EmergencePage(pairs, place);
  else place.append(missing(emergenceAbsent(emergence)));
}

STARTS.capabilities = startCapabilities;
