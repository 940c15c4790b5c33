/* Neural spectroscopy: densities of states over checkpoints, band tracks, learning coefficients, stages. */

const LLC_VERDICTS = {
  ok: { color: "--conserved", symbol: "circle", mark: "●", kind: "conserved", says: "chains agree, equilibrated, and the error is below 2 %" },
  warn: { color: "--scales", symbol: "diamond", mark: "◆", kind: "scales", says: "usable with the reasons named" },
  reject: { color: "--not", symbol: "x", mark: "×", kind: "not conserved", says: "no learning coefficient: the reasons say why" },
  none: { color: "--muted", symbol: "x-thin", mark: "–", kind: "refused", says: "this quantity cannot be had of these chains, which are not rejected" },
};
const LLC_AXES = {
  lambda: "learning coefficient λ",
  lambda_hat_t: "λ̂(T): conditional, no learning coefficient",
};
const LLC_NOTES = {
  lambda: "Bars are standard errors over chains and draws.",
  lambda_hat_t: "No checkpoint has an accepted λ: these numbers belong to their step, localiser and length, and compare at equal settings alone (flag comparable_at). Bars are standard errors over chains and draws.",
};
const runText = (r) => `${r.model}${r.seed === null ? "" : `, seed ${r.seed}`}${r.variant === "trained" ? "" : `, ${words(r.variant)}`}`;
const blockText = (r) => [r.site || "model", r.layer === null ? "" : String(r.layer)].filter(Boolean).join(" ");
const operatorText = (invariant) => words((invariant || "").split(".").pop());

/* The same four choices stand over every figure; one whose answer is given by the others is hidden. */
class SpectroscopyPage {
  constructor(data) {
    this.data = data;
    this.everything = [...data.ridges, ...data.left_out, ...data.tracks, ...data.coefficients, ...data.absent];
    const over = stagesOf(data.stages);
    const body = $("spectroscopy-body");
    const figures = el("div", { class: "figures" });
    this.absences = el("div", { role: "status" });
    const controls = this.controls();
    this.matches = this.table();
    body.replaceChildren(controls, this.absences, figures, this.matches.frame, ...(data.stages.length ? [] : [missing(data.hasStages ? NOTHING_MOVED : NO_STAGES)]), ...over);
    this.figures = [
      new Figure(figures, "Density of states over checkpoints", () => this.buildRidge()),
      new Figure(figures, "Bands over training", () => this.buildTracks()),
      new Figure(figures, "Learning coefficient over training", () => this.buildCoefficients()),
    ];
    this.update();
  }

  controls() {
    const { everything, data } = this;
    const controls = el("div", { class: "controls" });
    const add = (title, values, text) => {
      const [select, holder] = chooser(title, distinct(values).map((v) => [v, text(v)]), () => this.update());
      controls.append(holder);
      return select;
    };
    const runs = new Map(everything.map((r) => [this.run(r), r]));
    this.runs = add("Model", [...runs.keys()], (v) => `${runText(runs.get(v))} (${parameters(runs.get(v).n_params)})`);
    this.probe = add("Probe", everything.map((r) => r.probe || ""), (v) => v || "–");
    this.block = add("Parameters", everything.map(blockText), (v) => words(v));
    const operators = everything.filter((r) => !data.coefficients.includes(r));
    this.operator = add("Operator", operators.map((r) => operatorText(r.invariant).split(" ")[0]), (v) => words(v));
    return controls;
  }

  table() {
    return new DataTable({
      name: "Learning coefficients and the dictionary", limit: 20, csv: ["quantity", "step", "value", "stderr", "verdict", "reasons", "dictionary"], open: null, columns: [
        { head: "Quantity", value: (r) => r.quantity, cell: (r) => breakable(r.quantity) },
        { head: "Step", value: (r) => r.step, cell: (r) => (r.step < 0 ? "–" : count(r.step)), number: true },
        { head: "Value", value: (r) => r.value, cell: (r) => (r.value === null ? "–" : `${num(r.value, 4)}${r.stderr === null ? "" : ` ± ${num(r.stderr, 2)}`}`), number: true },
        { head: "Verdict", value: (r) => r.verdict, cell: (r) => el("span", { title: LLC_VERDICTS[r.verdict].says }, badge(LLC_VERDICTS[r.verdict].kind, r.verdict)) },
        { head: "In the dictionary", value: (r) => r.dictionary, cell: (r) => r.dictionary || "–" },
        { head: "Reasons", value: (r) => r.reasons, cell: (r) => el("span", { class: "reason", title: r.reasons }, r.reasons || "") },
      ],
    });
  }

  run(row) {
    return [row.series, row.model, row.seed, row.variant].join("\n");
  }

  here(rows, operator = true) {
    return rows.filter((r) => this.run(r) === this.runs.value && (r.probe || "") === this.probe.value && blockText(r) === this.block.value
      && (!operator || operatorText(r.invariant).startsWith(this.operator.value)));
  }

  /* What the dictionary of singularities says of the coefficient itself. */
  matched(at, point) {
    if (at.quantity !== "lambda" || point.value === null) return "";
    const found = this.data.matches.find((m) => ["series", "model", "seed", "variant", "probe", "site", "layer"].every((name) => m[name] === at[name])
      && (m.step ?? -1) === point.step);
    if (!found) return "";
    const names = found.names.map((name, i) => `${name} (${num(found.predicted[i])}, probability ${num(found.probability[i], 2)})`);
    return `${names.length ? names.join("; ") : words(found.outcome)}${found.reason ? `: ${found.reason}` : ""}`;
  }

  /* Why there is nothing to draw: not asked for, refused or failed, or too much for the page. */
  missingHere() {
    const { data } = this;
    const ridge = this.here(data.ridges)[0];
    const track = this.here(data.tracks)[0];
    const coefficient = this.here(data.coefficients, false)[0];
    const operators = data.ridges.length + data.left_out.length + data.tracks.length + data.absent.length;
    const said = [];
    if (!operators) said.push("No densities of states and no bands were measured: they need a section “curvature” of the config.");
    else {
      if (this.here(data.left_out).length) said.push("This density of states is in the curves table: the page has room for a part of them.");
      else if (!ridge) said.push(`No density of states of these choices: ${this.reasons("curvature") || "not measured"}.`);
      if (!track) said.push(`No bands of these choices: ${this.reasons("bands") || "not measured (they need two checkpoints of a run)"}.`);
    }
    if (!data.coefficients.length) said.push("No learning coefficients were measured: they need a section “sampling” of the config.");
    else if (!coefficient) said.push("No learning coefficient of these choices: not measured.");
    else if (!this.shown()) said.push("No learning coefficient of these choices has a value: the table says why.");
    return said;
  }

  /* A record that could not be made has no place: it counts at all of its probe. */
  reasons(family) {
    const own = this.data.absent.filter((r) => r.family === family && this.run(r) === this.runs.value && (r.probe || "") === this.probe.value
      && (blockText(r) === this.block.value || (r.site === null && r.layer === null)) && operatorText(r.invariant).startsWith(this.operator.value));
    return own.flatMap((r) => r.reasons.map(({ text, steps }) => `${text}${stepsText(steps)}`)).join("; ");
  }

  update() {
    const own = this.here(this.data.coefficients, false);
    this.matches.show(own.flatMap((r) => r.points.map((p) => ({ ...p, quantity: r.quantity, dictionary: this.matched(r, p) }))));
    this.matches.frame.hidden = !own.length;
    this.absences.replaceChildren(...this.missingHere().map(missing));
    // those without a figure leave their place before the others take it
    for (const figure of this.figures) figure.frame.hidden = figure.build() === null;
    this.figures.forEach((figure) => figure.draw());
  }

  buildRidge() {
    const [ridge] = this.here(this.data.ridges);
    if (!ridge) return null;
    const height = Math.max(...ridge.y.map((y) => Math.max(...y)), 1);
    const lift = 0.45 * height;
    const last = ridge.steps.length - 1;
    const traces = ridge.steps.flatMap((step, i) => {
      const base = lift * i;
      const stroke = sizeColor(i, ridge.steps.length);
      const text = step < 0 ? "one checkpoint" : `step ${count(step)}`;
      return [
        { x: [ridge.t[0], ridge.t[ridge.t.length - 1]], y: [base, base], mode: "lines", type: "scatter", hoverinfo: "skip", line: { width: 0.5, color: color("--rule") } },
        {
          name: text, x: ridge.t, y: ridge.y[i].map((v) => v + base), mode: "lines", type: "scatter", fill: "tonexty", fillcolor: clear(stroke, 0.28),
          line: { color: stroke, width: 1.4 }, customdata: ridge.t.map((t) => eigenvalueAt(t, ridge.top)), text: ridge.y[i].map((v) => num(10 ** v * 1e-6)),
          hovertemplate: `${text}<br>λ ≈ %{customdata}<br>density %{text} a decade<extra></extra>`,
        },
      ];
    }).reverse();
    // a fill goes to the trace drawn before: the base line has to come first again
    const ordered = [];
    for (let i = 0; i < traces.length; i += 2) ordered.push(traces[i + 1], traces[i]);
    const shown = ridge.steps.map((step, i) => [step, i]).filter(([, i]) => i % Math.ceil((last + 1) / 12) === 0 || i === last);
    return {
      traces: ordered, name: `density-of-states-${ridge.model}`,
      layout: layout({
        height: 260 + 26 * ridge.steps.length, xaxis: eigenvalueAxis(ridge.top),
        yaxis: axis("checkpoint (step)", { tickvals: shown.map(([, i]) => lift * i), ticktext: shown.map(([step]) => (step < 0 ? "–" : count(step))), range: [-0.05 * height, lift * last + 1.1 * height] }),
      }),
      note: `${runText(ridge)}, ${operatorText(ridge.invariant)}, ${words(blockText(ridge))}. log₁₀ of the density over six decades, smoothed by ${0.06} decades for the eye alone; `
        + `both axes logarithmic, eigenvalues below 10⁻⁴ of the largest stand at zero.${ridge.num_steps > ridge.steps.length ? ` ${count(ridge.steps.length)} of ${count(ridge.num_steps)} checkpoints.` : ""}${this.data.left_out.length ? ` ${count(this.data.left_out.length)} further densities are in the curves table.` : ""}`
        + (this.reasons("curvature") ? ` Missing: ${this.reasons("curvature")}.` : ""),
    };
  }

  buildTracks() {
    const [track] = this.here(this.data.tracks);
    if (!track || !track.bands.length) return null;
    const positive = track.bands.every((b) => b.y.every((v) => v > 0));
    const traces = track.bands.map((band, i) => {
      const style = sizeStyle(i, track.bands.length);
      return {
        name: `band ${band.band}`, meta: { color: style.stroke, mark: style.mark }, type: "scatter", mode: "lines+markers", x: band.x.map((s) => s + 1), y: band.y,
        customdata: band.x, error_y: { type: "data", array: band.e.map((e) => e || 0), color: style.stroke, thickness: 1.3, width: 4 },
        text: band.y.map((y, k) => `λ = ${num(y, 4)}${band.e[k] === null ? ", error unknown" : ` ± ${num(band.e[k], 2)}`}`),
        hovertemplate: `band ${band.band}, step %{customdata}<br>%{text}<extra></extra>`, line: { color: style.stroke, width: 1.6, dash: style.dash },
        marker: { color: style.stroke, size: 6, symbol: style.symbol },
      };
    });
    const [told] = this.here(this.data.followed);
    return {
      traces, name: `bands-${track.model}`,
      layout: layout({ height: 380, xaxis: stepAxis(track.bands.flatMap((b) => b.x)), yaxis: axis("eigenvalue λ of the band", { type: positive ? "log" : "linear" }) }),
      note: `${runText(track)}, ${operatorText(track.invariant)}, ${words(blockText(track))}. Bars are standard errors over probe vectors. Bands are followed by the overlap of their Ritz vectors; where it is below one half a checkpoint in between is asked for`
        + `${told && told.requests ? `: ${told.requests}.` : " (nowhere here)."}${told && told.crossings ? ` Two bands met: ${told.crossings}.` : ""}`,
    };
  }

  /* The accepted coefficients, else the conditional numbers. */
  shown() {
    const own = this.here(this.data.coefficients, false);
    return Object.keys(LLC_AXES).map((q) => own.find((r) => r.quantity === q && r.points.some((p) => p.value !== null))).find(Boolean);
  }

  buildCoefficients() {
    const shown = this.shown();
    if (!shown) return null;
    const { quantity } = shown;
    const line = shown.points.filter((p) => p.value !== null);
    const place = (p) => Math.max(p.step, 0) + 1;
    const traces = [
      { x: line.map(place), y: line.map((p) => p.value), mode: "lines", type: "scatter", hoverinfo: "skip", line: { color: color("--muted"), width: 1 } },
      ...Object.entries(LLC_VERDICTS).flatMap(([verdict, style]) => {
        const some = line.filter((p) => p.verdict === verdict);
        if (!some.length) return [];
        const stroke = color(style.color);
        return [{
          name: verdict, meta: { color: stroke, mark: style.mark }, type: "scatter", mode: "markers", x: some.map(place), y: some.map((p) => p.value),
          error_y: { type: "data", array: some.map((p) => p.stderr || 0), color: stroke, thickness: 1.3, width: 4 },
          text: some.map((p) => `step ${count(Math.max(p.step, 0))}<br>${num(p.value, 4)}${p.stderr === null ? ", error unknown" : ` ± ${num(p.stderr, 2)}`}<br>${verdict}${p.reasons ? `: ${safe(p.reasons)}` : ""}`),
          hovertemplate: "%{text}<extra></extra>", marker: { color: stroke, size: 9, symbol: style.symbol },
        }];
      }),
    ];
    const rejected = shown.points.length - line.length;
    return {
      traces, name: `learning-coefficient-${shown.model}`,
      layout: layout({ height: 380, xaxis: stepAxis(line.map((p) => Math.max(p.step, 0))), yaxis: axis(LLC_AXES[quantity]) }),
      note: `${runText(shown)}, ${words(blockText(shown))}, ${quantity}. The colour is the verdict on the chains, never left out. ${LLC_NOTES[quantity]}${rejected ? ` ${rejected} checkpoint${rejected > 1 ? "s have" : " has"} no number; the table says why.` : ""}`,
    };
  }
}

const NOTHING_MOVED = "No stages: no quantity of a spectrum has a transition in any run (runs of fewer than six checkpoints are not searched).";

const NO_STAGES = "This run has no table of stages: what moved when was not put together.";

const stepsText = (steps) => {
  const known = steps.filter((step) => step >= 0);
  if (known.length > 6) return ` (${known.length} steps, ${count(known[0])} to ${count(known[known.length - 1])})`;
  return known.length ? ` (step ${known.map(count).join(", ")})` : "";
};

function eigenvalueAt(t, top) {
  if (Math.abs(t) < 1e-9) return "0";
  return num(Math.sign(t) * top * 10 ** (Math.abs(t) - 4), 2);
}

/* Zero in the middle, a decade a unit on either side. */
function eigenvalueAxis(top) {
  const ticks = [-4, -3, -2, -1, 0, 1, 2, 3, 4];
  return axis("eigenvalue λ", { tickvals: ticks, ticktext: ticks.map((t) => eigenvalueAt(t, top)), range: [-4.45, 4.45] });
}

function stagesOf(rows) {
  if (!rows.length) return [];
  const interval = (r) => `${num(r.step_low)} – ${num(r.step_high)}`;
  const table = new DataTable({
    name: "Stages: when, what moved in the spectrum, what moved in behaviour", limit: 20, csv: Object.keys(rows[0]), open: null, columns: [
      { head: "Model", value: (r) => r.model }, { head: "Seed", value: (r) => r.seed, cell: (r) => String(r.seed ?? "–"), number: true },
      { head: "When (steps)", value: (r) => r.step_low, cell: interval, number: true },
      { head: "In the spectrum", value: (r) => (r.spectrum || []).length, cell: (r) => movedList(r.spectrum, r.spectrum_change) },
      { head: "In behaviour", value: (r) => (r.behaviour || []).length, cell: (r) => movedList(r.behaviour, r.behaviour_change) },
      { head: "Together", value: (r) => r.n_coincident, cell: (r) => `${r.n_coincident} of ${r.n_events}; ${num(r.expected, 2)} by chance`, number: true },
      { head: "p", value: (r) => r.p, number: true }, { head: "p of the series", value: (r) => r.p_series, number: true }, REASON,
    ],
  });
  table.show(rows);
  const help = missing("Steps: last checkpoint before and first after. Changes are those between these checkpoints, of ln |value|, or of the value in its declared unit. "
    + "p: that as many events of behaviour meet a change of the spectrum if their times were random; a small one says that they move at the same time, not that one moves the other.");
  return [el("h3", {}, "When, what moved in the spectrum, what moved in behaviour"), help, table.frame];
}

/* Names hold their changes; the largest first, those beyond the fourth on request. */
function movedList(names, changes) {
  if (!names || !names.length) return "nothing";
  const order = names.map((_, i) => i).sort((i, j) => Math.abs(changes[j] ?? 0) - Math.abs(changes[i] ?? 0));
  const list = (some) => el("ul", { class: "moved" }, ...some.map((i) => el("li", {}, breakable(names[i]))));
  if (order.length <= 4) return list(order);
  return el("div", {}, list(order.slice(0, 4)), el("details", {}, el("summary", {}, `${order.length - 4} more`), list(order.slice(4))));
}

async function startSpectroscopy() {
  const [data, stages, matches] = await Promise.all([load("spectroscopy-data"), ...["stages", "matches"].map(tableOf)]);
  new SpectroscopyPage({ ...data, stages: records(stages).filter((r) => (r.spectrum || []).length), hasStages: stages !== null, matches: records(matches) });
}

STARTS.spectroscopy = startSpectroscopy;
