/* How few do it all: edges kept alone, components replaced jointly; and training. */

function faithfulness(model) {
  const found = model.faithfulness, n = CIRCUITS.indexOf(model);
  const draw = (width) => {
    const low = found.random_low || [], high = found.random_high || [];
    const f = frame(width, 300, { x: [found.kept[0], 1], y: range([...found.faithful, 1, ...low, ...high]), logX: true, xName: "share of edges kept", yName: "f(k)", xText: (v) => `${tick(100 * v)} %` });
    return drawing(width, 300, `faithfulness of ${nameOf(model)}`, ...f.parts,
      found.draws ? band(f, found.kept, low, high, "var(--muted)") : null,
      found.draws ? path(f, found.kept, found.random, { class: "plain" }) : null,
      path(f, found.kept, found.faithful, { stroke: modelColour(n) }),
      dots(f, found.kept, found.faithful, modelColour(n), (i) => `${Math.round(found.kept[i] * model.num_edges)} edges: ${num(found.faithful[i])}`));
  };
  const random = found.draws ? ` Grey: ${found.draws} random edge sets of the same size, 5 to 95 %.` : " No random sets: the budget ended before them.";
  return figure(titled(model, "f(k)"), draw, `The first k edges carry the clean run, all others the corrupted one; 1 is what the whole model does. Ranked on other sequences than these.${random}`,
    { keys: [["best edges", modelColour(n)], ...(found.draws ? [["random edges", "var(--muted)", "dashed"]] : [])] });
}

const RANKED = { single: ["by single effects", "var(--trained)"], shapley: ["by Shapley shares", "var(--tokens)"], greedy: ["greedy", "var(--weights)"] };

function jointly(model) {
  const game = model.game, n = model.components.length;
  const draw = (width) => {
    const f = frame(width, 300, { x: [1, Math.max(n, 2)], y: range([...game.rankings.flatMap((r) => r.share), 1, ...(game.random_high || []), ...(game.random_low || [])]), logX: n > 20, xName: "components replaced", yName: "share of what all do" });
    return drawing(width, 300, `joint effect of ${nameOf(model)}`, ...f.parts,
      s("line", { class: "grid", x1: f.px(1), x2: f.px(Math.max(n, 2)), y1: f.py(0.9), y2: f.py(0.9), style: "stroke: var(--muted)" }),
      game.draws ? band(f, game.sizes, game.random_low, game.random_high, "var(--muted)") : null,
      game.draws ? path(f, game.sizes, game.random, { class: "plain" }) : null,
      ...game.rankings.flatMap((r) => [path(f, r.sizes, r.share, { stroke: RANKED[r.name][1] }),
        dots(f, r.sizes, r.share, RANKED[r.name][1], (i) => `${r.sizes[i]} ${RANKED[r.name][0]}: ${num(r.share[i])}`)]));
  };
  const said = game.rankings.map((r) => `${RANKED[r.name][0]} ${r.n90}`).join(", ");
  const shares = game.pairs ? ` Shapley shares: ${game.pairs} antithetic pairs of permutations.` : "";
  const left = game.left_out.length ? ` Left out for the budget: ${game.left_out.join(", ")}.` : "";
  const random = game.draws ? ` Grey: ${game.draws} random sets with as many components of every layer, 5 to 95 %.` : "";
  return figure(titled(model, "together"), draw, `Components for 90 %: ${said}.${shares}${random}${left}`,
    { keys: [...game.rankings.map((r) => RANKED[r.name]), ...(game.draws ? [["random, same layers", "var(--muted)", "dashed"]] : [])] });
}

function shapley(model) {
  const rows = model.components.filter((c) => c.shapley !== undefined).sort((a, b) => Math.abs(b.shapley) - Math.abs(a.shapley)).slice(0, 10)
    .map((c) => ({ name: c.name, value: c.shapley, stderr: c.shapley_stderr }));
  return figure(titled(model, "Shapley shares"), (w) => bars(w, rows, "Shapley shares"), "Each component's share in what all do together; ± is over pairs of permutations. Compare with its single effect above: parts that stand in for each other have small single effects and larger shares.");
}

SECTIONS.push(["few", "How few do it", "Effects of single components do not add up: these are run together.", () =>
  CIRCUITS.flatMap((m) => [m.game ? jointly(m) : null, m.game && m.game.pairs ? shapley(m) : null, m.faithfulness ? faithfulness(m) : null].filter(Boolean))]);

function training(model) {
  const t = model.training, tokens = t.tokens.every((x) => x !== null && x !== undefined);
  const xs = tokens ? t.tokens : t.steps, colours = ["var(--trained)", "var(--random)", "var(--weights)", "var(--tokens)", "var(--muted)"];
  const onset = tokens ? t.onset.tokens : t.onset.step;
  const draw = (width) => {
    const f = frame(width, 320, { x: [xs[0], xs[xs.length - 1]], y: range(t.components.flatMap((c) => c.effect)), xName: tokens ? "tokens seen" : "step", yName: "effect", xText: (v) => (v >= 1000 ? parameters(v) : tick(v)) });
    return drawing(width, 320, "effects over training", ...f.parts,
      s("line", { class: "plain", x1: f.px(onset), x2: f.px(onset), y1: 28, y2: 280 }),
      ...t.components.flatMap((c, i) => [path(f, xs, c.effect, { stroke: colours[i] }), dots(f, xs, c.effect, colours[i], (k) => `${c.name}, step ${t.steps[k]}: ${plusMinus(c.effect[k], c.stderr[k])}`, c.stderr)]));
  };
  const before = t.onset.before === null ? "" : `after step ${t.onset.before} and `;
  return figure(titled(model, "over training"), draw, `${t.onset.name} has half of its last effect ${before}by step ${t.onset.step}${tokens ? ` (${count(t.onset.tokens)} tokens)` : ""}: the dashed line. Accuracy ${num(t.accuracy[0])} at first, ${num(t.accuracy[t.accuracy.length - 1])} at last.`,
    { wide: true, keys: t.components.map((c, i) => [c.name, colours[i]]) });
}

SECTIONS.push(["training", "Onset", "The largest components of the last step, followed over training.", () => CIRCUITS.filter((m) => m.training).map(training)]);
