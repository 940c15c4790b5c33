/* Effects of components: layer by head, sorted, by position, and the numbers they have. */

/* [id, title, what it says, figures]; a section without figures is not there. */
const SECTIONS = [];
const titled = (model, text) => (CIRCUITS.length > 1 ? `${nameOf(model)}: ${text}` : text);

const MAP_HEIGHT = 26;

/* Rows are layers, the last column is the MLP; common to all models: the scale of colours. */
function heatMap(model, most, relative) {
  const layers = model.n_layers;
  const of = new Map(model.components.map((c) => [`${c.kind}${c.layer}.${c.head}`, c]));
  const heads = Math.max(0, ...model.components.filter((c) => c.kind === "head").map((c) => c.head + 1));
  const mlps = model.components.some((c) => c.kind === "mlp");
  return (width) => {
    const left = 44, top = 22, columns = heads + (mlps ? 1 : 0), gap = mlps && heads ? 6 : 0;
    const w = Math.min(64, (width - left - gap - 4) / Math.max(columns, 1));
    const h = relative ? 180 / layers : MAP_HEIGHT;
    const parts = [];
    const cell = (c, x, y, name) => {
      parts.push(s("rect", { class: "cell empty", x, y, width: w, height: h }));
      if (!c) return;
      const weak = c.stderr === null || Math.abs(c.effect) < 2 * c.stderr;
      const text = `${name}: ${plusMinus(c.effect, c.stderr)}${weak ? ", within its noise" : ""}${c.exact ? "" : ", estimated"}`;
      parts.push(hover(s("rect", { class: "cell", x, y, width: w, height: h, fill: signColour(c.effect), "fill-opacity": Math.abs(c.effect) / most }), text));
      if (weak) parts.push(s("circle", { class: "weak", cx: x + w / 2, cy: y + h / 2, r: Math.min(1.8, h / 4), "pointer-events": "none" }));
    };
    for (let layer = 0; layer < layers; layer += 1) {
      const y = top + layer * h;
      for (let head = 0; head < heads; head += 1) cell(of.get(`head${layer}.${head}`), left + head * w, y, `h${layer}.${head}`);
      if (mlps) cell(of.get(`mlp${layer}.0`), left + heads * w + gap, y, `m${layer}`);
      if (h >= 12 && !relative) parts.push(label(left - 8, y + h / 2 + 4, layer, "end"));
    }
    if (relative) for (const t of [0, 0.5, 1]) parts.push(label(left - 8, top + t * 180 + 4, t, "end"));
    const every = Math.ceil(22 / w);
    for (let head = 0; head < heads; head += every) parts.push(label(left + (head + 0.5) * w, top - 6, head));
    if (mlps) parts.push(label(left + (heads + 0.5) * w + gap, top - 6, "MLP"));
    parts.push(label(2, 10, relative ? "depth" : "layer", "start"));
    return drawing(width, top + layers * h + 4, `effects of ${nameOf(model)}, layer by head`, ...parts);
  };
}

const MAP_SAYS = "A cell is a head; its colour is the effect of replacing it, a dot an effect below two standard errors.";
const MAP_KEYS = [["raises the metric", "var(--random)"], ["lowers it", "var(--trained)"]];

SECTIONS.push(["effects", "Effects", "What replacing each head and MLP alone does to the metric; blue is what the answer needs.", () => {
  const most = Math.max(...CIRCUITS.flatMap((m) => m.components.map((c) => Math.abs(c.effect))), 1e-12);
  const maps = CIRCUITS.map((m) => figure(titled(m, "layer by head"), heatMap(m, most, false), `${MAP_SAYS} Strongest colour: ${num(most)}.`, { keys: MAP_KEYS }));
  const tops = CIRCUITS.map((m) => figure(titled(m, "largest effects"), (w) => bars(w, largest(m), `largest effects of ${nameOf(m)}`), "± is one standard error over sequences."));
  const beside = CIRCUITS.filter((m) => m.untrained).map((m) => {
    const bare = { ...m, components: m.untrained };
    const own = Math.max(...bare.components.map((c) => Math.abs(c.effect)), 1e-12);
    return figure(titled(m, "the same untrained"), heatMap(bare, own, false), `${MAP_SAYS} Strongest colour here: ${num(own)}, of ${num(most)} beside.`);
  });
  return [...maps, ...tops, ...beside, sortedCurves()];
}]);

const largest = (model) => [...model.components].sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, 10)
  .map((c) => ({ name: c.name, value: c.effect, stderr: c.stderr }));

if (CIRCUITS.length > 1) {
  SECTIONS.push(["depth", "Sizes side by side", "The same effects on relative depth: the first layer on top, the last one below, whatever their number. Each model has its own scale of colours, for units of the metric differ.", () =>
    CIRCUITS.map((m) => figure(nameOf(m), heatMap(m, Math.max(...m.components.map((c) => Math.abs(c.effect)), 1e-12), true), MAP_SAYS))]);
}

function sortedCurves() {
  const with_ = CIRCUITS.map((m, n) => [m, n]).filter(([m]) => m.sorted.rank);
  const refused = CIRCUITS.filter((m) => m.sorted.refused).map((m) => `${nameOf(m)} refused: ${m.sorted.refused}.`);
  const draw = (width) => {
    const f = frame(width, 300, { x: [0, 1], y: [0, 1], xName: "rank / number of components", yName: "|effect| / largest" });
    const parts = [...f.parts];
    if (with_.length) {
      const [longest] = [...with_].sort(([a], [b]) => b.sorted.rank.length - a.sorted.rank.length);
      parts.push(path(f, longest[0].sorted.rank, longest[0].sorted.half_normal, { class: "plain" }));
    }
    for (const [m, n] of with_) {
      parts.push(path(f, m.sorted.rank, m.sorted.effect, { stroke: modelColour(n) }),
        dots(f, m.sorted.rank, m.sorted.effect, modelColour(n), (i) => `${nameOf(m)}, ${i + 1} of ${m.sorted.rank.length}: ${num(m.sorted.effect[i])}`));
    }
    return drawing(width, 300, "sorted effects", ...parts);
  };
  const said = with_.map(([m]) => `${titled(m, "exponent")} ${num(m.sorted.exponent)}, of the half-normal ${num(m.sorted.trivial_exponent)}.`);
  return figure("Sorted effects", draw, [...said, ...refused, "Effects without any structure follow the grey curve."].join(" "),
    { keys: [...with_.map(([m, n]) => [nameOf(m), modelColour(n)]), ["half-normal", "var(--muted)", "dashed"]] });
}

/* ---- by position ---- */

function positionMap(model, found) {
  const ends = [...found.starts.slice(1), found.length];
  const group = (g) => (ends[g] - found.starts[g] === 1 ? `${found.starts[g]}` : `${found.starts[g]}..${ends[g] - 1}`);
  const text = (g) => found.tokens.slice(found.starts[g], ends[g]).join("");
  const most = Math.max(...found.share.flat().map(Math.abs), 1e-12);
  return (width) => {
    const left = 44, top = 8, h = MAP_HEIGHT, rows = found.share.length, w = (width - left - 4) / found.starts.length;
    const parts = found.share.flatMap((row, layer) => row.map((share, g) => {
      const where = layer < rows - 1 ? `before block ${layer}` : "after the last block";
      const weak = Math.abs(share) < 2 * found.stderr[layer][g];
      const cell = s("g", {}, s("rect", { class: "cell empty", x: left + g * w, y: top + layer * h, width: w, height: h }),
        s("rect", { class: "cell", x: left + g * w, y: top + layer * h, width: w, height: h, fill: share < 0 ? "var(--random)" : "var(--trained)", "fill-opacity": Math.abs(share) / most }),
        weak ? s("circle", { class: "weak", cx: left + (g + 0.5) * w, cy: top + (layer + 0.5) * h, r: 1.8 }) : null);
      return hover(cell, `${where}, position ${group(g)}${found.tokens.length ? ` “${text(g)}”` : ""}: ${plusMinus(share, found.stderr[layer][g])}`);
    }));
    for (let layer = 0; layer < rows; layer += 1) parts.push(label(left - 8, top + (layer + 0.5) * h + 4, layer < rows - 1 ? layer : "out", "end"));
    const every = Math.ceil(30 / w);
    for (let g = 0; g < found.starts.length; g += every) parts.push(label(left + (g + 0.5) * w, top + rows * h + 16, found.starts[g]));
    parts.push(label(left + (width - left) / 2, top + rows * h + 34, "position"));
    return drawing(width, top + rows * h + 38, `effect by layer and position of ${nameOf(model)}`, ...parts);
  };
}

SECTIONS.push(["positions", "Where it is carried", "The corrupted run with the clean stream put in at one layer and place: the share of the effect that comes back.", () =>
  CIRCUITS.filter((m) => m.analyses.positions).map((m) => {
    const found = m.analyses.positions;
    if (found.refused) return refusal(titled(m, "positions"), found.refused);
    const caption = `Rows are the stream before each block. The answer is read from position ${found.asked} on. ${found.sequences} pairs; strongest colour: a share of ${num(Math.max(...found.share.flat().map(Math.abs)))}; a dot is below two standard errors.`;
    return figure(titled(m, "layer by position"), positionMap(m, found), caption, { wide: found.starts.length > 12, keys: [["brings the answer back", "var(--trained)"], ["works against it", "var(--random)"]] });
  })]);

const refusal = (title, why) => el("p", { class: "refused wide" }, el("strong", {}, `${title} refused: `), why);

/* ---- numbers ---- */

const SAYS = {
  participation: "how many components share the effect", n90: "components with 90 % of the sum of single effects",
  n90_joint: "the first k by single effects that together do 90 %", n90_joint_shapley: "the same, ranked by Shapley shares",
  n90_joint_greedy: "the same, chosen greedily", depth_centre: "mean relative depth of the effect",
  redundancy: "sum of single effects over their joint effect", cpr: "area under f(k)", cmd: "area between f(k) and 1",
};

SECTIONS.push(["numbers", "Numbers", "Each beside the same model untrained, and beside what no structure at all would give.", () =>
  CIRCUITS.map((m) => el("figure", { class: "wide" }, el("h3", {}, titled(m, `of ${m.components.length} components`)),
    table(["Quantity", "Value", "±", "Untrained", "Trivial"], Object.entries(m.quantities).map(([name, q]) =>
      (q.refused ? [quantity(name, q.refused), "refused", "", "", ""]
        : [quantity(name, SAYS[name] || ""), num(q.value), num(q.stderr, 2), q.untrained === undefined ? "–" : num(q.untrained), num(q.trivial)])), [1, 2, 3, 4]),
    el("figcaption", {}, estimatorText(m) + untrainedText(m))))]);

/* What a quantity is stands below its name: a column of its own is too narrow on a phone. */
const quantity = (name, what) => el("span", {}, words(name), el("small", { class: "what" }, what));

/* Why the column of the untrained model has gaps. */
function untrainedText(m) {
  const reasons = new Map();
  for (const [name, q] of Object.entries(m.quantities)) {
    if (q.untrained_refused) reasons.set(q.untrained_refused, [...(reasons.get(q.untrained_refused) || []), words(name)]);
  }
  return [...reasons].map(([why, names]) => ` Untrained ${names.join(", ")} refused: ${why}.`).join("");
}

function estimatorText(m) {
  const e = m.estimator;
  if (e.method === "none") return "All effects are exact; no estimator was used.";
  const missed = e.outside ? ` Outside its top tenth, ${e.missed} of ${e.outside} are larger than the least inside (a rate of at most ${num(e.missed_bound, 2)}, 95 %).` : "";
  return `Estimator (${e.method}) against ${e.exact} exact effects: ${e.r === null ? "no spread" : `r = ${num(e.r)}`}.${missed} Cost: ${num(m.forwards)} forward passes.`;
}
