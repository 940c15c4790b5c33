/* SVG by hand: scales, axes, lines and bands, as wide as their figure is. */

const CIRCUITS = DATA.circuits;
const SVG = "http://www.w3.org/2000/svg";
const SIZES = ["--size-1", "--size-3", "--size-4", "--size-5", "--size-2"];
const signColour = (value) => (value < 0 ? "var(--trained)" : "var(--random)");
const modelColour = (n) => (CIRCUITS.length === 1 ? "var(--trained)" : `var(${SIZES[n % SIZES.length]})`);
const nameOf = (model) => model.model;

function s(tag, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const label = (x, y, text, anchor = "middle", more = {}) => s("text", { x, y, "text-anchor": anchor, ...more }, text);
const hover = (node, text) => { node.append(s("title", {}, text)); return node; };
const plusMinus = (value, stderr) => `${num(value)}${stderr === null || stderr === undefined ? "" : ` ± ${num(stderr, 2)}`}`;

/* A figure whose drawing is made again when its width changes. */
function figure(title, draw, caption, { wide = false, keys = [], above = null } = {}) {
  const place = el("div", { class: "place" });
  const list = keys.map(([name, colour, dash]) => el("li", {}, el("i", { style: `border-color: ${colour}; border-top-style: ${dash || "solid"}` }), name));
  const node = el("figure", { class: wide ? "wide" : null }, el("h3", {}, title), above, place,
    keys.length ? el("ul", { class: "keys" }, ...list) : null, el("figcaption", {}, caption));
  let drawn = 0;
  const again = () => {
    const width = Math.floor(place.clientWidth);
    if (!width || width === drawn) return;
    drawn = width;
    place.replaceChildren(draw(width));
  };
  new ResizeObserver(again).observe(place);
  node.redraw = () => { drawn = 0; again(); };
  return node;
}

const drawing = (width, height, title, ...children) =>
  s("svg", { class: "drawing", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": title }, ...children);

function ticks(low, high, most = 5) {
  const raw = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((f) => f * power >= raw) * power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) found.push(Number((k * step).toPrecision(6)));
  return found;
}

const tick = (value) => (Math.abs(value) >= 1e5 ? num(value) : String(Number(value.toPrecision(3))).replace(/^-/, "−"));

/* x and y from numbers to pixels; logX for shares of edges and steps. */
function frame(width, height, { x: [x0, x1], y: [y0, y1], logX = false, xName, yName, xTicks = null, xText = tick }) {
  const left = 48, right = 14, top = 28, bottom = 40;
  const f = (v) => (logX ? Math.log10(v) : v);
  const span = f(x1) - f(x0) || 1;
  const px = (v) => left + ((f(v) - f(x0)) / span) * (width - left - right);
  const py = (v) => top + ((y1 - v) / (y1 - y0 || 1)) * (height - top - bottom);
  const parts = [];
  for (const t of ticks(y0, y1)) {
    parts.push(s("line", { class: "grid", x1: left, x2: width - right, y1: py(t), y2: py(t) }), label(left - 6, py(t) + 4, tick(t), "end"));
  }
  const decades = () => Array.from({ length: Math.floor(Math.log10(x1) + 1e-9) - Math.ceil(Math.log10(x0) - 1e-9) + 1 }, (_, i) => 10 ** (Math.ceil(Math.log10(x0) - 1e-9) + i));
  for (const t of xTicks || (logX ? decades() : ticks(x0, x1, width < 420 ? 4 : 7))) parts.push(label(px(t), height - bottom + 17, xText(t)));
  parts.push(s("line", { class: "axis", x1: left, x2: width - right, y1: py(y0), y2: py(y0) }),
    label((left + width - right) / 2, height - 4, xName), label(2, 10, yName, "start"));
  return { px, py, parts };
}

function path(f, xs, ys, attributes) {
  const points = xs.map((x, i) => [x, ys[i]]).filter(([, y]) => y !== null && y !== undefined).map(([x, y]) => `${f.px(x).toFixed(1)} ${f.py(y).toFixed(1)}`);
  return s("path", { class: "line", d: `M${points.join("L")}`, ...attributes });
}

function dots(f, xs, ys, colour, say, errors = []) {
  return s("g", {}, ...xs.flatMap((x, i) => {
    if (ys[i] === null || ys[i] === undefined) return [];
    const bar = errors[i] ? s("line", { x1: f.px(x), x2: f.px(x), y1: f.py(ys[i] - errors[i]), y2: f.py(ys[i] + errors[i]), stroke: colour }) : null;
    return [bar, hover(s("circle", { cx: f.px(x), cy: f.py(ys[i]), r: 3.2, fill: colour }), say(i))].filter(Boolean);
  }));
}

function band(f, xs, low, high, colour) {
  const there = xs.map((x, i) => `${f.px(x).toFixed(1)} ${f.py(high[i]).toFixed(1)}`);
  const back = xs.map((x, i) => `${f.px(x).toFixed(1)} ${f.py(low[i]).toFixed(1)}`).reverse();
  return s("path", { class: "band", d: `M${[...there, ...back].join("L")}Z`, fill: colour });
}

/* Bars to the right and left of zero, a name before each. */
function bars(width, rows, title, colour = signColour) {
  const most = Math.max(...rows.map((r) => Math.abs(r.value)), 1e-12);
  const left = Math.min(150, 14 + 7.2 * Math.max(...rows.map((r) => r.name.length))), right = 118, high = 19;
  const seen = rows.filter((r) => Math.abs(r.value) > 0.01 * most);
  const any = seen.some((r) => r.value < 0), both = any && seen.some((r) => r.value > 0);
  const room = width - left - right, zero = left + (both ? room / 2 : any ? room : 0), scale = (both ? room / 2 : room) / most;
  return drawing(width, rows.length * high + 6, title, ...rows.flatMap((r, i) => {
    const y = i * high + 4, size = Math.abs(r.value) * scale;
    return [label(left - 6, y + 12, r.name, "end", { class: "ink" }),
      s("rect", { x: r.value < 0 ? zero - size : zero, y, width: Math.max(size, 0.5), height: high - 6, fill: colour(r.value), rx: 2 }),
      label(width - 2, y + 12, Math.abs(r.value) < 1e-4 * most ? "≈ 0" : plusMinus(r.value, r.stderr), "end")];
  }));
}

const finite = (values) => values.filter((v) => v !== null && v !== undefined && Number.isFinite(v));
const range = (values, zero = true) => {
  const of = finite(values), low = Math.min(...of, zero ? 0 : Infinity), high = Math.max(...of, zero ? 0 : -Infinity);
  return low === high ? [low - 1, high + 1] : [low, high];
};

function table(heads, rows, numbers = []) {
  return el("div", { class: "scroll", tabindex: 0 }, el("table", {},
    el("thead", {}, el("tr", {}, ...heads.map((h, i) => el("th", { scope: "col", class: numbers.includes(i) ? "number" : null }, h)))),
    el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) => el("td", { class: numbers.includes(i) ? "number" : null }, cell)))))));
}
