/* Value against parameters: means over seeds, the fit of the verdict, the prediction held out. */

const POINT = ["n", "step", "mean", "sd", "seeds", "geometric", "sdLn", "followed"];

function pointsOf(slice, variant) {
  return (slice.points[variant] || []).map((p) => Object.fromEntries(POINT.map((name, i) => [name, p[i]])));
}

/* Verdicts without a unit rest on ln|I|, so their figures too, unless values vanish or change sign. */
function isGeometric(verdicts, points) {
  const signs = distinct(points.map((p) => Math.sign(p.geometric)));
  return verdicts.length > 0 && !verdicts.some(hasUnit) && points.every((p) => p.geometric !== null) && signs.length === 1;
}

/* What is drawn of points: value, ends of its bar, text. */
function scaled(points, geometric) {
  return points.map((p) => {
    const [value, spread] = geometric ? [p.geometric, p.sdLn] : [p.mean, p.sd];
    if (spread === null) return { ...p, value, up: 0, down: 0, spread, said: num(value) };
    if (!geometric) return { ...p, value, up: spread, down: spread, spread, said: `${num(value)} ± ${num(spread)}` };
    const ends = [value * Math.exp(spread), value * Math.exp(-spread)];
    return {
      ...p, value, up: Math.max(...ends) - value, down: value - Math.min(...ends), spread,
      said: `${num(value)}, sd of ln ${num(spread)}`,
    };
  });
}

function barText(geometric) {
  return geometric
    ? "Points are geometric means over seeds, bars one standard deviation of ln|value| between seeds"
    : "Points are arithmetic means over seeds, bars one standard deviation between seeds";
}

function bars(points, stroke, more) {
  return {
    type: "data", symmetric: false, array: points.map((p) => p.up), arrayminus: points.map((p) => p.down),
    color: stroke, ...more,
  };
}

/* Points at a step; null: the last of each size. Initial weights have no step of their own. */
function atStep(points, step, variant) {
  const bySize = groups(points, (p) => p.n);
  return [...bySize.values()].map((own) => {
    const exact = own.find((p) => p.step === step);
    const last = own[own.length - 1];
    return exact || (step === null || variant === "random_init" ? last : null);
  }).filter(Boolean);
}

function scaleTrace(name, points) {
  const style = VARIANTS[name] || { label: words(name), color: "--muted", symbol: "x", mark: "×", dash: "dot" };
  const stroke = color(style.color);
  const trained = name === "trained";
  return {
    name: style.label, meta: { color: stroke, mark: style.mark }, mode: "lines+markers", type: "scatter",
    x: points.map((p) => p.n), y: points.map((p) => p.value), customdata: points.map((p) => [name, p.n, p.step]),
    error_y: bars(points, stroke, { thickness: 1.4, width: 5 }),
    text: points.map((p) => `${safe(style.label)}, ${parameters(p.n)}<br>${p.said} (${seedsText(p.seeds)})`),
    hovertemplate: "%{text}<extra></extra>",
    line: { color: stroke, width: trained ? 2 : 1.3, dash: style.dash },
    marker: { color: stroke, size: trained ? 9 : 8, symbol: style.symbol, line: { width: trained ? 0 : 1.6, color: stroke } },
  };
}

/* The form of the verdict as [name, n -> value]; null where its coefficients are not to be had.
   Straight lines take the verdict's slope through the centre, weighted by seeds as the fit is. */
function fitted(verdict, points) {
  const total = sum(points.map((p) => p.seeds));
  const mean = (f) => sum(points.map((p) => p.seeds * f(p))) / total;
  const sign = Math.sign(points[0].value);
  const ln = !hasUnit(verdict);
  if (ln && !points.every((p) => Math.sign(p.value) === sign && sign)) return null;
  const y = (p) => (ln ? Math.log(Math.abs(p.value)) : p.value);
  const [x0, y0] = [mean((p) => Math.log(p.n)), mean(y)];
  const back = (v) => (ln ? sign * Math.exp(v) : v);
  const form = verdict.form;
  if (form === "constant") return [`fit: constant ${num(back(y0))}`, () => back(y0)];
  if (verdict.exponent === null) return null;
  if (form === "power" && ln) {
    return [`fit: N^${num(verdict.exponent)}`, (n) => back(y0 + verdict.exponent * (Math.log(n) - x0))];
  }
  if (form !== "log") return null;
  const [a, b] = ln ? logarithm(points.map((p) => ({ ...p, value: sign * p.value })), x0).map((v) => sign * v)
    : [y0, verdict.exponent * verdict.unit];
  return [`fit: a ${b < 0 ? "−" : "+"} ${num(Math.abs(b))} ln N`, (n) => a + b * (Math.log(n) - x0)];
}

/* a + b (ln N - x0) least squares on ln|I|, the scale of the verdict: Gauss-Newton. */
function logarithm(points, x0) {
  const z = points.map((p) => Math.log(p.n) - x0);
  let [a, b] = [Math.exp(sum(points.map((p) => p.seeds * Math.log(p.value))) / sum(points.map((p) => p.seeds))), 0];
  for (let round = 0; round < 50; round += 1) {
    const f = z.map((v) => a + b * v);
    const weight = points.map((p, i) => p.seeds / f[i] ** 2);
    const rest = points.map((p, i) => f[i] * Math.log(p.value / f[i]));
    const s = (g) => sum(z.map((v, i) => weight[i] * g(v, rest[i])));
    const [s0, s1, s2, t0, t1] = [s(() => 1), s((v) => v), s((v) => v * v), s((_, r) => r), s((v, r) => v * r)];
    const step = [(s2 * t0 - s1 * t1) / (s0 * s2 - s1 * s1), (s0 * t1 - s1 * t0) / (s0 * s2 - s1 * s1)];
    let share = 1; // no step may leave the range in which the logarithm exists
    while (share > 1e-9 && z.some((v) => a + share * step[0] + (b + share * step[1]) * v <= 0)) share /= 2;
    [a, b] = [a + share * step[0], b + share * step[1]];
  }
  return [a, b];
}

function fitTrace(verdict, points) {
  if (points.length < 2 || !verdict.form) return [];
  const fit = fitted(verdict, points);
  if (fit === null) return [];
  const [name, f] = fit;
  const [low, high] = [Math.min(...points.map((p) => p.n)), Math.max(...points.map((p) => p.n))];
  const sizes = Array.from({ length: 41 }, (_, i) => low * (high / low) ** (i / 40));
  const stroke = color("--fit");
  return [{
    name, meta: { color: stroke, mark: "┄" }, mode: "lines", type: "scatter", hoverinfo: "skip",
    x: sizes, y: sizes.map(f), line: { color: stroke, width: 1.5, dash: "dash" },
  }];
}

function predictionTraces(predictions) {
  if (!predictions.length) return [];
  const rows = predictions.slice().sort((a, b) => a.n_params - b.n_params);
  const stroke = color("--fit");
  const level = rows[0].level === null ? "" : ` (${Math.round(100 * rows[0].level)} %)`;
  const reach = (r, edge) => (r[edge] === null ? 0 : Math.abs(r[edge] - r.predicted));
  return [{
    name: `prediction${level}`, meta: { color: stroke, mark: "✳" }, mode: "markers", type: "scatter",
    x: rows.map((r) => r.n_params), y: rows.map((r) => r.predicted),
    error_y: {
      type: "data", symmetric: false, array: rows.map((r) => reach(r, "high")), arrayminus: rows.map((r) => reach(r, "low")),
      color: stroke, thickness: 1.4, width: 10,
    },
    text: rows.map((r) => `predicted (${safe(words(r.form))}, ${(r.fitted_on || []).length} smaller)<br>${num(r.predicted)} [${num(r.low)}, ${num(r.high)}]`
      + (r.observed === null ? "" : `<br>observed ${num(r.observed)}`)),
    hovertemplate: "%{text}<extra></extra>",
    marker: { color: stroke, size: 11, symbol: "asterisk-open", line: { width: 2, color: stroke } },
  }];
}

function matches(row, slice) {
  const bin = row.depth_bin === undefined ? row.bin : row.depth_bin;
  return row.family === slice.family && row.invariant === slice.invariant && row.quantity === slice.quantity
    && (row.series || "") === slice.series && (row.probe || "") === slice.probe && (row.site || "") === slice.site
    && (bin || "all") === slice.bin;
}
