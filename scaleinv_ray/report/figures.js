/* The figures: drawn when they come into view, again when a choice or the theme changes. */

const VARIANTS = {
  trained: { label: "trained", color: "--trained", symbol: "circle", mark: "●", dash: "solid" },
  random_init: { label: "random init", color: "--random", symbol: "square-open", mark: "□", dash: "dash" },
  shuffled_weights: { label: "shuffled weights", color: "--weights", symbol: "diamond-open", mark: "◇", dash: "dot" },
  shuffled_tokens: { label: "shuffled tokens", color: "--tokens", symbol: "triangle-up-open", mark: "△", dash: "dashdot" },
};
const SHAPES = [
  ["circle", "●"], ["square", "■"], ["diamond", "◆"], ["triangle-up", "▲"],
  ["triangle-down", "▼"], ["star", "★"], ["circle-open", "○"], ["square-open", "□"],
];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const KEY = ["series", "probe", "site", "bin"];
const KEY_NAMES = { series: "Series", probe: "Probe", site: "Site", bin: "Depth" };
const PREDICTIONS = records(DATA.predictions);
const TRANSITIONS = records(DATA.transitions);
const SECTIONS = new Map();

const color = (name) => getComputedStyle(ROOT).getPropertyValue(name).trim();
const sum = (values) => values.reduce((a, b) => a + b, 0);
const all = (values) => distinct(values).sort((a, b) => a - b);

/* Colours of the sizes run from light to dark (dark theme: the other way), evenly in rank. */
function sizeColor(i, count) {
  const ramp = [1, 2, 3, 4, 5].map((k) => color(`--size-${k}`));
  const at = count < 2 ? 4 : (4 * i) / (count - 1);
  const [low, high] = [Math.floor(at), Math.ceil(at)];
  const channel = (hex, k) => parseInt(hex.slice(1 + 2 * k, 3 + 2 * k), 16);
  const mixed = [0, 1, 2].map((k) =>
    Math.round(channel(ramp[low], k) * (1 - (at - low)) + channel(ramp[high], k) * (at - low)));
  return `rgb(${mixed.join(",")})`;
}

const clear = (rgb, alpha) => rgb.replace("rgb(", "rgba(").replace(")", `,${alpha})`);

/* plotly reads tags and entities in its texts: names must stay names. */
const safe = (text) => (text || "").replaceAll("&", "&amp;").replaceAll("<", "&lt;");

function axis(title, more = {}) {
  return {
    title: { text: title, standoff: 10, font: { size: 12, color: color("--muted") } },
    gridcolor: color("--grid"), linecolor: color("--rule"), tickcolor: color("--rule"), ticks: "outside",
    zeroline: false, showline: true, automargin: true, exponentformat: "power",
    // plotly writes powers of ten a quarter larger than asked
    tickfont: { size: more.type === "log" && !more.ticktext ? 10 : 12 }, ...more,
  };
}

function layout(more) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
    font: { family: color("--font"), size: 12, color: color("--ink") },
    margin: { l: 56, r: 14, t: 12, b: 48 },
    hoverlabel: { bgcolor: color("--card"), bordercolor: color("--rule"), font: { color: color("--ink") } },
    ...more,
  };
}

/* Ticks at the sizes themselves; where two are too close, only the first is written. */
function sizeAxis(sizes) {
  const range = Math.log10(sizes[sizes.length - 1] / sizes[0]) || 1;
  let last = -Infinity;
  const texts = sizes.map((n) => {
    if (Math.log10(n) - last < 0.09 * range) return "";
    last = Math.log10(n);
    return parameters(n);
  });
  const pad = Math.max(0.06 * range, 0.05);
  return axis("parameters", {
    type: "log", tickvals: sizes, ticktext: texts,
    range: [Math.log10(sizes[0]) - pad, Math.log10(sizes[sizes.length - 1]) + pad],
  });
}

/* plotly is four megabytes: it is read when the first figure comes into view. */
function loadPlotly() {
  if (!window.Plotly) document.head.append(el("script", {}, $("plotly").textContent));
}

/* ---- one figure: frame, legend of buttons, drawing when seen ---- */

class Figure {
  constructor(parent, title, build) {
    this.build = build;
    this.hidden = new Set();
    this.seen = false;
    this.plot = el("div", { class: "plot", role: "img" });
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Shown in this figure" });
    this.tools = el("div", { class: "tools" });
    this.note = el("figcaption");
    this.heading = el("h3", {}, title);
    this.frame = el("figure", {}, el("div", { class: "figure-head" }, this.heading, this.tools),
      this.legend, this.plot, this.note);
    parent.append(this.frame);
    new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting) && !this.seen) {
        this.seen = true;
        this.draw();
      }
    }, { rootMargin: "200px" }).observe(this.frame);
  }

  option(text, f) {
    const box = el("input", { type: "checkbox", on: { change: () => f(box.checked) } });
    this.tools.append(el("label", { class: "check" }, box, text));
    return box;
  }

  draw() {
    if (!this.seen) return;
    const drawing = this.build();
    this.frame.hidden = drawing === null;
    if (drawing === null) return;
    this.note.textContent = drawing.note || "";
    this.plot.setAttribute("aria-label", `${this.heading.textContent}. ${drawing.note || ""}`);
    this.drawLegend(drawing.traces);
    for (const trace of drawing.traces) trace.visible = !this.hidden.has(trace.name);
    loadPlotly();
    Plotly.react(this.plot, drawing.traces, drawing.layout, {
      responsive: true, displaylogo: false, displayModeBar: "hover",
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
    });
  }

  drawLegend(traces) {
    const named = traces.filter((trace) => trace.meta);
    this.legend.replaceChildren(...named.map((trace) => {
      const button = el("button", { type: "button", "aria-pressed": String(!this.hidden.has(trace.name)) },
        el("span", { class: "swatch", "aria-hidden": "true", style: `color:${trace.meta.color}` }, trace.meta.mark),
        trace.name);
      button.addEventListener("click", () => this.toggle(trace.name, traces, button));
      return button;
    }));
    this.legend.hidden = named.length < 2;
  }

  toggle(name, traces, button) {
    if (!this.hidden.delete(name)) this.hidden.add(name);
    button.setAttribute("aria-pressed", String(!this.hidden.has(name)));
    const indices = traces.flatMap((trace, i) => (trace.name === name ? [i] : []));
    Plotly.restyle(this.plot, { visible: !this.hidden.has(name) }, indices);
  }
}

/* ---- value against parameters ---- */

const POINT = ["n", "step", "mean", "sd", "seeds", "geometric", "sdLn"];

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

function groups(values, key) {
  const found = new Map();
  for (const value of values) found.set(key(value), [...(found.get(key(value)) || []), value]);
  return found;
}

const seedsText = (count) => `${count} seed${count === 1 ? "" : "s"}`;

function scaleTrace(name, points) {
  const style = VARIANTS[name] || { label: words(name), color: "--muted", symbol: "x", mark: "×", dash: "dot" };
  const stroke = color(style.color);
  const trained = name === "trained";
  return {
    name: style.label, meta: { color: stroke, mark: style.mark }, mode: "lines+markers", type: "scatter",
    x: points.map((p) => p.n), y: points.map((p) => p.value),
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

/* Ticks for log(x + 1) axes: 0 and the powers of ten. */
function stepAxis(steps) {
  const top = Math.max(...steps, 1);
  const ticks = [0];
  for (let t = 1; t <= top; t *= 10) ticks.push(t);
  if (ticks[ticks.length - 1] < top / 2) ticks.push(top);
  return axis("training step", {
    type: "log", tickvals: ticks.map((t) => t + 1),
    ticktext: ticks.map((t) => (t >= 1000 ? parameters(t) : String(t))),
    range: [-0.08, Math.log10(top + 1) + 0.08],
  });
}

function sizeStyle(i, count) {
  const [symbol, mark] = SHAPES[i % SHAPES.length];
  return { stroke: sizeColor(i, count), symbol, mark, dash: DASHES[i % DASHES.length] };
}

function trackTrace(n, points, style) {
  return {
    name: parameters(n), meta: { color: style.stroke, mark: style.mark }, mode: "lines+markers", type: "scatter",
    x: points.map((p) => p.step + 1), y: points.map((p) => p.value),
    error_y: bars(points, style.stroke, { thickness: 1, width: 3 }),
    text: points.map((p) => `${parameters(n)}, step ${p.step}<br>${p.said} (${seedsText(p.seeds)})`),
    hovertemplate: "%{text}<extra></extra>",
    line: { color: style.stroke, width: 1.6 }, marker: { color: style.stroke, size: 7, symbol: style.symbol },
  };
}
