/* Curves over sizes, with their collapse, and poles in the complex plane. */

const whenText = (curve) => ["Trained", curve.when].filter(Boolean).join(", ");

function lostText(curve) {
  const lost = curve.replicates_left_out;
  return lost ? ` ${lost} replicate${lost === 1 ? "" : "s"} left out for want of curves that others of the size have.` : "";
}

function curveTraces(line, style) {
  const name = parameters(line.n_params);
  const main = {
    name, meta: { color: style.stroke, mark: style.mark }, mode: "lines", type: "scatter", x: line.x, y: line.y,
    line: { color: style.stroke, width: 1.8, dash: style.dash },
    hovertemplate: `${name}: %{y:.3g} at %{x:.3g} (${seedsText(line.seeds)})<extra></extra>`,
  };
  const known = line.x.map((_, i) => i).filter((i) => line.sd[i] !== null);
  if (!known.length) return [main];
  const edge = (sign) => known.map((i) => line.y[i] + sign * line.sd[i]);
  return [bandTrace(name, known.map((i) => line.x[i]), edge(-1), edge(1), style.stroke), main];
}

/* A curve in the variables of its collapse: x N^-a, y N^-b, sizes relative to their geometric mean. */
function collapsed(line, found, centre) {
  const ln = Math.log(line.n_params) - centre;
  const [sx, sy] = [Math.exp(-(found.exponent_x || 0) * ln), Math.exp(-(found.exponent_y || 0) * ln)];
  const times = (values, s) => values.map((v) => (v === null ? null : v * s));
  return { ...line, x: times(line.x, sx), y: times(line.y, sy), sd: times(line.sd, sy) };
}

function collapseOf(curve) {
  return POINTS.collapses.find((c) => c.variant === "trained" && c.family === curve.family && c.invariant === curve.invariant
    && c.curve === curve.curve && (c.series || "") === curve.series && (c.probe || "") === curve.probe && (c.site || "") === curve.site
    && (c.depth_bin || "all") === curve.bin) || null;
}

function collapseText(found) {
  if (!found) return POINTS.hasCollapses ? " No collapse was sought for it." : "";
  if (found.S === null) return ` No quality of collapse: ${found.reason || "too few seeds"}.`;
  const better = found.S_rescaled === null ? ""
    : `, ${num(found.S_rescaled)} with x N^${num(found.exponent_x ? -found.exponent_x : 0)}, y N^${num(found.exponent_y ? -found.exponent_y : 0)}`;
  const ratio = found.supercollapse === null ? "" : `; spread between sizes over noise of seeds ${num(found.supercollapse)}`;
  return ` Quality of collapse S = ${num(found.S)} as measured${better} (about 1: sizes agree within their errors)${ratio}.`;
}

/* What stands on the axes of a curve; its name where its invariant does not say. */
function axesOf(curve) {
  const found = POINTS.axes.find((of) => of.invariant === curve.invariant && of.curve === curve.curve);
  return found || { x: "x", y: words(curve.curve) };
}

function buildCurve(family) {
  const curve = family.curveAt(family.curveSelect);
  const found = collapseOf(curve);
  const rescaled = found !== null && found.exponent_x !== null && found.exponent_y !== null;
  family.collapse.parentElement.hidden = !rescaled;
  const moved = rescaled && family.collapse.checked;
  const centre = sum(curve.lines.map((l) => Math.log(l.n_params))) / (curve.lines.length || 1);
  const lines = moved ? curve.lines.map((line) => collapsed(line, found, centre)) : curve.lines;
  const lost = curve.left_out ? ` ${curve.left_out} sizes left out: their grids share no range.` : "";
  const place = placeText(curve);
  const said = axesOf(curve);
  const over = (text, exponent) => safe(moved ? `${text} · (N / N₀)^${num(-exponent)}` : text);
  return {
    name: curve.curve,
    traces: lines.flatMap((line, i) => curveTraces(line, sizeStyle(i, lines.length))),
    layout: layout({
      height: 360, xaxis: axis(over(said.x, found && found.exponent_x), { type: family.logX.checked ? "log" : "linear" }),
      yaxis: axis(over(said.y, found && found.exponent_y), { type: family.logY.checked ? "log" : "linear" }),
    }),
    note: `${place ? `${place}. ` : ""}${whenText(curve)}; mean over seeds, bands one standard deviation between seeds.${lost}${lostText(curve)}${collapseText(found)}`,
  };
}

function poleTrace(line, style) {
  const name = parameters(line.n_params);
  return {
    name, meta: { color: style.stroke, mark: style.mark }, mode: "markers", type: "scatter", x: line.x, y: line.y,
    hovertemplate: `${name}: %{x:.3g} + %{y:.3g} i<extra></extra>`,
    marker: { color: style.stroke, size: 6, symbol: style.symbol, opacity: 0.75 },
  };
}

function buildPoles(curve) {
  const traces = curve.lines.map((line, i) => poleTrace(line, sizeStyle(i, curve.lines.length)));
  const [shown, total] = [sum(curve.lines.map((l) => l.x.length)), sum(curve.lines.map((l) => l.total))];
  const place = placeText(curve);
  return {
    traces, name: curve.curve,
    layout: layout({
      height: 460, xaxis: axis("real part", { automargin: false }),
      yaxis: axis("imaginary part", { automargin: false, scaleanchor: "x" }),
      shapes: [{ type: "circle", x0: -1, y0: -1, x1: 1, y1: 1, line: { color: color("--ink"), width: 1.5, dash: "dash" } }],
    }),
    note: `${place ? `${place}. ` : ""}${whenText(curve)}, all seeds. Dashed: the unit circle.${lostText(curve)}`
      + (shown < total ? ` ${count(shown)} of ${count(total)} poles drawn.` : ""),
  };
}
