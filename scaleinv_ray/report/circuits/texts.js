/* Analyses that are read as text: tokens, maxima with their contexts, rules. */

const drawnToken = (text) => (text === "" ? "·" : text.replaceAll("\n", "↵"));

/* Tokens on a ground as strong as their values. */
function tokenLine(tokens, values, most, { here = null, errors = [] } = {}) {
  return el("p", { class: "tokens" }, ...tokens.map((token, i) => {
    const value = values[i];
    const share = value === null || value === undefined ? 0 : Math.min(1, Math.abs(value) / (most || 1));
    const ground = share > 0.02 ? `background: color-mix(in srgb, ${value < 0 ? "var(--random)" : "var(--trained)"} ${Math.round(60 * share)}%, transparent)` : null;
    return el("span", { style: ground, class: i === here ? "here" : null, title: value === undefined ? null : plusMinus(value, errors[i]) }, drawnToken(token));
  }));
}

/* Ids and places, which have no spaces of their own. */
const apart = (tokens) => tokens.map((t) => (/^-?\d+$/.test(t) ? `${t} ` : t));

const asList = (x) => (Array.isArray(x) ? x : x === null || x === undefined ? [] : [x]);

function tokenAttribution(model, found) {
  const score = asList(found.score), examples = found.examples || [];
  const most = Math.max(...[score, ...examples.map((e) => e.score)].flat().map(Math.abs), 1e-12);
  return el("figure", { class: "wide" }, el("h3", {}, titled(model, "token attribution")),
    tokenLine(apart(found.tokens), score, most, { errors: asList(found.stderr) }),
    examples.length ? el("details", {}, el("summary", {}, "Single sequences"), ...examples.map((e) => tokenLine(apart(e.tokens), e.score, most))) : null,
    el("figcaption", {}, `Integrated gradients from ${words(String(found.baseline))} to the clean sequence. Blue raises the metric, orange lowers it; strongest ${num(most)}. Completeness error ${num(found.error, 2)}.`));
}

function maxima(model, found) {
  const units = found.units.map((unit) => {
    const synthetic = unit.synthetic;
    return el("details", {}, el("summary", {}, `${unit.name}: max ${num(unit.max)}, 99th percentile ${num(unit.p99)}`),
      ...unit.contexts.map((c) => tokenLine(apart(c.tokens), c.tokens.map((_, i) => (i === c.at ? c.value : undefined)), unit.max, { here: c.at })),
      synthetic ? el("div", {}, el("p", { class: "sub" }, `Made by gradient ascent: ${num(synthetic.value)}${synthetic.ratio === undefined || synthetic.ratio === null ? "" : `, ${num(synthetic.ratio)} of the 99th percentile`}`),
        tokenLine(apart(synthetic.tokens), [], 1)) : null);
  });
  if (units.length) units[0].open = true;
  return el("figure", { class: "wide" }, el("h3", {}, titled(model, "what excites a unit most")), ...units,
    el("figcaption", {}, "The texts of the probe with the largest activations; the marked token is where."));
}

function surrogate(model, found) {
  const xs = found.fidelity.map((f) => f.leaves), ys = found.fidelity.map((f) => f.fidelity), errors = found.fidelity.map((f) => f.stderr);
  const draw = (width) => {
    const f = frame(width, 260, { x: [Math.min(...xs), Math.max(...xs)], y: range([...ys, found.majority, 1], false), logX: true, xTicks: xs, xName: "leaves", yName: "fidelity" });
    return drawing(width, 260, "fidelity of the surrogate", ...f.parts,
      s("line", { class: "plain", x1: f.px(xs[0]), x2: f.px(xs[xs.length - 1]), y1: f.py(found.majority), y2: f.py(found.majority) }),
      path(f, xs, ys, { stroke: "var(--trained)" }), dots(f, xs, ys, "var(--trained)", (i) => `${xs[i]} leaves: ${plusMinus(ys[i], errors[i])}`, errors));
  };
  const rules = Array.isArray(found.rules) ? found.rules.join("\n") : found.rules;
  return [figure(titled(model, "a tree in its place"), draw, `Share of the model's ${found.decisions} decisions that a decision tree of so many leaves makes too, on held-out sequences. Dashed: always the most frequent decision.`, { keys: [["tree", "var(--trained)"], ["majority", "var(--muted)", "dashed"]] }),
    el("figure", {}, el("h3", {}, titled(model, "its rules")), el("div", { class: "rules", tabindex: 0 }, rules), el("figcaption", {}, "They say what the model decides, not how."))];
}
