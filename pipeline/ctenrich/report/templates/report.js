"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");
  const SVG = "http://www.w3.org/2000/svg";
  const node = (name, attributes, parent, text) => {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.appendChild(element);
    return element;
  };
  const source = document.getElementById("report-data");
  const data = source ? JSON.parse(source.textContent) : null;

  /* one page of a single file at a time */
  const pages = document.querySelectorAll(".single .page");
  if (pages.length) {
    const main = document.querySelector("main");
    const route = () => {
      const wanted = decodeURIComponent(location.hash.slice(1));
      let shown = false;
      pages.forEach((page) => {
        const here = page.id === wanted;
        page.classList.toggle("open", here);
        shown = shown || here;
      });
      main.classList.toggle("away", shown);
      if (shown) {
        window.scrollTo(0, 0);
        document.getElementById(wanted).focus({ preventScroll: true });
      }
    };
    addEventListener("hashchange", route);
    route();
  }

  /* the list of series: filters and order */
  const list = document.getElementById("series-list");
  if (list) {
    const rows = Array.from(list.tBodies[0].rows);
    const search = document.getElementById("find");
    const state = document.getElementById("state");
    const count = document.getElementById("count");
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        const fits = words.every((word) => texts[index].includes(word)) && (!state.value || row.dataset.state === state.value);
        row.hidden = !fits;
        shown += fits ? 1 : 0;
      });
      count.textContent = shown + " of " + rows.length + " series";
    };
    search.addEventListener("input", filter);
    state.addEventListener("change", filter);
    list.querySelectorAll("thead button").forEach((button) => {
      button.addEventListener("click", () => {
        const cell = button.closest("th");
        const column = cell.cellIndex;
        const down = cell.getAttribute("aria-sort") === "ascending";
        list.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
        cell.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.v || row.cells[column].textContent;
        rows.slice().sort((a, b) => {
          const x = value(a), y = value(b), n = Number(x) - Number(y);
          return (Number.isNaN(n) ? x.localeCompare(y) : n) * (down ? -1 : 1);
        }).forEach((row) => list.tBodies[0].appendChild(row));
      });
    });
    filter();
  }

  /* box and points of one quantity, a row a group */
  const pick = (values, share) => {
    const place = (values.length - 1) * share, low = Math.floor(place);
    return values[low] + (values[Math.min(low + 1, values.length - 1)] - values[low]) * (place - low);
  };
  const nice = (value) => Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  const ticks = (low, high) => {
    const rough = (high - low) / 6 || 1, power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const out = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) out.push(Number(t.toPrecision(12)));
    return out;
  };
  const draw = (figure, groups, title) => {
    const host = figure.querySelector(".plot");
    host.replaceChildren();
    const table = figure.querySelector("tbody");
    if (table) table.replaceChildren();
    const all = groups.flatMap((group) => group.v);
    if (!all.length) { host.textContent = "No values."; return; }
    let low = Math.min(...all), high = Math.max(...all);
    const pad = (high - low || Math.abs(high) || 1) * 0.04;
    low -= pad; high += pad;
    const left = 300, width = 1100, each = 46, height = groups.length * each + 44;
    const x = (value) => left + (value - low) / (high - low) * (width - left - 16);
    const svg = node("svg", { viewBox: "0 0 " + width + " " + height, role: "group", "aria-label": title }, host);
    ticks(low, high).forEach((t) => {
      node("path", { class: "grid", d: "M" + x(t) + " 4V" + (height - 30) }, svg);
      node("text", { class: "dim", x: x(t), y: height - 14, "text-anchor": "middle" }, svg, nice(t));
    });
    groups.forEach((group, row) => {
      const y = row * each + 26, sorted = group.v.slice().sort((a, b) => a - b);
      const q1 = pick(sorted, 0.25), q2 = pick(sorted, 0.5), q3 = pick(sorted, 0.75), reach = 1.5 * (q3 - q1);
      const inside = sorted.filter((v) => v >= q1 - reach && v <= q3 + reach);
      const a = inside[0], b = inside[inside.length - 1];
      node("text", { class: "lab", x: left - 14, y: y - 1, "text-anchor": "end" }, svg, group.o);
      node("text", { class: "dim", x: left - 14, y: y + 14, "text-anchor": "end" }, svg, group.p.length > 42 ? group.p.slice(0, 41) + "…" : group.p);
      if (sorted.length > 4) {
        node("path", { class: "whisk", d: "M" + x(a) + " " + y + "H" + x(q1) + "M" + x(q3) + " " + y + "H" + x(b) }, svg);
        node("rect", { class: "q", x: x(q1), y: y - 12, width: Math.max(x(q3) - x(q1), 1), height: 24 }, svg);
        node("path", { class: "med", d: "M" + x(q2) + " " + (y - 12) + "V" + (y + 12) }, svg);
      }
      group.v.forEach((value, index) => {
        const far = value < q1 - reach || value > q3 + reach;
        const jitter = ((group.s[index] * 2654435761) % 1000) / 1000 - 0.5;
        const name = data.series[group.s[index]];
        const link = node("a", { class: far ? "pt out" : "pt", href: data.page.replace("{}", name), tabindex: far ? "0" : "-1", "aria-label": group.o + " " + nice(value) + ", series " + name }, svg);
        const viewer = data.viewer[group.s[index]] || data.local.replace("{}", name);
        const look = (event) => { event.preventDefault(); window.open(viewer, "_blank", "noopener"); };
        link.addEventListener("click", (event) => { if (event.shiftKey) look(event); });
        link.addEventListener("keydown", (event) => { if (event.key === "v") look(event); });
        node("circle", { cx: x(value), cy: y + jitter * 16, r: sorted.length > 300 ? 2.6 : 4 }, link);
        node("title", {}, link, group.o + " · " + group.p + "\n" + nice(value) + (group.u && group.u !== "1" ? " " + group.u : "") + "\n" + name + "\nShift: viewer");
      });
      if (table) {
        const line = table.insertRow();
        [group.o, group.p, sorted.length, nice(sorted[0]), nice(q1), nice(q2), nice(q3), nice(sorted[sorted.length - 1])].forEach((text, index) => {
          const cell = line.insertCell();
          cell.textContent = text;
          if (index > 1) cell.className = "num";
        });
      }
    });
  };
  document.querySelectorAll("figure.strip").forEach((figure) => {
    const sets = (data && data[figure.dataset.set]) || [];
    const choose = figure.querySelector("select.quantity");
    const organ = figure.querySelector("select.organ");
    const show = () => {
      const wanted = choose ? choose.value : null;
      const fits = (group) => !organ || !organ.value || group.o === organ.value || organ.value === "system:" + data.systems[group.o];
      const groups = sets.filter((group) => (wanted === null || group.q === wanted) && fits(group));
      const unit = groups.length && groups[0].u && groups[0].u !== "1" ? " (" + groups[0].u + ")" : "";
      figure.querySelector(".what").textContent = (wanted || (groups[0] || { q: "" }).q) + unit;
      draw(figure, groups, "Distribution of " + (wanted || figure.dataset.set));
    };
    const fill = (select, values) => values.forEach((value) => select.add(new Option(value, value)));
    if (choose) { fill(choose, [...new Set(sets.map((g) => g.q))]); choose.addEventListener("change", show); if (choose.dataset.first) choose.value = choose.dataset.first; }
    if (organ) {
      const names = [...new Set(sets.map((g) => g.o))];
      if (names.length > data.many) {
        const systems = [...new Set(names.map((name) => data.systems[name]))].sort();
        systems.forEach((system) => {
          const part = document.createElement("optgroup");
          part.label = system;
          part.appendChild(new Option("all: " + system, "system:" + system));
          fill({ add: (option) => part.appendChild(option) }, names.filter((name) => data.systems[name] === system));
          organ.appendChild(part);
        });
        organ.value = "system:" + systems[0];
      } else fill(organ, names);
      organ.addEventListener("change", show);
    }
    show();
  });
})();
