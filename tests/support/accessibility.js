() => {
  const faults = [];
  const shown = (e) => e.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true });
  const where = (e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + (e.className && e.className.baseVal === undefined ? "." + e.className : "");
  const text = (e) => (e.textContent || "").trim();
  const name = (e) => {
    if (e.getAttribute("aria-label")) return e.getAttribute("aria-label");
    const by = e.getAttribute("aria-labelledby");
    if (by) return by.split(" ").map((id) => document.getElementById(id)).filter(Boolean).map(text).join(" ");
    if (e.labels && e.labels.length) return Array.from(e.labels).map(text).join(" ");
    const image = e.querySelector("img[alt]:not([alt=''])");
    return text(e) || (image ? image.alt : "");
  };
  if (!document.documentElement.lang) faults.push("3.1.1 no language");
  if (!document.title.trim()) faults.push("2.4.2 no title");
  if (document.querySelectorAll("main").length !== 1) faults.push("1.3.1 not one main landmark");
  const ids = Array.from(document.querySelectorAll("[id]"), (e) => e.id);
  ids.filter((id, n) => ids.indexOf(id) !== n).forEach((id) => faults.push("4.1.1 id twice: " + id));
  document.querySelectorAll("a[href], button, input, select, textarea, summary").forEach((e) => {
    if (shown(e) && e.type !== "hidden" && !name(e)) faults.push("4.1.2 no name: " + where(e));
  });
  document.querySelectorAll("img").forEach((e) => { if (!e.hasAttribute("alt")) faults.push("1.1.1 no alt: " + where(e)); });
  document.querySelectorAll("svg").forEach((e) => { if (e.getAttribute("aria-hidden") !== "true" && !e.getAttribute("aria-label")) faults.push("1.1.1 svg without a name"); });
  document.querySelectorAll("[aria-labelledby]").forEach((e) => e.getAttribute("aria-labelledby").split(" ").forEach((id) => { if (!document.getElementById(id)) faults.push("1.3.1 no element " + id); }));
  document.querySelectorAll("table").forEach((e) => {
    if (!e.querySelector("th")) faults.push("1.3.1 table without header cells: " + where(e));
    e.querySelectorAll("thead th").forEach((h) => { if (!text(h)) faults.push("1.3.1 empty header cell: " + where(e)); });
  });
  document.querySelectorAll("ul, ol").forEach((e) => { if (Array.from(e.children).some((c) => c.tagName !== "LI")) faults.push("1.3.1 list with other children: " + where(e)); });
  let level = 0;
  document.querySelectorAll("h1, h2, h3, h4").forEach((e) => {
    const now = Number(e.tagName[1]);
    if (now > level + 1) faults.push("1.3.1 heading level skipped: " + text(e));
    level = now;
  });
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => { pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); const d = pen.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const ground = (e) => {
    for (let at = e; at; at = at.parentElement) {
      const c = rgba(getComputedStyle(at).backgroundColor);
      if (c[3] > 0.99) return c;
    }
    return [255, 255, 255, 1];
  };
  const light = (c) => {
    const [r, g, b] = c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : Math.pow((v + 0.055) / 1.055, 2.4)));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || seen.has(e) || !shown(e) || e.closest("script, style, noscript, title, option, .away") || e.disabled) continue;
    seen.add(e);
    const style = getComputedStyle(e), inside = e.closest("svg");
    const a = light(rgba(inside ? style.fill : style.color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.6 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faults.push("1.4.3 contrast " + ratio.toFixed(2) + ": " + where(e) + " " + text(e).slice(0, 40));
  }
  document.querySelectorAll("a[href], button, input:not([type=hidden]), select, summary").forEach((e) => {
    if (!shown(e) || e.disabled || e.closest("svg")) return;
    const box = e.getBoundingClientRect();
    const inText = getComputedStyle(e).display === "inline" || (e.labels && e.labels.length && e.labels[0].getBoundingClientRect().height >= 24);
    if (!inText && (box.height < 23.5 || box.width < 23.5) && !e.closest("thead")) faults.push("2.5.8 small target " + Math.round(box.width) + "x" + Math.round(box.height) + ": " + where(e));
  });
  return faults;
}
