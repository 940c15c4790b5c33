/* A section for each family: what is chosen in it, and its figures. */

class Family {
  constructor(name) {
    this.name = name;
    this.slices = DATA.slices.filter((slice) => slice.family === name);
    this.curves = DATA.curves.filter((curve) => curve.family === name);
    const section = $("family-template").content.cloneNode(true).firstElementChild;
    section.id = `family-${name}`;
    section.setAttribute("aria-labelledby", `title-${name}`);
    Object.assign(section.querySelector("h2"), { id: `title-${name}`, textContent: words(name) });
    this.controls = section.querySelector(".controls");
    this.cards = section.querySelector(".cards");
    this.figures = section.querySelector(".figures");
    this.section = section;
    this.selects = {};
    $("families").append(section);
    this.start();
  }

  start() {
    if (this.slices.length) {
      const names = distinct(this.slices.map((s) => `${s.invariant}\n${s.quantity}`)).map((value) => {
        const [invariant, quantity] = value.split("\n");
        const control = VERDICTS.some((row) => row.control && row.invariant === invariant && row.quantity === quantity);
        return [value, `${local(invariant, this.name)} · ${quantity}${control ? " (control)" : ""}`];
      });
      this.addSelect("quantity", "Quantity", names);
      for (const key of KEY) {
        const values = distinct(this.slices.map((s) => s[key]));
        const first = key === "bin" ? ["all", "early", "middle", "late"] : ["all"];
        const order = [...first.filter((v) => values.includes(v)), ...values.filter((v) => !first.includes(v))];
        this.addSelect(key, KEY_NAMES[key], order.map((v) => [v, v === "all" && key === "bin" ? "whole" : v || "–"]));
      }
      this.addSelect("step", "Step", []);
      this.addFigures();
      this.changed("quantity");
    }
    this.addCurves();
  }

  addSelect(key, title, options) {
    const select = el("select", { "data-key": key, on: { change: () => this.changed(key) } },
      ...options.map(([value, text]) => el("option", { value }, text)));
    this.selects[key] = select;
    this.controls.append(el("label", { class: key === "quantity" ? "grow" : null, hidden: key !== "quantity" && options.length < 2 }, title, select));
  }

  addFigures() {
    this.scale = new Figure(this.figures, "Value against parameters", () => this.buildScale());
    this.logScale = this.scale.option("log value", () => [this.scale, this.track].forEach((figure) => figure && figure.draw()));
    this.numbers = el("details", { class: "numbers", on: { toggle: () => this.fillNumbers() } }, el("summary", {}, "Numbers"));
    this.scale.frame.append(this.numbers);
    const steps = all(this.slices.flatMap((s) => pointsOf(s, "trained").map((p) => p.step)).filter((t) => t !== null));
    if (steps.length > 1) this.track = new Figure(this.figures, "Value over training", () => this.buildTrack());
  }

  /* Choices that exist for the quantity; those made before stay where they can. */
  changed(key) {
    const [invariant, quantity] = this.selects.quantity.value.split("\n");
    let left = this.slices.filter((s) => s.invariant === invariant && s.quantity === quantity);
    for (const name of KEY) {
      const select = this.selects[name];
      const present = new Set(left.map((s) => s[name]));
      for (const option of select.options) option.disabled = !present.has(option.value);
      if (!present.has(select.value)) select.value = [...select.options].find((o) => !o.disabled).value;
      left = left.filter((s) => s[name] === select.value);
    }
    this.slice = left[0];
    if (key !== "step") this.fillSteps();
    this.suggestLogScale(key === "quantity");
    this.update();
    if (key === "quantity" && this.curve) this.preferCurve();
    else if (this.curve) this.curve.draw();
  }

  /* Logarithmic where every value is positive: suggested for claimed power laws, else on request. */
  suggestLogScale(fresh) {
    const positive = Object.keys(this.slice.points).every((v) => pointsOf(this.slice, v).every((p) => p.mean > 0));
    this.logScale.disabled = !positive;
    this.logScale.checked = positive && (fresh ? this.slice.law === "power_law" : this.logScale.checked);
  }

  fillSteps() {
    const points = pointsOf(this.slice, "trained");
    const steps = all(points.map((p) => p.step).filter((t) => t !== null));
    const last = all([...groups(points, (p) => p.n).values()].map((own) => own[own.length - 1].step));
    const options = steps.map((t) => [String(t), t.toLocaleString("en")]);
    if (last.length > 1) options.push(["", "last of each size"]);
    this.selects.step.replaceChildren(...options.map(([value, text]) => el("option", { value }, text)));
    const judged = this.verdicts().filter((v) => v.comparison === "equal_steps").map((v) => v.step).find((t) => steps.includes(t));
    if (options.length) this.selects.step.value = judged === undefined ? options[options.length - 1][0] : String(judged);
    this.selects.step.parentElement.hidden = options.length < 2;
  }

  step() {
    return this.selects.step.value === "" ? null : Number(this.selects.step.value);
  }

  verdicts() {
    return VERDICTS.filter((row) => matches(row, this.slice));
  }

  update() {
    this.cards.replaceChildren(...cards(this.verdicts(), this.shownVerdict()));
    this.scale.draw();
    if (this.track) this.track.draw();
    this.fillNumbers();
  }

  variants() {
    const known = Object.keys(VARIANTS);
    return Object.keys(this.slice.points).sort((a, b) => known.indexOf(a) - known.indexOf(b));
  }

  /* The verdict that was reached on the points shown: at equal steps, at this step. */
  shownVerdict() {
    return this.verdicts().find((v) => v.comparison === "equal_steps" && v.step === this.step()) || null;
  }

  predictions(verdict) {
    const own = PREDICTIONS.filter((p) => p.comparison === "equal_steps" && p.step === verdict.step && matches(p, this.slice));
    const ofForm = own.filter((p) => p.form === verdict.form);
    return ofForm.length ? ofForm : own.filter((p) => p.form === (hasUnit(verdict) ? "log" : "power"));
  }

  /* Points of the variants at the step shown, on the scale on which the verdict rests. */
  shownPoints() {
    const raw = this.variants().map((v) => [v, atStep(pointsOf(this.slice, v), this.step(), v)]);
    const geometric = isGeometric(this.verdicts(), raw.flatMap(([, points]) => points));
    return { geometric, at: new Map(raw.map(([v, points]) => [v, scaled(points, geometric)])) };
  }

  leftOut(step) {
    const lost = this.slice.left_out.filter(([variant, , t]) => step === null || t === step || variant === "random_init");
    const count = sum(lost.map((row) => row[3]));
    return count ? ` ${count} replicates left out: some of their layers, roles or heads have no value.` : "";
  }

  buildScale() {
    const { slice } = this;
    const verdict = this.shownVerdict();
    const { geometric, at } = this.shownPoints();
    const fit = verdict ? fitTrace(verdict, at.get("trained") || []) : [];
    const traces = [
      ...[...at].filter(([, points]) => points.length).map(([variant, points]) => scaleTrace(variant, points)),
      ...fit, ...(verdict ? predictionTraces(this.predictions(verdict)) : []),
    ];
    const sizes = all([...at.values()].flat().map((p) => p.n));
    const where = [slice.probe, siteText(slice.site), slice.bin === "all" ? "" : `${slice.bin} third of the depth`].filter(Boolean);
    const undrawn = verdict && verdict.form && !fit.length ? ` The form (${words(verdict.form)}) is not drawn.` : "";
    return {
      traces,
      layout: layout({
        height: 360, xaxis: sizeAxis(sizes),
        yaxis: axis(safe(slice.quantity), { type: this.logScale.checked ? "log" : "linear" }),
      }),
      note: `${[`Step ${this.selects.step.selectedOptions[0] ? this.selects.step.selectedOptions[0].text : "–"}`, ...where].join(", ")}. `
        + `${barText(geometric)}; one seed has no bar.${this.leftOut(this.step())} `
        + `Law claimed in advance: ${words(slice.law) || "none"}.${undrawn}`,
    };
  }

  buildTrack() {
    const raw = pointsOf(this.slice, "trained").filter((p) => p.step !== null);
    const geometric = isGeometric(this.verdicts(), raw);
    const points = scaled(raw, geometric);
    if (all(points.map((p) => p.step)).length < 2) return null;
    const bySize = [...groups(points, (p) => p.n)].sort(([a], [b]) => a - b);
    const traces = bySize.map(([n, own], i) => trackTrace(n, own, sizeStyle(i, bySize.length)));
    const found = TRANSITIONS.filter((t) => matches(t, this.slice) && t.step !== null);
    const line = (t) => ({
      type: "line", yref: "paper", y0: 0, y1: 1, x0: t.step + 1, x1: t.step + 1,
      line: { color: color("--muted"), width: 1, dash: "dot" },
    });
    return {
      traces,
      layout: layout({
        height: 360, xaxis: stepAxis(points.map((p) => p.step)), shapes: found.map(line),
        yaxis: axis(safe(this.slice.quantity), { type: this.logScale.checked ? "log" : "linear" }),
      }),
      note: `Trained models; axis logarithmic in step + 1. ${barText(geometric)}.`
        + (found.length ? ` Dotted lines: ${found.length} transitions found.` : ""),
    };
  }

  fillNumbers() {
    if (!this.numbers.open) return;
    const { geometric, at } = this.shownPoints();
    const rows = [...at].flatMap(([v, points]) => points
      .map((p) => [VARIANTS[v] ? VARIANTS[v].label : v, parameters(p.n), num(p.value), num(p.spread), p.seeds]));
    const head = ["Variant", "Parameters", ...(geometric ? ["Geometric mean", "SD of ln"] : ["Mean", "SD over seeds"]), "Seeds"];
    const cell = (text, i) => el("td", { class: i ? "number" : null }, String(text));
    const body = rows.map((row) => el("tr", {}, ...row.map(cell)));
    const top = el("tr", {}, ...head.map((text, i) => el("th", { scope: "col", class: i ? "number" : null }, text)));
    this.numbers.replaceChildren(this.numbers.firstElementChild,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers of the figure" },
        el("table", {}, el("thead", {}, top), el("tbody", {}, ...body))));
  }

  /* ---- curves and poles ---- */

  addCurves() {
    const lines = this.curves.filter((c) => c.kind === "line");
    const poles = this.curves.filter((c) => c.kind === "poles");
    if (lines.length) {
      this.curve = new Figure(this.figures, "Curves", () => this.buildCurve());
      this.curveSelect = this.curveChoice(lines, this.curve);
      this.logX = this.curve.option("log x", () => this.curve.draw());
      this.logY = this.curve.option("log y", () => this.curve.draw());
      this.preferCurve();
    }
    if (poles.length) {
      this.pole = new Figure(this.figures, "Poles in the complex plane", () => this.buildPoles());
      this.poleSelect = this.curveChoice(poles, this.pole);
    }
  }

  curveChoice(curves, figure) {
    const names = distinct(curves.map((c) => `${c.invariant}\n${c.curve}`));
    const select = el("select", { "aria-label": "Curve", on: { change: () => { this.suggestLogs(); figure.draw(); } } },
      ...names.map((name) => el("option", { value: name }, `${local(name.split("\n")[0], this.name)} · ${name.split("\n")[1]}`)));
    figure.tools.prepend(select);
    return select;
  }

  /* The first curve of the invariant chosen, where it has one. */
  preferCurve() {
    const invariant = this.slice && this.slice.invariant;
    const own = [...this.curveSelect.options].find((o) => o.value.split("\n")[0] === invariant);
    if (own && this.curveSelect.value.split("\n")[0] !== invariant) this.curveSelect.value = own.value;
    this.suggestLogs();
    this.curve.draw();
  }

  /* The curve whose probe, site and depth agree best with what is chosen above. */
  curveAt(select) {
    const [invariant, curve] = select.value.split("\n");
    const score = (c) => KEY.filter((key) => this.slice && c[key] === this.slice[key]).length + (c.bin === "all" ? 0.5 : 0);
    return this.curves.filter((c) => c.invariant === invariant && c.curve === curve)
      .reduce((best, c) => (score(c) > score(best) ? c : best));
  }

  suggestLogs() {
    if (!this.curve) return;
    const { lines } = this.curveAt(this.curveSelect);
    const wide = (key) => {
      const values = lines.flatMap((line) => line[key]).filter((v) => v !== null);
      return values.length > 0 && Math.min(...values) > 0 && Math.max(...values) > 100 * Math.min(...values);
    };
    this.logX.checked = wide("x");
    this.logY.checked = wide("x") && wide("y"); // both: a power law; y alone may be a tail
  }

  buildCurve() {
    const curve = this.curveAt(this.curveSelect);
    const traces = curve.lines.flatMap((line, i) => curveTraces(line, sizeStyle(i, curve.lines.length)));
    const lost = curve.left_out ? ` ${curve.left_out} sizes left out: their grids share no range.` : "";
    return {
      traces,
      layout: layout({
        height: 360, xaxis: axis("x", { type: this.logX.checked ? "log" : "linear" }),
        yaxis: axis(safe(curve.curve), { type: this.logY.checked ? "log" : "linear" }),
      }),
      note: `${placeText(curve)}${whenText(curve)}; mean over seeds, bands one standard deviation between seeds.${lost}${lostText(curve)}`,
    };
  }

  buildPoles() {
    const curve = this.curveAt(this.poleSelect);
    const traces = curve.lines.map((line, i) => poleTrace(line, sizeStyle(i, curve.lines.length)));
    const [shown, total] = [sum(curve.lines.map((l) => l.x.length)), sum(curve.lines.map((l) => l.total))];
    return {
      traces,
      layout: layout({
        height: 460, xaxis: axis("real part", { automargin: false }),
        yaxis: axis("imaginary part", { automargin: false, scaleanchor: "x" }),
        shapes: [{ type: "circle", x0: -1, y0: -1, x1: 1, y1: 1, line: { color: color("--ink"), width: 1.5, dash: "dash" } }],
      }),
      note: `${placeText(curve)}${whenText(curve)}, all seeds. Dashed: the unit circle.${lostText(curve)}`
        + (shown < total ? ` ${shown.toLocaleString("en")} of ${total.toLocaleString("en")} poles drawn.` : ""),
    };
  }

  has(row) {
    return this.slices.some((s) => s.invariant === row.invariant && s.quantity === row.quantity);
  }

  show(row) {
    if (!this.has(row)) return;
    const wish = { series: row.series || "", probe: row.probe || "", site: row.site || "", bin: row.depth_bin || "all" };
    this.selects.quantity.value = `${row.invariant}\n${row.quantity}`;
    for (const key of KEY) {
      const option = [...this.selects[key].options].find((o) => o.value === wish[key]);
      if (option) this.selects[key].value = option.value;
    }
    this.changed("quantity");
  }

  drawn() {
    return [this.scale, this.track, this.curve, this.pole].filter(Boolean);
  }

  redraw() {
    this.drawn().forEach((figure) => figure.draw());
  }

  /* Paper has no view to come into. */
  showAll() {
    for (const figure of this.drawn()) {
      figure.seen = true;
      figure.draw();
    }
  }
}

const siteText = (site) => (site === "all" ? "all weights of the blocks" : site);
const whenText = (curve) => ["Trained", curve.when].filter(Boolean).join(", ");

function lostText(curve) {
  const count = curve.replicates_left_out;
  return count ? ` ${count} replicates left out: they lack curves that others of their size have.` : "";
}

function placeText(place) {
  const parts = [place.probe, siteText(place.site), place.bin === "all" ? "" : `${place.bin} third of the depth`].filter(Boolean);
  return parts.length ? `${parts.join(", ")}. ` : "";
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
  const band = {
    name, mode: "lines", type: "scatter", hoverinfo: "skip", fill: "toself", fillcolor: clear(style.stroke, 0.16),
    x: [...known, ...known.slice().reverse()].map((i) => line.x[i]), y: [...edge(1), ...edge(-1).reverse()], line: { width: 0 },
  };
  return [band, main];
}

function poleTrace(line, style) {
  const name = parameters(line.n_params);
  return {
    name, meta: { color: style.stroke, mark: style.mark }, mode: "markers", type: "scatter", x: line.x, y: line.y,
    hovertemplate: `${name}: %{x:.3g} + %{y:.3g} i<extra></extra>`,
    marker: { color: style.stroke, size: 6, symbol: style.symbol, opacity: 0.75 },
  };
}

function showSlice(row) {
  const family = SECTIONS.get(row.family);
  if (family) family.show(row);
}

function startFamilies() {
  const names = distinct([...DATA.slices, ...DATA.curves].map((row) => row.family)).sort();
  for (const name of names) SECTIONS.set(name, new Family(name));
  $("contents").replaceChildren(...names.map((name) => el("a", { href: `#family-${name}` }, words(name))));
  if (!names.length) $("families").append(el("p", { class: "note" }, "There are no measurements with a value to draw."));
  themeListeners.push(() => SECTIONS.forEach((family) => family.redraw()));
  $("foot").textContent = DATA.paired
    ? `${DATA.paired.toLocaleString("en")} measurements compare two models; they are not drawn against parameters.` : "";
}

window.addEventListener("beforeprint", () => SECTIONS.forEach((family) => family.showAll()));
startTheme();
startFamilies();
startTable();
