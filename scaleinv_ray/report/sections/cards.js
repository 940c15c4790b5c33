/* What a verdict says, above the figures it was reached on. */

/* The verdict on the points shown is open, the others are a line that opens. */
function cards(rows, shown) {
  const others = rows.filter((row) => row !== shown).map((row) => el("details", {},
    el("summary", {}, `${comparisonText(row)}: ${verdictText(row)}`), verdictCard(row)));
  if (shown) return [verdictCard(shown), ...others];
  return rows.length ? [el("p", { class: "note" }, "There is no verdict on the step shown."), ...others] : [];
}

function comparisonText(row) {
  return row.step === null ? words(row.comparison) : `${words(row.comparison)}, step ${row.step.toLocaleString("en")}`;
}

function verdictCard(row) {
  const facts = [
    ["Conservation error", amount(row, row.conservation_error)], ["Certified change", amount(row, row.certified_change)],
    ["Margin", amount(row, row.margin)], [hasUnit(row) ? "Slope per ln N" : "Exponent", exponentText(row)], ["Form", words(row.form) || "–"],
    ["Slope p", num(row.slope_p)], ["Heterogeneity p", num(row.heterogeneity_p)], ["Lack of fit p", num(row.lack_of_fit_p)],
    ["q", num(row.q)], ["I²", num(row.I2)], ["Held-out error", amount(row, row.held_out_error, num)],
    ["Naive error", amount(row, row.naive_error, num)],
    ["Estimator's share", percent(row.estimator_share)], ["ρ", num(row.rho)],
  ].filter(([, text]) => text !== "–");
  const counts = [`${row.n_models ?? "–"} models, ${seedsText(row.n_seeds ?? 0)}`, row.n_refused ? refusedText(row) : ""];
  return el("article", { class: "card" },
    el("div", { class: "card-head" }, badge(row.verdict_kind, verdictText(row)), nullBadge(row, "nulls: "),
      row.control ? controlBadge() : null,
      el("span", { class: "faint" }, [comparisonText(row), ...counts.filter(Boolean)].join("; "))),
    meaningOf(row) ? el("p", { class: "defined" }, el("strong", {}, meaningOf(row)), hasUnit(row) ? ` Changes are judged in units of ${num(row.unit)}.` : "") : null,
    row.reason ? el("p", {}, row.reason) : null,
    facts.length ? el("dl", {}, ...facts.map(([name, text]) => el("div", {}, el("dt", {}, name), el("dd", {}, text)))) : null,
    definition(row));
}

/* The definition with its formula and its source, as the invariant states it. */
function definition(row) {
  const known = MEANINGS.get(`${row.invariant}\n${row.quantity}`);
  return known && known.definition ? el("details", {}, el("summary", {}, `Definition and source of ${row.invariant}`), el("pre", { class: "definition" }, known.definition)) : null;
}
