"use strict";
/* What all pages share: marks that scripts run, and lets the keyboard scroll tables that do not fit. */
(() => {
  document.documentElement.classList.add("js");
  const reach = () => document.querySelectorAll(".scroll").forEach((box) => {
    const scrolls = box.scrollWidth > box.clientWidth + 1 || box.scrollHeight > box.clientHeight + 1;
    if (!scrolls) {
      ["tabindex", "role", "aria-label"].forEach((name) => box.removeAttribute(name));
      return;
    }
    const titles = Array.from(document.querySelectorAll("h1, h2, h3, summary")).filter((title) => title.compareDocumentPosition(box) & Node.DOCUMENT_POSITION_FOLLOWING);
    box.setAttribute("tabindex", "0");
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Table: " + (titles.length ? titles[titles.length - 1].textContent.trim() : document.title));
  });
  addEventListener("resize", reach);
  addEventListener("load", reach);
  document.addEventListener("toggle", reach, true);
})();
