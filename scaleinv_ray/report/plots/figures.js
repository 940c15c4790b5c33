/* One figure: its frame, axes and colours; drawn when it comes into view, again when a choice changes. */

const VARIANTS = {
  trained: { label: "trained", color: "--trained", symbol: "circle", mark: "●", dash: "solid" },
  random_init: { label: "random init", color: "--random", symbol: "square-open", mark: "□", dash: "dash" },
  shuffled_weights: { label: "shuffled weights", color: "--weights", symbol: "diamond-open", mark: "◇", dash: "dot" },
  shuffled_tokens: { label: "shuffled tokens", color: "--tokens", symbol: "triangle-up-open", mark: "△", dash: "dashdot" },
};
const variantLabel = (variant) => (VARIANTS[variant] ? VARIANTS[variant].label : words(variant));
const SHAPES = [
  ["circle", "●"], ["square", "■"], ["diamond", "◆"], ["triangle-up", "▲"],
  ["triangle-down", "▼"], ["star", "★"], ["circle-open", "○"], ["square-open", "□"],
];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];
const KEY = ["series", "probe", "site", "bin"];
const KEY_NAMES = { series: "Series", probe: "Probe", site: "Site", bin: "Depth" };

const color = (name) => getComputedStyle(ROOT).getPropertyValue(name).trim();

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
const safe = (text) => cut(text || "").replaceAll("&", "&amp;").replaceAll("<", "&lt;");

/* What an axis shows: what the quantity is, in short lines, or its name. */
function valueLabel(place) {
  const lines = [""];
  for (const word of (whatOf(place) || place.quantity).split(" ")) {
    if (lines[lines.length - 1].length + word.length > 44) lines.push("");
    lines[lines.length - 1] += `${word} `;
  }
  return lines.map((line) => safe(line.trim())).join("<br>");
}

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
    paper_bgcolor: color("--card"), plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, hovermode: "closest",
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

/* ---- one figure: frame, legend of buttons, drawing when seen ---- */

const FIGURES = [];

class Figure {
  constructor(parent, title, build) {
    FIGURES.push(this);
    this.build = build;
    this.hidden = new Set();
    this.seen = false;
    this.plot = el("div", { class: "plot", role: "img" });
    this.legend = el("div", { class: "legend", role: "group", "aria-label": "Shown in this figure" });
    this.tools = el("div", { class: "tools" });
    this.note = el("figcaption");
    this.heading = el("h3", {}, title);
    const save = (text, f) => el("button", { type: "button", class: "quiet", "aria-label": `Save ${title} as ${text}`, on: { click: f } }, text);
    this.saves = el("div", { class: "saves" }, save("PNG", () => this.image("png")), save("SVG", () => this.image("svg")),
      save("CSV", () => this.numbersAsCsv()));
    this.frame = el("figure", {}, el("div", { class: "figure-head" }, this.heading, this.tools),
      this.legend, this.plot, this.note, this.saves);
    parent.append(this.frame);
    this.near = false;
    this.stale = true;
    new IntersectionObserver((entries) => this.moved(entries[entries.length - 1].isIntersecting), { rootMargin: "200px" }).observe(this.frame);
  }

  moved(near) {
    this.near = near;
    if (!near || !this.stale) return;
    this.seen = true;
    this.draw();
  }

  /* Other colours: at once where it is in view, else when it comes into view. */
  recolour() {
    if (this.near) this.draw();
    else this.stale = true;
  }

  option(text, f, checked = false) {
    const box = el("input", { type: "checkbox", checked, on: { change: () => f(box.checked) } });
    this.tools.append(el("label", { class: "check" }, box, text));
    return box;
  }

  choice(title, options, f) {
    const select = el("select", { "aria-label": title, on: { change: () => f(select.value) } },
      ...options.map(([value, text]) => option(value, text)));
    this.tools.prepend(select);
    return select;
  }

  /* Waits for plotly once; later drawings are done when this returns. */
  draw() {
    if (!this.seen) return;
    this.stale = false;
    if (window.Plotly) this.drawNow();
    else loadPlotly().then(() => this.drawNow());
  }

  drawNow() {
    const drawing = this.build();
    this.frame.hidden = drawing === null;
    if (drawing === null) return;
    this.note.textContent = drawing.note || "";
    this.plot.setAttribute("aria-label", `${this.heading.textContent}. ${drawing.note || ""}`);
    this.drawLegend(drawing.traces);
    for (const trace of drawing.traces) trace.visible = !this.hidden.has(trace.name);
    this.filename = (drawing.name || this.heading.textContent).replaceAll(/[^\w.-]+/g, "-").slice(0, 120);
    this.clicked = drawing.clicked;
    Plotly.react(this.plot, drawing.traces, drawing.layout, this.settings());
    if (!this.listens) this.plot.on("plotly_click", (event) => this.clicked && this.clicked(event.points[0]));
    this.listens = true;
  }

  /* The camera is plotly's own button, once for each format. */
  settings() {
    return {
      responsive: true, displaylogo: false, displayModeBar: "hover",
      modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
      toImageButtonOptions: { format: "png", scale: 2, filename: this.filename },
      modeBarButtonsToAdd: [{ name: "toSvg", title: "Download plot as svg", icon: Plotly.Icons.disk, click: () => this.image("svg") }],
    };
  }

  image(format) {
    this.seen = true;
    const save = () => Plotly.downloadImage(this.plot, { format, filename: this.filename, scale: format === "png" ? 2 : 1 });
    if (this.listens) return save();
    this.draw();
    return loadPlotly().then(save);
  }

  /* What is drawn: a line a point. */
  numbersAsCsv() {
    const rows = this.build().traces.flatMap((trace) => (trace.hoverinfo === "skip" && !trace.meta ? [] : trace.x.map((x, i) => {
      const bar = trace.error_y || {};
      const end = (side) => (side === undefined ? null : side[i]);
      return { trace: trace.name, x, y: trace.y[i], above: end(bar.array), below: end(bar.arrayminus) };
    })).filter((row) => row.y !== null));
    download(this.filename || this.heading.textContent, ["trace", "x", "y", "above", "below"], rows);
  }

  drawLegend(traces) {
    const named = traces.filter((trace) => trace.meta);
    this.legend.replaceChildren(...named.map((trace) => {
      const button = el("button", { type: "button", "aria-pressed": String(!this.hidden.has(trace.name)), title: isLong(trace.name) ? trace.name : null },
        el("span", { class: "swatch", "aria-hidden": "true", style: `color:${trace.meta.color}` }, trace.meta.mark),
        cut(trace.name));
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
