/* Barcodes: a bar a class, by homology dimension; smallest beside largest, trained above untrained. */

const DIMENSIONS = [
  { color: "--trained", mark: "▬" }, { color: "--random", mark: "▬" }, { color: "--weights", mark: "▬" }, { color: "--tokens", mark: "▬" },
];

function panelsOf(code, bin, nullVariant) {
  const panels = code.panels.filter((p) => p.bin === bin);
  const sizes = all(panels.map((p) => p.n_params));
  return ["trained", nullVariant].filter(Boolean).flatMap((variant, row) => sizes
    .map((n, column) => ({ row, column, panel: panels.find((p) => p.variant === variant && p.n_params === n) })).filter((cell) => cell.panel));
}

const longest = (panel) => Math.max(...panel.bars.flatMap((own) => [...own.birth, ...own.death.filter((d) => d !== null)]), 0) || 1;

/* One trace a panel and dimension: bars are segments, stacked by dimension and birth. */
function barTraces({ row, column, panel }, relative, end) {
  const unit = relative ? longest(panel) : 1;
  const suffix = row * 2 + column ? String(row * 2 + column + 1) : "";
  let height = 0;
  return panel.bars.map((own) => {
    const style = DIMENSIONS[own.dimension % DIMENSIONS.length];
    const stroke = color(style.color);
    const [x, y] = [[], []];
    own.birth.forEach((birth, i) => {
      height += 1;
      const death = own.death[i] === null ? end : own.death[i] / unit;
      x.push(birth / unit, death, null);
      y.push(height, height, null);
    });
    return {
      name: `H${own.dimension}`, type: "scatter", mode: "lines", x, y, xaxis: `x${suffix}`, yaxis: `y${suffix}`,
      meta: row || column ? undefined : { color: stroke, mark: style.mark }, line: { color: stroke, width: 1.6 },
      hovertemplate: `H${own.dimension}, at %{x:.3g}<extra></extra>`,
    };
  });
}

function panelTitle({ row, column, panel }, rows, columns) {
  const label = variantLabel(panel.variant);
  const left = columns > 1 ? column * 0.53 : 0;
  return {
    text: `${label}, ${parameters(panel.n_params)}`, showarrow: false, xref: "paper", yref: "paper", xanchor: "left", yanchor: "bottom",
    x: left, y: rows > 1 ? [1, 0.43][row] : 1, font: { size: 12, color: color("--ink") },
  };
}

function buildBars(code, bin, nullVariant, relative) {
  const cells = panelsOf(code, bin, nullVariant);
  if (!cells.length) return null;
  const ends = cells.map((cell) => longest(cell.panel));
  const end = 1.04 * (relative ? 1 : Math.max(...ends));
  const [rows, columns] = [distinct(cells.map((c) => c.row)).length, distinct(cells.map((c) => c.column)).length];
  const axes = {};
  cells.forEach(({ row, column, panel }) => {
    const suffix = row * 2 + column ? String(row * 2 + column + 1) : "";
    const shown = sum(panel.bars.map((own) => own.birth.length));
    const domain = rows > 1 ? [[0.57, 1], [0, 0.43]][row] : [0, 1];
    axes[`xaxis${suffix}`] = axis(row === rows - 1 ? (relative ? "distance / largest death" : "distance") : "", {
      domain: columns > 1 ? [[0, 0.47], [0.53, 1]][column] : [0, 1], anchor: `y${suffix}`, range: [0, end],
    });
    axes[`yaxis${suffix}`] = axis("", { domain, anchor: `x${suffix}`, range: [0, shown + 1], showticklabels: false, ticks: "" });
  });
  const cut = sum(cells.map((c) => sum(c.panel.bars.map((own) => own.total - own.birth.length))));
  const first = cells[0].panel;
  return {
    name: `barcode-${code.diagram}`,
    traces: cells.flatMap((cell) => barTraces(cell, relative, end)),
    layout: layout({
      height: rows > 1 ? 560 : 360, margin: { l: 20, r: 14, t: 24, b: 48 }, ...axes,
      annotations: cells.map((cell) => panelTitle(cell, rows, columns)),
    }),
    note: `Persistence diagram ${code.diagram}, ${[code.probe, code.site].filter(Boolean).join(", ")}${code.when ? `, ${code.when}` : ""}; `
      + `one diagram each, of one seed${first.layer === null ? "" : `, layer ${distinct(cells.map((c) => c.panel.layer)).join(" and ")}`}. `
      + `Bars that reach the right edge never die.${cut ? ` ${count(cut)} shorter bars are not drawn.` : ""}`,
  };
}

function addBars(family, codes) {
  const key = (code) => ["invariant", "diagram", "series", "probe", "site"].map((name) => code[name]).join("\n");
  const current = () => codes.find((code) => key(code) === chosen.value);
  const figure = new Figure(family.figures, "Barcodes", () => buildBars(current(), bin.value, untrained.value, relative.checked));
  const relative = figure.option("relative to the largest death", () => figure.draw());
  const nulls = distinct(codes.flatMap((code) => code.panels.map((p) => p.variant))).filter((v) => v !== "trained");
  const order = Object.keys(VARIANTS).filter((v) => nulls.includes(v));
  const untrained = figure.choice("Beside", [...order.map((v) => [v, `beside ${VARIANTS[v].label}`]), ["", "trained only"]], () => figure.draw());
  const bins = ["", "early", "middle", "late"].filter((b) => codes.some((code) => code.panels.some((p) => p.bin === b)));
  const bin = figure.choice("Depth of the barcode", bins.map((b) => [b, b || "no depth"]), () => figure.draw());
  bin.value = bins[bins.length - 1];
  const name = (code) => [local(code.invariant, family.name), code.diagram, code.series, code.probe, code.site].filter(Boolean).join(" · ");
  const chosen = figure.choice("Diagram", codes.map((code) => [key(code), name(code)]), () => figure.draw());
  return figure;
}
