/* Tables that no figure draws: every column, what it says, a hundred rows first. */

const SHOWN_ENTRIES = 4;

/* A list by its first entries, whole in its title. */
function listCell(values) {
  const all_ = values.map((v) => (typeof v === "number" ? num(v) : v)).join(", ");
  const first = values.slice(0, SHOWN_ENTRIES).map((v) => (typeof v === "number" ? num(v) : cut(v))).join(", ");
  return values.length > SHOWN_ENTRIES ? el("span", { title: all_ }, `${first}, … (${count(values.length)})`) : named(all_);
}

function plainCell(value) {
  if (value === null || value === "" || (Array.isArray(value) && !value.length)) return "–";
  if (Array.isArray(value)) return listCell(value);
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value !== "number") return breakable(value);
  return Number.isInteger(value) ? count(value).replace("-", "−") : num(value);
}

function plainColumn(name, says, rows) {
  const number = rows.some((r) => typeof r[name] === "number");
  const value = (r) => (Array.isArray(r[name]) ? r[name].join(" ") : r[name]);
  if (name === "reason") return { ...REASON, says };
  return { head: words(name), says, value, cell: (r) => plainCell(r[name]), number };
}

/* What all rows have in common is said once above them. */
const isAlike = (rows, name) => rows.length > 1 && rows.every((r) => String(r[name]) === String(rows[0][name]));

async function startPlainTable(section) {
  const name = section.dataset.table;
  const table = await tableOf(name);
  const rows = records(table);
  const body = $(`${section.id}-body`);
  if (!rows.length) {
    body.replaceChildren(missing(`The table of ${words(name)} of this run is empty.`));
    return;
  }
  const names = Object.keys(table.columns);
  const [alike, differ] = [names.filter((n) => isAlike(rows, n)), names.filter((n) => !isAlike(rows, n))];
  const shown = new DataTable({
    name: section.querySelector("h2").textContent, limit: 100, csv: names, open: null, columns: differ.map((n) => plainColumn(n, table.meanings[n], rows)),
  });
  const help = el("details", { class: "help" }, el("summary", {}, "What the columns say"),
    el("dl", {}, ...names.flatMap((n) => [el("dt", {}, words(n)), el("dd", {}, table.meanings[n])])));
  const common = alike.flatMap((n, i) => [i ? "; " : "In all rows: ", `${words(n)} `, plainCell(rows[0][n])]);
  body.replaceChildren(...(alike.length ? [el("p", { class: "note" }, ...common)] : []), shown.frame, help);
  shown.show(rows);
}
