/* A section for each family: what is chosen in it, and its figures. */

const MOST_REASONS = 3;

class Family {
  constructor(name) {
    this.name = name;
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
    const observer = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      observer.disconnect();
      this.ready();
    }, { rootMargin: "400px" });
    observer.observe(section);
  }

  /* Fills the section, once, with what has to be unpacked for it. */
  ready() {
    if (!this.filling) this.filling = loadPoints().then(() => this.start());
    return this.filling;
  }

  start() {
    this.section.querySelector(".waiting").remove();
    this.slices = POINTS.slices.filter((slice) => slice.family === this.name);
    this.curves = POINTS.curves.filter((curve) => curve.family === this.name);
    this.bars = POINTS.bars.filter((code) => code.family === this.name);
    if (this.slices.length) {
      const names = distinct(this.slices.map((s) => `${s.invariant}\n${s.quantity}`)).map((value) => {
        const [invariant, quantity] = value.split("\n");
        const control = VERDICTS.some((row) => row.control && row.invariant === invariant && row.quantity === quantity);
        return [value, `${local(invariant, this.name)} · ${quantity}${control ? " (control)" : ""}`];
      });
      this.addSelect("quantity", "Quantity", names);
      this.selects.quantity.value = this.mostTelling(names.map(([value]) => value));
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
    if (this.bars.length) this.bar = addBars(this, this.bars);
  }

  /* What was found stands first: learned before other findings, these before what is open. */
  mostTelling(values) {
    const rank = (row) => (row.control ? 9 : row.null_kind === "learned" ? 0 : 1) + RANK.indexOf(row.verdict_kind) * 2;
    const best = new Map();
    for (const row of VERDICTS.filter((r) => r.family === this.name && r.depth_bin === "all")) {
      const value = `${row.invariant}\n${row.quantity}`;
      best.set(value, Math.min(rank(row), best.get(value) ?? 99));
    }
    return values.reduce((a, b) => ((best.get(b) ?? 99) < (best.get(a) ?? 99) ? b : a));
  }

  addSelect(key, title, options) {
    const select = el("select", { "data-key": key, on: { change: () => this.changed(key) } },
      ...options.map(([value, text]) => option(value, text)));
    this.selects[key] = select;
    this.controls.append(el("label", { class: key === "quantity" ? "grow" : null, hidden: key !== "quantity" && options.length < 2 }, title, select));
  }

  addFigures() {
    this.scale = new Figure(this.figures, "Value against parameters", () => this.buildScale());
    this.logScale = this.scale.option("log value", () => [this.scale, this.depth, this.track].forEach((figure) => figure && figure.draw()));
    this.numbers = el("details", { class: "numbers", on: { toggle: () => this.fillNumbers() } }, el("summary", {}, "Numbers and their rows"));
    this.scale.frame.append(this.numbers);
    if (POINTS.profiles.some((p) => p.family === this.name)) this.addDepth();
    const steps = all(this.slices.flatMap((s) => pointsOf(s, "trained").map((p) => p.step)).filter((t) => t !== null));
    if (steps.length < 2) return;
    this.track = new Figure(this.figures, "Value over training", () => buildTrack(this));
    this.eachSeed = this.track.option("each seed", () => this.track.draw());
  }

  addDepth() {
    this.depth = new Figure(this.figures, "Value over depth", () => buildDepth(this));
    const present = new Set(POINTS.profiles.filter((p) => p.family === this.name).flatMap((p) => Object.keys(p.points)));
    const nulls = Object.keys(VARIANTS).filter((v) => v !== "trained" && present.has(v));
    if (!nulls.length) return;
    const options = [...nulls.map((v) => [v, `beside ${VARIANTS[v].label}`]), ["", "trained only"]];
    this.depthNull = this.depth.choice("Null beside", options, () => this.depth.draw());
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
    this.selects.step.replaceChildren(...options.map(([value, text]) => option(value, text)));
    const atSteps = this.verdicts().filter((v) => v.comparison === "equal_steps").map((v) => v.step).find((t) => steps.includes(t));
    // without a common step the last option, the last of each size, is what was judged
    if (options.length) this.selects.step.value = atSteps === undefined ? options[options.length - 1][0] : String(atSteps);
    this.selects.step.parentElement.hidden = options.length < 2;
  }

  step() {
    return this.selects.step.value === "" ? null : Number(this.selects.step.value);
  }

  verdicts() {
    return VERDICTS.filter((row) => matches(row, this.slice));
  }

  update() {
    const rows = el("button", { type: "button", class: "quiet", on: { click: () => downloadRows(this.slice) } }, "CSV of its measurements");
    this.cards.replaceChildren(...cards(this.verdicts(), this.shownVerdict()), el("p", { class: "card-tools" }, rows));
    for (const figure of [this.scale, this.depth, this.track]) if (figure) figure.draw();
    this.fillNumbers();
  }

  variants() {
    const known = Object.keys(VARIANTS);
    return Object.keys(this.slice.points).sort((a, b) => known.indexOf(a) - known.indexOf(b));
  }

  /* The verdict that was reached on the points shown: at equal steps, at this step, or of the last of each size. */
  shownVerdict() {
    const main = this.step() === null ? ["equal_steps", "final"] : ["equal_steps"];
    return this.verdicts().find((v) => main.includes(v.comparison) && v.step === this.step()) || null;
  }

  predictions(verdict) {
    const own = POINTS.predictions.filter((p) => p.comparison === verdict.comparison && p.step === verdict.step && matches(p, this.slice));
    const ofForm = own.filter((p) => p.form === verdict.form);
    return ofForm.length ? ofForm : own.filter((p) => p.form === (hasUnit(verdict) ? "log" : "power"));
  }

  /* Points of the variants at the step shown, on the scale on which the verdict rests. */
  shownPoints() {
    const raw = this.variants().map((v) => [v, atStep(pointsOf(this.slice, v), this.step(), v)]);
    const geometric = isGeometric(this.verdicts(), raw.flatMap(([, points]) => points));
    return { geometric, at: new Map(raw.map(([v, points]) => [v, scaled(points, geometric)])) };
  }

  /* What does not count at the step: who, at which sizes, and why; the same of several variants once. */
  leftOut() {
    const step = this.step();
    const lost = this.slice.left_out.filter(([variant, , t]) => step === null || t === step || variant === "random_init");
    const own = [...groups(lost, ([variant, , , reason]) => `${variant}\n${reason}`).values()].map((rows) => ({
      variant: rows[0][0], reason: rows[0][3], replicates: sum(rows.map((row) => row[4])),
      sizes: all(rows.map((row) => row[1])).map(parameters).join(", "),
    }));
    const order = this.variants();
    own.sort((a, b) => order.indexOf(a.variant) - order.indexOf(b.variant) || b.replicates - a.replicates);
    return [...groups(own, (of) => `${of.sizes}\n${of.reason}`).values()].map((same) => {
      const who = same.map((of) => `${of.replicates} ${variantLabel(of.variant)}`).join(", ");
      return { who: `${who} at ${same[0].sizes}`, reason: same[0].reason };
    });
  }

  leftOutText() {
    const lost = this.leftOut();
    const said = lost.slice(0, MOST_REASONS).map((of) => `${of.who} (${cut(of.reason)})`);
    const more = lost.length > MOST_REASONS ? [`${lost.length - MOST_REASONS} more below`] : [];
    return said.length ? ` Not counted: ${[...said, ...more].join("; ")}.` : "";
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
      traces, name: `${slice.quantity}-over-parameters`, clicked: (point) => point.customdata && this.openRows(...point.customdata),
      layout: layout({
        height: 360, xaxis: sizeAxis(sizes),
        yaxis: axis(valueLabel(slice), { type: this.logScale.checked ? "log" : "linear" }),
      }),
      note: `${[`Step ${this.selects.step.selectedOptions[0] ? this.selects.step.selectedOptions[0].text : "–"}`, ...where].join(", ")}. `
        + `${barText(geometric)}; one seed has no bar.${this.leftOutText()} `
        + `Law claimed in advance: ${words(slice.law) || "none"}.${undrawn}`,
    };
  }

  fillNumbers() {
    if (!this.numbers.open) return;
    const { geometric, at } = this.shownPoints();
    const head = ["Variant", "Parameters", ...(geometric ? ["Geometric mean", "SD of ln"] : ["Mean", "SD over seeds"]), "Seeds", "Rows"];
    const label = variantLabel;
    const cells = ([v, p]) => [label(v), parameters(p.n), num(p.value), num(p.spread), String(p.seeds),
      el("button", { type: "button", class: "link", on: { click: () => this.openRows(v, p.n, p.step) } }, "show",
        el("span", { class: "hidden" }, ` the measurements of ${label(v)}, ${parameters(p.n)}`))];
    const body = [...at].flatMap(([v, points]) => points.map((p) => [v, p]))
      .map((row) => el("tr", {}, ...cells(row).map((cell, i) => named(cell, "td", { class: i ? "number" : null }))));
    const top = el("tr", {}, ...head.map((text, i) => el("th", { scope: "col", class: i ? "number" : null }, text)));
    this.numbers.replaceChildren(this.numbers.firstElementChild,
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Numbers of the figure" },
        el("table", {}, el("thead", {}, top), el("tbody", {}, ...body))),
      ...this.leftOut().map((of) => el("p", { class: "note" }, `Not counted: ${of.who}: ${of.reason}`)));
  }

  /* The measurements that a point is the mean of. */
  openRows(variant, n, step) {
    const place = [variantLabel(variant), parameters(n), step === null ? "" : `step ${count(step)}`, placeText(this.slice)].filter(Boolean);
    return showRows(this.slice, { variant, n_params: n, step }, `${this.slice.quantity}: ${place.join(", ")}`);
  }

  /* ---- curves and poles ---- */

  addCurves() {
    const lines = this.curves.filter((c) => c.kind === "line");
    const poles = this.curves.filter((c) => c.kind === "poles");
    if (lines.length) {
      this.curve = new Figure(this.figures, "Curves over sizes", () => buildCurve(this));
      this.curveSelect = this.curveChoice(lines, this.curve);
      this.logX = this.curve.option("log x", () => this.curve.draw());
      this.logY = this.curve.option("log y", () => this.curve.draw());
      this.collapse = this.curve.option("collapsed", () => this.curve.draw());
      this.preferCurve();
    }
    if (poles.length) {
      this.pole = new Figure(this.figures, "Poles in the complex plane", () => buildPoles(this.curveAt(this.poleSelect)));
      this.poleSelect = this.curveChoice(poles, this.pole);
    }
  }

  curveChoice(curves, figure) {
    const names = distinct(curves.map((c) => `${c.invariant}\n${c.curve}`));
    const select = el("select", { "aria-label": "Curve", on: { change: () => { this.suggestLogs(); figure.draw(); } } },
      ...names.map((name) => option(name, `${local(name.split("\n")[0], this.name)} · ${name.split("\n")[1]}`)));
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

  show(row) {
    const wish = { series: row.series || "", probe: row.probe || "", site: row.site || "", bin: row.depth_bin || "all" };
    this.selects.quantity.value = `${row.invariant}\n${row.quantity}`;
    for (const key of KEY) {
      const option = [...this.selects[key].options].find((o) => o.value === wish[key]);
      if (option) this.selects[key].value = option.value;
    }
    this.changed("quantity");
  }
}
