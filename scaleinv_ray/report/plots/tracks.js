/* Over training, with transitions, and over depth: one line a size. */

const KINDS = { break: { symbol: "x-thin", mark: "✕", text: "break of slope" }, jump: { symbol: "star-triangle-up", mark: "▲", text: "jump of level" } };

function trackTrace(n, points, style) {
  return {
    name: parameters(n), meta: { color: style.stroke, mark: style.mark }, mode: "lines+markers", type: "scatter",
    x: points.map((p) => p.step + 1), y: points.map((p) => p.value), customdata: points.map((p) => [n, p.step]),
    error_y: bars(points, style.stroke, { thickness: 1, width: 3 }),
    text: points.map((p) => `${parameters(n)}, step ${p.step}<br>${p.said} (${seedsText(p.seeds)})`),
    hovertemplate: "%{text}<extra></extra>",
    line: { color: style.stroke, width: 1.6 }, marker: { color: style.stroke, size: 7, symbol: style.symbol },
  };
}

/* Every run of a slice that has several checkpoints, step after step; of very many some of each size. */
function runsOf(slice) {
  return slice.runs.of.map((run, i) => {
    const [model, seed, n] = POINTS.runs[run];
    return slice.runs.steps[i].map((step, k) => ({ model, seed, n, step, value: slice.runs.values[i][k] }));
  });
}

const runsText = (slice) => (slice.runs.left_out ? ` Of ${count(slice.runs.left_out + slice.runs.of.length)} runs ${count(slice.runs.of.length)} are drawn, the first seeds of each size.` : "");

function runTraces(runs, sizes) {
  return runs.map((own) => {
    const style = sizeStyle(sizes.indexOf(own[0].n), sizes.length);
    return {
      name: parameters(own[0].n), mode: "lines", type: "scatter", x: own.map((p) => p.step + 1), y: own.map((p) => p.value),
      line: { color: style.stroke, width: 0.9 }, opacity: 0.65,
      text: own.map((p) => `${safe(p.model)}, seed ${p.seed}, step ${p.step}<br>${num(p.value)}`), hovertemplate: "%{text}<extra></extra>",
    };
  });
}

/* The value of a run at a step between its checkpoints, along the axis log(step + 1). */
function along(own, step) {
  const after = own.findIndex((p) => p.step >= step);
  if (after < 0) return own[own.length - 1].value;
  if (after === 0) return own[0].value;
  const [a, b] = [own[after - 1], own[after]];
  const share = Math.log((step + 1) / (a.step + 1)) / Math.log((b.step + 1) / (a.step + 1));
  return a.value + share * (b.value - a.value);
}

function transitionsOf(slice) {
  return POINTS.transitions.filter((t) => matches(t, slice));
}

function transitionTraces(found, runs, sizes) {
  const runOf = (t) => runs.find((own) => own[0].model === t.model && (t.seed === null || own[0].seed === t.seed));
  return Object.entries(KINDS).flatMap(([kind, style]) => {
    const rows = found.filter((t) => t.kind === kind && t.step !== null && runOf(t));
    if (!rows.length) return [];
    const strokes = rows.map((t) => sizeStyle(sizes.indexOf(runOf(t)[0].n), sizes.length).stroke);
    const interval = (t) => (t.step_low === null ? "" : `, between ${num(t.step_low)} and ${num(t.step_high)}`);
    return [{
      name: style.text, meta: { color: color("--ink"), mark: style.mark }, mode: "markers", type: "scatter",
      x: rows.map((t) => t.step + 1), y: rows.map((t) => along(runOf(t), t.step)),
      error_x: {
        type: "data", symmetric: false, color: color("--muted"), thickness: 1.2, width: 4,
        array: rows.map((t) => (t.step_high === null ? 0 : t.step_high - t.step)), arrayminus: rows.map((t) => (t.step_low === null ? 0 : t.step - t.step_low)),
      },
      text: rows.map((t) => `${safe(t.model)}: ${style.text} at step ${num(t.step)}${interval(t)}<br>p ${num(t.p)}`),
      hovertemplate: "%{text}<extra></extra>",
      marker: { color: strokes, size: 12, symbol: style.symbol, line: { color: strokes, width: 2.5 } },
    }];
  });
}

function transitionText(found) {
  if (!found.length) return POINTS.hasTransitions ? "" : " This run has no table of transitions.";
  const runs = groups(found, (t) => `${t.model}\n${t.seed}`);
  const having = [...runs.values()].filter((own) => own.some((t) => t.step !== null)).length;
  return ` ${having} of ${runs.size} runs have a transition${having ? "; horizontal bars are 95 % intervals" : ""}.`;
}

function buildTrack(family) {
  const { slice } = family;
  const raw = pointsOf(slice, "trained").filter((p) => p.step !== null && p.followed);
  if (all(raw.map((p) => p.step)).length < 2) return null;
  const geometric = isGeometric(family.verdicts(), raw);
  const points = scaled(raw, geometric);
  const bySize = [...groups(points, (p) => p.n)].sort(([a], [b]) => a - b);
  const [sizes, runs, found] = [bySize.map(([n]) => n), runsOf(slice), transitionsOf(slice)];
  const means = bySize.map(([n, own], i) => trackTrace(n, own, sizeStyle(i, sizes.length)));
  return {
    name: `${slice.quantity}-over-training`,
    traces: [...(family.eachSeed.checked ? runTraces(runs, sizes) : []), ...means, ...transitionTraces(found, runs, sizes)],
    layout: layout({
      height: 360, xaxis: stepAxis(points.map((p) => p.step)),
      yaxis: axis(valueLabel(slice), { type: family.logScale.checked ? "log" : "linear" }),
    }),
    clicked: (point) => point.customdata && showRows(slice, { variant: "trained", n_params: point.customdata[0], step: point.customdata[1] },
      `${slice.quantity}: ${parameters(point.customdata[0])}, step ${count(point.customdata[1])}`),
    note: `Trained models; axis logarithmic in step + 1. ${barText(geometric)}.${runsText(slice)}${transitionText(found)}`,
  };
}

/* ---- value against depth ---- */

const LEVEL = ["n", "step", "depth", "value", "sd", "seeds"];

function profileOf(slice) {
  return POINTS.profiles.find((p) => ["family", "invariant", "quantity", "series", "probe", "site"].every((name) => p[name] === slice[name]));
}

/* Levels at a step; null: the last step of each size. Initial weights have no step of their own. */
function levelsAt(profile, variant, step) {
  const rows = (profile.points[variant] || []).map((p) => Object.fromEntries(LEVEL.map((name, i) => [name, p[i]])));
  return [...groups(rows, (p) => p.n)].map(([n, own]) => {
    const steps = own.map((p) => p.step);
    const last = steps.includes(null) ? null : Math.max(...steps);
    const wanted = step !== null && steps.includes(step) ? step : step === null || variant === "random_init" ? last : undefined;
    return [n, own.filter((p) => p.step === wanted).sort((a, b) => a.depth - b.depth)];
  }).filter(([, own]) => own.length).sort(([a], [b]) => a - b);
}

function bandTrace(name, xs, low, high, stroke) {
  return {
    name, mode: "lines", type: "scatter", hoverinfo: "skip", fill: "toself", fillcolor: clear(stroke, 0.16),
    x: [...xs, ...xs.slice().reverse()], y: [...high, ...low.slice().reverse()], line: { width: 0 },
  };
}

function profileTraces(n, points, style, label) {
  const trained = label === "trained";
  const known = trained ? points.filter((p) => p.sd !== null) : [];
  const band = known.length > 1
    ? [bandTrace(parameters(n), known.map((p) => p.depth), known.map((p) => p.value - p.sd), known.map((p) => p.value + p.sd), style.stroke)] : [];
  return [...band, {
    name: parameters(n), meta: trained ? { color: style.stroke, mark: style.mark } : undefined, type: "scatter",
    mode: "lines+markers", x: points.map((p) => p.depth), y: points.map((p) => p.value),
    text: points.map((p) => `${label}, ${parameters(n)}, depth ${num(p.depth)}<br>${num(p.value)}${p.sd === null ? "" : ` ± ${num(p.sd)}`} (${seedsText(p.seeds)})`),
    hovertemplate: "%{text}<extra></extra>", opacity: trained ? 1 : 0.8,
    line: { color: style.stroke, width: trained ? 1.8 : 1.3, dash: trained ? "solid" : "dash" },
    marker: { color: style.stroke, size: trained ? 7 : 5, symbol: trained ? style.symbol : `${style.symbol.replace("-open", "")}-open` },
  }];
}

function buildDepth(family) {
  const { slice } = family;
  const profile = profileOf(slice);
  if (!profile) return null;
  const trained = levelsAt(profile, "trained", family.step());
  if (!trained.length) return null;
  const null_ = family.depthNull ? family.depthNull.value : "";
  const sizes = trained.map(([n]) => n);
  const lines = (rows, label) => rows.filter(([n]) => sizes.includes(n))
    .flatMap(([n, own]) => profileTraces(n, own, sizeStyle(sizes.indexOf(n), sizes.length), label));
  const nulls = null_ ? levelsAt(profile, null_, family.step()) : [];
  const positive = [...trained, ...nulls].every(([, own]) => own.every((p) => p.value > 0));
  const label = variantLabel(null_);
  return {
    name: `${slice.quantity}-over-depth`,
    traces: [...lines(trained, "trained"), ...lines(nulls, label)],
    layout: layout({
      height: 360, xaxis: axis("depth l / L", { range: [0, 1.04] }),
      yaxis: axis(valueLabel(slice), { type: family.logScale.checked && positive ? "log" : "linear" }),
    }),
    note: `Arithmetic means over seeds; bands one standard deviation between seeds.${nulls.length ? ` Dashed: ${label}, in the colour of its size.` : ""}`
      + ` Depth is (l + 1) / L after layer l.`,
  };
}
