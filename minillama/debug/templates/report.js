"use strict";
// The page can be read without this: it adds the filter, the choice of a head, and opens the layer that a link leads to.
const rows = [...document.querySelectorAll("tr[id]")];
const layers = [...document.querySelectorAll("details.layer")];
const text = document.getElementById("text");
const only = document.getElementById("only");
const count = document.getElementById("count");
const head = document.getElementById("head");

function filter() {
  const wanted = text.value.trim().toLowerCase();
  for (const row of rows) {
    row.hidden = (only.checked && !row.classList.contains("off")) || !row.dataset.name.includes(wanted);
  }
  for (const layer of layers) {
    layer.hidden = !layer.querySelector("tr[id]:not([hidden])");
    if (only.checked || wanted) layer.open = !layer.hidden;
  }
  count.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
}

function show(hash) {
  const row = /^#row-\d+$/.test(hash) && document.getElementById(hash.slice(1));
  if (!row) return;
  if (row.hidden) {
    text.value = "";
    only.checked = false;
    filter();
  }
  row.closest("details").open = true;
  row.scrollIntoView({ block: "center" });
}

function choose() {
  for (const maps of document.querySelectorAll("[data-head]")) maps.hidden = maps.dataset.head !== head.value;
}

for (const controls of document.querySelectorAll(".controls")) controls.hidden = false;
text.addEventListener("input", filter);
only.addEventListener("change", filter);
for (const button of document.querySelectorAll("button[data-open]")) {
  button.addEventListener("click", () => layers.forEach((layer) => { layer.open = button.dataset.open === "yes"; }));
}
for (const link of document.querySelectorAll("a[href^='#row-']")) {
  link.addEventListener("click", () => setTimeout(show, 0, link.getAttribute("href")));
}
if (head) {
  head.addEventListener("change", choose);
  choose();
}
filter();
show(location.hash);
