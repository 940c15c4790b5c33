/* Analyses that are drawn: direct attribution, probes, modules, signatures of heads. */

const DRAWN = {
  direct: (model, found) => [directBars(model, found), ...(found.by_depth && found.by_depth.length ? [directDepth(model, found)] : [])],
  tokens: (model, found) => [tokenAttribution(model, found)],
  probes: (model, found) => found.targets.map((target) => probeCurve(model, target)),
  maxima: (model, found) => [maxima(model, found)],
  surrogate,
  signatures: (model, found) => [signatures(model, found)],
  modularity: (model, found) => [modularity(model, found)],
};

function directBars(model, found) {
  const rows = [...found.components].sort((a, b) => Math.abs(b.effect) - Math.abs(a.effect)).slice(0, 12).map((c) => ({ name: c.name, value: c.effect, stderr: c.stderr }));
  return figure(titled(model, "written into the logits"), (w) => bars(w, rows, "direct logit attribution", (value) => signColour(-value)),
    "What each component's output alone adds to the logit difference, the final norm's scale held fixed. It does not see what later components do with it.");
}

function directDepth(model, found) {
  const ys = found.by_depth.map((d) => (typeof d === "number" ? d : d.effect ?? d.value)), xs = ys.map((_, i) => i);
  const errors = found.by_depth_stderr || found.by_depth.map((d) => (typeof d === "number" ? null : d.stderr));
  const draw = (width) => {
    const f = frame(width, 280, { x: [0, Math.max(xs.length - 1, 1)], y: range(ys), xName: "layers so far", yName: "logit difference", xTicks: xs });
    return drawing(width, 280, "direct attribution by depth", ...f.parts, path(f, xs, ys, { stroke: "var(--trained)" }), dots(f, xs, ys, "var(--trained)", (i) => `after ${i}: ${plusMinus(ys[i], errors[i])}`, errors));
  };
  return figure(titled(model, "through the depth"), draw, "The logit difference read off the stream after so many layers.");
}

function probeCurve(model, target) {
  const xs = target.layers.map((l) => l.layer);
  const lines = [["probe", "accuracy", "var(--trained)"], ["control labels", "control", "var(--muted)"]];
  const draw = (width) => {
    const f = frame(width, 280, { x: [Math.min(...xs), Math.max(...xs, Math.min(...xs) + 1)], y: [0, 1], xName: "layers before it", yName: "accuracy", xTicks: xs });
    return drawing(width, 280, `probe of ${target.name}`, ...f.parts, ...lines.flatMap(([name, key, colour]) => {
      const ys = target.layers.map((l) => l[key]);
      return [path(f, xs, ys, { stroke: colour }), dots(f, xs, ys, colour, (i) => `${name}, layer ${xs[i]}: ${plusMinus(ys[i], key === "accuracy" ? target.layers[i].stderr : null)}`, key === "accuracy" ? target.layers.map((l) => l.stderr) : [])];
    }));
  };
  const best = [...target.layers].sort((a, b) => b.selectivity - a.selectivity)[0];
  return figure(titled(model, `probe of ${words(target.name)}`), draw, `A linear probe on the stream. Selectivity, accuracy minus that on control labels, is largest at ${best.layer}: ${num(best.selectivity)}. That something can be read does not say that the model reads it.`,
    { keys: lines.map(([name, , colour]) => [name, colour]) });
}

function modularity(model, found) {
  const rows = asList(found.modules).map((m, i) => [i + 1, Array.isArray(m) ? m.join(", ") : String(m)]);
  return el("figure", {}, el("h3", {}, titled(model, "modules")), table(["Module", "Components"], rows),
    el("figcaption", {}, `Modularity ${num(found.q)}; of graphs with the same degrees ${num(found.rewired_mean)} ± ${num(found.rewired_sd, 2)} (z = ${num(found.z)}).`));
}

const SIGNATURE = ["previous", "first", "own", "entropy", "distance", "prefix", "copying"];

function signatures(model, found) {
  const effect = new Map(model.components.map((c) => [c.name, c]));
  const rows = [...found.heads].sort((a, b) => Math.abs((effect.get(b.name) || { effect: 0 }).effect) - Math.abs((effect.get(a.name) || { effect: 0 }).effect))
    .map((h) => [h.name, effect.has(h.name) ? num(effect.get(h.name).effect) : "–", ...SIGNATURE.map((k) => num(h[k]))]);
  return el("figure", { class: "wide" }, el("h3", {}, titled(model, "signatures of heads")), table(["Head", "Effect", ...SIGNATURE], rows, SIGNATURE.map((_, i) => i + 1).concat(SIGNATURE.length + 1)),
    el("figcaption", {}, "Attention to the token before, the first one and itself; normalised entropy and mean distance; attention to what followed this token before (prefix); how far its output raises the token it looks at (copying)."));
}

/* Heads of two models side by side, beside pairs of untrained models of the same sizes. */
function matched(found) {
  const [a, b] = found.models, title = `${a} and ${b}`;
  if (found.refused) return refusal(title, found.refused);
  const [first, other] = found.at.map((n) => CIRCUITS[n]);
  const effect = (m, name) => { const c = m.components.find((one) => one.name === name); return c ? c.effect : null; };
  const cell = (x) => (x === null ? "–" : num(x));
  const size = (pair) => Math.abs(effect(first, pair.head) ?? 0);
  const rows = [...found.pairs].sort((x, y) => size(y) - size(x)).slice(0, 12)
    .map((p) => [p.head, cell(effect(first, p.head)), p.there, cell(effect(other, p.there)), num(p.distance), p.near ? "near" : ""]);
  const more = found.pairs.length > rows.length ? ` The ${rows.length} of ${found.pairs.length} pairs with the largest effects in ${a}; all are in circuits.json.` : "";
  return el("figure", {}, el("h3", {}, title), el("p", {}, `${found.says[0].toUpperCase()}${found.says.slice(1)}.`),
    table(["Head", "Effect", "There", "Effect", "Distance", ""], rows, [1, 3, 4]),
    el("figcaption", {}, `Heads of ${a}, and there those of ${b}, matched one to one by signature; distances are over the mean of all pairs of the two models. Near: nearer than ${Math.round(100 - 100 * found.trivial)} % of the pairs of untrained heads.${more}`));
}

SECTIONS.push(["analyses", "Beside the effects", "What was asked for by --with.", () =>
  CIRCUITS.flatMap((m) => Object.entries(DRAWN).flatMap(([name, make]) => {
    const found = m.analyses[name];
    if (!found) return [];
    return found.refused ? [refusal(titled(m, name), found.refused)] : make(m, found);
  }))]);

SECTIONS.push(["matched", "Matched heads", "Which head of another model does the same, by what it attends to and copies.", () =>
  CIRCUITS.flatMap((m) => m.matched || []).map(matched)]);
