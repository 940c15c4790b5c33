/* The circuit as a graph: writers below, readers above, as many edges as the slider says. */

/* Layers from below: embedding, then heads and MLP of each block, logits on top. */
function levelOf(name, layers) {
  if (name === "embed") return 0;
  if (name === "logits") return 2 * layers + 1;
  const layer = Number(name.slice(1).split(".")[0]);
  return 1 + 2 * layer + (name[0] === "m" ? 1 : 0);
}

const readerNode = (reader) => ("qkv".includes(reader[0]) ? `h${reader.slice(1)}` : reader);

function edgesOf(model) {
  const exact = new Map(model.edges.map((edge) => [edge.name, edge]));
  return model.scored_edges.map(({ name, estimate }) => {
    const [writer, reader] = name.split("->");
    const known = exact.get(name);
    const differs = known && Math.abs(known.effect - estimate) > Math.max(0.5 * Math.abs(known.effect), 2 * (known.stderr || 0));
    return { name, writer, reader: readerNode(reader), role: reader, value: known ? known.effect : estimate, estimate, known, differs };
  }).sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
}

const STEP = 84;

function placed(nodes, layers, width) {
  const levels = groups([...nodes], (name) => levelOf(name, layers));
  const shown = [...levels.keys()].sort((a, b) => a - b);
  const height = shown.length * STEP;
  const at = new Map();
  shown.forEach((level, i) => {
    const row = levels.get(level).sort((a, b) => Number(a.split(".")[1] || 0) - Number(b.split(".")[1] || 0));
    row.forEach((name, j) => at.set(name, [width * (j + 1) / (row.length + 1), height - STEP / 2 - i * STEP]));
  });
  return { at, height };
}

function graphDrawing(model, edges, count) {
  const kept = edges.slice(0, count);
  const nodes = new Set(["embed", "logits", ...kept.flatMap((e) => [e.writer, e.reader])]);
  const most = Math.max(...edges.slice(0, 1).map((e) => Math.abs(e.value)), 1e-12);
  return (width) => {
    const { at, height } = placed(nodes, model.n_layers, width);
    const seen = new Map();
    const lines = kept.map((e) => {
      const [x, y] = at.get(e.writer), [u, v] = at.get(e.reader);
      const pair = `${e.writer} ${e.reader}`, nth = seen.get(pair) || 0;
      seen.set(pair, nth + 1);
      const over = Math.max(0, Math.round((y - v) / STEP) - 1);  // levels that it passes by
      const side = Math.abs(x - u) > 40 ? Math.sign(u - x) : nth % 2 ? -1 : 1;
      const bend = side * (over ? 46 + 12 * over : 4) + (nth % 2 ? -1 : 1) * (nth ? 8 + 14 * nth : 0);
      const d = `M${x} ${y - 13}C${x + bend} ${(y + v) / 2} ${u + bend} ${(y + v) / 2} ${u} ${v + 13}`;
      const text = `${e.name.replace("->", " → ")}: ${e.known ? `${plusMinus(e.value, e.known.stderr)} exact, ${num(e.estimate)} estimated` : `${num(e.value)} estimated`}`;
      return hover(s("path", { class: "edge", d, stroke: signColour(e.value), "stroke-opacity": 0.75, "stroke-dasharray": e.differs ? "6 5" : null,
        "stroke-width": Math.max(0.8, 9 * Math.abs(e.value) / most) }), text);
    });
    /* letters of what is read, in the order of the writers from left to right, below the head */
    const roles = [...groups(kept.filter((e) => e.role !== e.reader), (e) => e.reader)].map(([name, to]) => {
      const [u, v] = at.get(name);
      return label(u + 10 + 3.7 * name.length, v + 22, distinct(to.map((e) => e.role[0])).sort().join(" "), "start");
    });
    const boxes = [...nodes].flatMap((name) => {
      const [x, y] = at.get(name), w = 16 + 7.4 * name.length;
      return [s("rect", { class: "node", x: x - w / 2, y: y - 13, width: w, height: 26, rx: 6 }), label(x, y + 4, name, "middle", { class: "ink" })];
    });
    return drawing(width, height, `circuit of ${nameOf(model)} with ${count} edges`, ...lines, ...roles, ...boxes);
  };
}

SECTIONS.push(["graph", "Circuit", "Edges that carry most: what a query, key or value (q, k, v), an MLP or the logits read of what was written below.", () =>
  CIRCUITS.filter((m) => m.scored_edges.length).map((m) => {
    const edges = edgesOf(m);
    let count = Math.min(edges.length, Math.max(5, m.edges.filter((e) => Math.abs(e.effect) >= 0.05 * Math.abs(m.edges[0].effect)).length));
    const said = el("output", {}), most = Math.min(edges.length, 100);
    const input = el("input", { type: "range", min: 1, max: most, value: count, "aria-label": "edges shown" });
    const node = figure(titled(m, "circuit"), (width) => graphDrawing(m, edges, count)(width),
      "Width is the size of the effect, exact for the largest edges, else estimated (EAP-IG). Dashed: estimate and exact effect disagree by more than half.",
      { wide: true, above: el("div", { class: "slider" }, input, said), keys: [["lowers the metric when corrupted", "var(--trained)"], ["raises it", "var(--random)"]] });
    const show = () => { count = Number(input.value); said.textContent = `${count} of ${m.num_edges} edges`; node.redraw(); };
    input.addEventListener("input", show);
    said.textContent = `${count} of ${m.num_edges} edges`;
    return node;
  })]);
