"use strict";
/* What every part of the page uses: elements, numbers in words, theme, and the packed data. */

const ROOT = document.documentElement;
const $ = (id) => document.getElementById(id);

/* A column is a list, or distinct values and the place of each row among them. */
function at(column, i) {
  return Array.isArray(column) ? column[i] : column.d[column.i[i]];
}

function record(table, i) {
  return Object.fromEntries(Object.entries(table.columns).map(([name, column]) => [name, at(column, i)]));
}

function records(table) {
  return table ? Array.from({ length: table.rows }, (_, i) => record(table, i)) : [];
}

const DATA = JSON.parse($("data").textContent);
const VERDICTS = records(DATA.verdicts);
const MEANINGS = new Map(DATA.meanings.map((of) => [`${of.invariant}\n${of.quantity}`, of]));

const meaningOf = (place) => (MEANINGS.get(`${place.invariant}\n${place.quantity}`) || { meaning: "" }).meaning;
/* What it is, without how to read it. */
const whatOf = (place) => meaningOf(place).split(";")[0];

/* ---- what is unpacked when it is asked for ---- */

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const binary = atob(text);
  const out = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i += 1) out[i] = binary.charCodeAt(i);
  return out;
}

async function unpackedText(id) {
  const stream = new Blob([bytes($(id).textContent.trim())]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

const loading = new Map();

function once(name, f) {
  if (!loading.has(name)) loading.set(name, f());
  return loading.get(name);
}

const load = (id) => once(id, async () => JSON.parse(await unpackedText(id)));

/* A table of the conclusion by columns; null where the run has none. */
const tableOf = (name) => load(`table-${name}`);

/* Id of a section -> what draws it, when it comes near the view. */
const STARTS = {};

/* plotly is four megabytes: it is read when the first figure comes into view. */
const loadPlotly = () => once("plotly", async () => document.head.append(el("script", {}, await unpackedText("plotly"))));

/* ---- elements and numbers ---- */

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") for (const [event, f] of Object.entries(value)) node.addEventListener(event, f);
    else if (value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const SUPERSCRIPT = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

/* Three significant digits, with a true minus sign; a dash where there is no number. */
function num(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size >= 1e5 || size < 1e-3) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    text = `${mantissa}×10${[...exponent.replace("+", "")].map((c) => SUPERSCRIPT[c]).join("")}`;
  } else if (size >= 10 ** digits) text = Math.round(value).toString();
  else text = value.toPrecision(digits);
  return text.replace(/^-/, "−");
}

function percent(value) {
  return value === null || value === undefined ? "–" : `${num(100 * value)} %`;
}

const hasUnit = (row) => row.unit !== null && row.unit !== undefined;

/* A change, margin or error as it was judged: relative, or an amount where a unit is declared. */
function amount(row, value, relative = percent) {
  if (value === null || value === undefined || !hasUnit(row)) return relative(value);
  return `${num(value * row.unit)} (unit ${num(row.unit, 1)})`;
}

function parameters(count) {
  for (const [unit, name] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (count >= unit) return `${Number((count / unit).toPrecision(3))}${name}`;
  }
  return String(count);
}

const words = (text) => (text || "").replaceAll("_", " ");
const distinct = (values) => [...new Set(values)];
const local = (invariant, family) =>
  invariant && invariant.startsWith(`${family}.`) ? invariant.slice(family.length + 1) : invariant || "";

/* ---- long names: cut, and whole in their title ---- */

const MOST_LETTERS = 60;
const isLong = (text) => typeof text === "string" && text.length > MOST_LETTERS;
/* The last letter goes by code point: half of a pair is none. */
const cut = (text) => (isLong(text) ? `${Array.from(text.slice(0, MOST_LETTERS)).slice(0, -1).join("")}…` : text);
const named = (text, tag = "span", attributes = {}) => el(tag, { ...attributes, title: isLong(text) ? text : null }, cut(text));
const option = (value, text) => named(text, "option", { value });

/* ---- theme ---- */

const themeListeners = [];
const THEMES = ["auto", "light", "dark"];
const systemDark = matchMedia("(prefers-color-scheme: dark)");

function setTheme(choice) {
  const resolved = choice === "auto" ? (systemDark.matches ? "dark" : "light") : choice;
  ROOT.dataset.choice = choice;
  ROOT.dataset.theme = resolved;
  $("theme").textContent = `Theme: ${choice}`;
  themeListeners.forEach((listener) => listener());
}

function startTheme() {
  setTheme("auto");
  $("theme").addEventListener("click", () => {
    setTheme(THEMES[(THEMES.indexOf(ROOT.dataset.choice) + 1) % THEMES.length]);
  });
  systemDark.addEventListener("change", () => setTheme(ROOT.dataset.choice));
}

/* ---- names, badges, files ---- */

const all = (values) => distinct(values).sort((a, b) => a - b);
const sum = (values) => values.reduce((a, b) => a + b, 0);
const count = (n) => n.toLocaleString("en");
const seedsText = (n) => `${n} seed${n === 1 ? "" : "s"}`;
const siteText = (site) => (site === "all" ? "all weights of the blocks" : cut(site));
const binText = (bin) => (bin === "all" ? "whole" : bin || "–");

function placeText(place) {
  const bin = place.bin === undefined ? place.depth_bin : place.bin;
  const third = !bin || bin === "all" ? "" : `${bin} third of the depth`;
  return [cut(place.probe), siteText(place.site), third].filter(Boolean).join(", ");
}

function groups(values, key) {
  const found = new Map();
  for (const value of values) {
    const name = key(value);
    if (found.has(name)) found.get(name).push(value);
    else found.set(name, [value]);
  }
  return found;
}

/* A name that may break after its underscores. */
function breakable(name) {
  if (isLong(name)) return named(name);
  return el("span", {}, ...(name || "").split(/(?<=_)/).flatMap((part) => [part, el("wbr")]));
}

function csvCell(value) {
  const text = value === null || value === undefined ? "" : Array.isArray(value) ? value.join(" ") : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function download(name, names, rows) {
  const lines = [names, ...rows.map((row) => names.map((column) => row[column]))];
  const text = lines.map((line) => line.map(csvCell).join(",")).join("\r\n");
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  el("a", { href: url, download: `${name.replaceAll(/[^\w.-]+/g, "-").slice(0, 120)}.csv` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}

/* Rows of a table are one stop of the tab key; arrows go from row to row, Enter opens. */
function rowKeys(body, open) {
  body.addEventListener("keydown", (event) => {
    const row = event.target.closest("tr");
    if (!row || event.target !== row) return;
    const rows = [...body.rows];
    const i = rows.indexOf(row);
    const to = { ArrowDown: i + 1, ArrowUp: i - 1, Home: 0, End: rows.length - 1, PageDown: i + 10, PageUp: i - 10 }[event.key];
    if (to !== undefined) focusRow(rows[Math.max(0, Math.min(rows.length - 1, to))]);
    else if (event.key === "Enter" && open) open(row);
    else return;
    event.preventDefault();
  });
  body.addEventListener("focusin", (event) => {
    const row = event.target.closest("tr");
    for (const other of body.querySelectorAll("tr[tabindex='0']")) other.tabIndex = -1;
    if (row) row.tabIndex = 0;
  });
}

function focusRow(row) {
  row.tabIndex = 0;
  row.focus();
  row.scrollIntoView({ block: "nearest" });
}
