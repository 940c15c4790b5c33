/* A table of any rows: sorts, is one stop of the tab key, gives itself as CSV. */

/* columns: { head, value, cell?, number?, says? }; open(row): what Enter and a click on a row do. */
class DataTable {
  constructor({ name, columns, csv, open, limit = 50, descending = false, sort = null }) {
    Object.assign(this, { name, columns, csv, open, limit, descending, sort, all: false, rows: [] });
    this.body = el("tbody");
    const heads = columns.map((column, i) => el("th", { scope: "col", class: column.number ? "number" : null, "aria-sort": "none" },
      el("button", { type: "button", title: column.says || null, on: { click: () => this.sortBy(i) } }, column.head)));
    this.heads = heads;
    this.count = el("p", { class: "status", role: "status" });
    this.more = el("p");
    const save = el("button", { type: "button", class: "quiet csv", on: { click: () => download(name, csv, this.ordered()) } }, "Download CSV");
    this.frame = el("div", { class: "data-table" }, el("div", { class: "heading" }, this.count, save),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name },
        el("table", { class: "sortable" }, el("caption", { class: "hidden" }, name), el("thead", {}, el("tr", {}, ...heads)), this.body)),
      this.more);
    rowKeys(this.body, (row) => open && open(this.shown[row.sectionRowIndex], row));
    if (open) this.body.addEventListener("click", (event) => this.clicked(event));
    this.body.classList.toggle("opens", Boolean(open));
  }

  clicked(event) {
    const row = event.target.closest("tr");
    if (row && !event.target.closest("a, button")) this.open(this.shown[row.sectionRowIndex], row);
  }

  show(rows) {
    this.rows = rows;
    this.all = false;
    this.draw();
  }

  sortBy(i) {
    this.descending = this.sort === i && !this.descending;
    this.sort = i;
    this.draw();
  }

  ordered() {
    if (this.sort === null) return this.rows;
    return sorted(this.rows, this.columns[this.sort].value, this.descending);
  }

  draw() {
    const rows = this.ordered();
    this.shown = this.all ? rows : rows.slice(0, this.limit);
    this.body.replaceChildren(...this.shown.map((row, i) => el("tr", { tabindex: i ? "-1" : "0" },
      ...this.columns.map((column) => el("td", { class: column.number ? "number" : null }, this.content(column, row))))));
    this.heads.forEach((head, i) => {
      head.setAttribute("aria-sort", i !== this.sort ? "none" : this.descending ? "descending" : "ascending");
    });
    this.count.textContent = `${count(this.shown.length)} of ${count(rows.length)} rows`;
    const hidden = rows.length - this.shown.length;
    const showAll = () => {
      this.all = true;
      this.draw();
      focusRow(this.body.rows[this.limit]);
    };
    this.more.replaceChildren(...(hidden ? [el("button", { type: "button", on: { click: showAll } }, `Show ${count(hidden)} more`)] : []));
  }

  content(column, row) {
    if (column.cell) return column.cell(row);
    const value = column.value(row);
    if (column.number) return num(value);
    return value === null || value === undefined || value === "" ? "–" : named(String(value));
  }
}

/* By a key; what has none is last in both orders. */
function sorted(rows, value, descending) {
  const missing = (v) => v === null || v === undefined || v === "" || Number.isNaN(v);
  return rows.slice().sort((r, s) => {
    const [a, b] = [value(r), value(s)];
    if (missing(a) || missing(b)) return missing(a) - missing(b);
    return descending ? compare(b, a) : compare(a, b);
  });
}

/* Links to the family section of a row, where it draws that quantity. */
function goTo(row) {
  if (!isDrawn(row)) return;
  showSlice(row).then(() => $(`family-${row.family}`).scrollIntoView());
}

function chooser(title, options, change) {
  const select = el("select", { "aria-label": title, on: { change: () => change(select.value) } }, ...options.map(([value, text]) => option(value, text)));
  return [select, el("label", { hidden: options.length < 2 }, title, select)];
}
