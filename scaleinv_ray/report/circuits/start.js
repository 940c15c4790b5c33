/* Puts the sections on the page. */

for (const [id, title, says, make] of SECTIONS) {
  const made = make();
  if (!made.length) continue;
  $("sections").append(el("section", { id, class: "later" }, el("h2", {}, title), el("p", { class: "sub" }, says), el("div", { class: "panels" }, ...made)));
  $("contents").append(el("a", { href: `#${id}` }, title));
}
startTheme();
