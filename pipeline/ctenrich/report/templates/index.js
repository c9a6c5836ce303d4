"use strict";
/* The first page: list and gallery of series with filters, and charts. Data come in script files (see index_data.py). */
window.ctenrich = window.ctenrich || {};
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const byId = (id) => document.getElementById(id);
  const collator = new Intl.Collator("en", { numeric: true });
  const SHOWN = { gallery: 48, table: 100 };
  const DRAWN = 300;

  /* ---- script files */
  const waiting = {};
  const loaded = {};
  window.ctenrich.put = (name, data) => {
    loaded[name] = data;
    if (waiting[name]) waiting[name](data);
  };
  const promises = {};
  const load = (name) => {
    if (!promises[name]) {
      promises[name] = new Promise((done, failed) => {
        waiting[name] = done;
        const script = document.createElement("script");
        script.src = "data/" + name + ".js";
        script.onerror = () => failed(new Error("data/" + name + ".js could not be read"));
        document.head.append(script);
      });
    }
    return promises[name];
  };
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

  /* ---- series, column by column */
  const all = { uid: [], patient: [], study: [], collection: [], slices: [], spacing: [], state: [], reason: [], objects: [], seconds: [], set: [], score: [], flags: [], picture: [], versions: [], review: [] };
  const texts = [];
  let meta = null;
  let ready = 0;
  const take = (page) => {
    for (const name in all) all[name].push(...page[name]);
    for (let i = texts.length; i < all.uid.length; i += 1) {
      texts.push([all.uid[i], all.patient[i], meta.collections[all.collection[i]], meta.reasons[all.reason[i]], ...meta.sets[all.set[i]]].join(" ").toLowerCase());
    }
    ready = all.uid.length;
  };
  const pageOf = (i) => "series/" + all.uid[i] + ".html";
  const viewerOf = (i) => (all.study[i] && meta.viewer ? meta.viewer.replace("{study}", all.study[i]).replace("{series}", all.uid[i]) : meta.local.replace("{series}", all.uid[i]));
  const reviewOf = (i) => {
    const found = meta.sets[all.set[i]].map((product, n) => window.ctenrich.review.state(all.uid[i], product, meta.reviews[all.review[i][n]]));
    const decided = found.filter((state) => state !== "not reviewed" && state !== "commented" && state !== "outdated");
    if (found.includes("disputed")) return "disputed";
    if (found.includes("rejected")) return "rejected";
    if (!decided.length) return found.find((state) => state !== "not reviewed") || "not reviewed";
    return decided.length < found.length ? "partly reviewed" : "accepted";
  };

  const make = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const key in attributes) made.setAttribute(key, attributes[key]);
    made.append(...children);
    return made;
  };
  const badge = (text) => make("span", { class: "state " + text.split(" ")[0] }, text.replace(/_/g, " "));
  const option = (value, text) => new Option(text === undefined ? value : text, value);

  /* ---- values of a quantity and organ: product -> value of each series */
  const featureOf = async (quantity, organ) => {
    const part = meta.quantities[quantity].organs.find((one) => one.organ === organ);
    return (await load(part.file)).map((group) => {
      if (!group.read) {
        group.read = new Float32Array(bytes(group.values));
        group.at = group.series ? new Uint32Array(bytes(group.series)) : null;
      }
      return group;
    });
  };

  /* ---- filters */
  const control = {};
  ["find", "state", "reason", "collection", "product", "flag", "reviewed", "range-quantity", "range-organ", "range-low", "range-high", "order"].forEach((id) => { control[id] = byId(id); });
  let found = [];
  let inRange = null;
  let page = 0;
  let gallery = true;
  let sorting = { key: "patient", down: false };
  const numberOf = (input) => (input.value === "" || Number.isNaN(Number(input.value)) ? null : Number(input.value));
  const readRange = async () => {
    const organ = control["range-organ"].value;
    if (!organ) { inRange = null; return; }
    const low = numberOf(control["range-low"]), high = numberOf(control["range-high"]);
    const fits = new Uint8Array(meta.count);
    (await featureOf(Number(control["range-quantity"].value), organ)).forEach((group) => {
      if (control.product.value && group.product !== control.product.value) return;
      group.read.forEach((value, n) => {
        if (!Number.isNaN(value) && (low === null || value >= low) && (high === null || value <= high)) fits[group.at ? group.at[n] : n] = 1;
      });
    });
    inRange = fits;
  };
  const valueOf = {
    uid: (i) => all.uid[i], patient: (i) => all.patient[i], collection: (i) => meta.collections[all.collection[i]], slices: (i) => all.slices[i], spacing: (i) => all.spacing[i],
    state: (i) => meta.states[all.state[i]], objects: (i) => all.objects[i], score: (i) => all.score[i], seconds: (i) => all.seconds[i], reviewed: reviewOf,
  };
  const search = () => {
    const words = control.find.value.toLowerCase().split(/\s+/).filter(Boolean);
    const state = meta.states.indexOf(control.state.value), reason = meta.reasons.indexOf(control.reason.value), collection = meta.collections.indexOf(control.collection.value);
    const sets = control.product.value ? meta.sets.map((set) => set.includes(control.product.value)) : null;
    const flag = control.flag.value === "" ? 0 : 1 << Number(control.flag.value);
    found = [];
    for (let i = 0; i < ready; i += 1) {
      if (control.state.value && all.state[i] !== state) continue;
      if (control.reason.value && all.reason[i] !== reason) continue;
      if (control.collection.value && all.collection[i] !== collection) continue;
      if (sets && !sets[all.set[i]]) continue;
      if (flag && !(all.flags[i] & flag)) continue;
      if (inRange && !inRange[i]) continue;
      if (words.length && !words.every((word) => texts[i].includes(word))) continue;
      if (control.reviewed.value && reviewOf(i) !== control.reviewed.value) continue;
      found.push(i);
    }
    if (sorting.key) {
      const value = valueOf[sorting.key], sign = sorting.down ? -1 : 1;
      const keys = new Map(found.map((i) => [i, value(i)]));
      found.sort((a, b) => {
        const x = keys.get(a), y = keys.get(b);
        return sign * (typeof x === "number" ? x - y : collator.compare(x, y)) || a - b;
      });
    }
    page = 0;
    show();
    if (byId("chart-found") && byId("chart-found").checked) drawChart();
  };

  /* ---- list */
  const card = (i) => {
    const link = make("a", { class: "card", href: pageOf(i) });
    const box = make("span", { class: "box" });
    if (all.picture[i]) box.append(make("img", { src: "thumbnails/" + all.uid[i] + ".webp", loading: "lazy", alt: "Coronal CT with masks" }));
    else box.append("no picture");
    const marks = make("span", { class: "marks" }, badge(meta.states[all.state[i]] || "not started"));
    if (all.score[i]) marks.append(make("span", { class: "state " + (all.flags[i] & 1 ? "error" : "warning") }, "score " + all.score[i].toFixed(1)));
    const review = reviewOf(i);
    if (review !== "not reviewed") marks.append(badge(review));
    link.append(box, make("span", { class: "text" }, make("span", { class: "name" }, all.patient[i] || "Patient ID not known"), make("span", { class: "end" }, "…" + all.uid[i].slice(-14)), marks));
    return make("li", {}, link);
  };
  const row = (i) => {
    const name = make("th", { scope: "row", class: "uid" }, make("a", { href: pageOf(i) }, all.uid[i]));
    const reason = meta.reasons[all.reason[i]];
    if (reason) name.append(make("br", {}), make("span", { class: "no", title: meta.sentences[reason] || "" }, reason));
    const cell = (text, kind) => make("td", { class: kind || "" }, text);
    const viewer = make("a", { href: viewerOf(i), rel: "noreferrer", "aria-label": "open series " + all.uid[i] + " in the viewer" }, "open");
    return make("tr", {}, name, cell(all.patient[i]), cell(meta.collections[all.collection[i]]), cell(String(all.slices[i] || ""), "num"), cell(all.spacing[i] ? String(all.spacing[i]) : "", "num"),
      cell(badge(meta.states[all.state[i]] || "not started")), cell(String(all.objects[i]), "num"), cell(all.score[i] ? all.score[i].toFixed(1) : "", "num"), cell(all.seconds[i] < 0 ? "" : all.seconds[i].toFixed(1), "num"), cell(badge(reviewOf(i))), cell(viewer));
  };
  const show = () => {
    const size = gallery ? SHOWN.gallery : SHOWN.table;
    const pages = Math.max(1, Math.ceil(found.length / size));
    page = Math.min(Math.max(page, 0), pages - 1);
    const part = found.slice(page * size, (page + 1) * size);
    byId("gallery").hidden = !gallery;
    byId("table-box").hidden = gallery;
    if (gallery) byId("gallery").replaceChildren(...part.map(card));
    else byId("series-list").tBodies[0].replaceChildren(...part.map(row));
    const total = meta.count.toLocaleString("en");
    byId("count").textContent = found.length.toLocaleString("en") + " of " + total + " series" + (ready < meta.count ? " (" + ready.toLocaleString("en") + " read)" : "");
    const pager = document.querySelector(".pager");
    pager.hidden = pages === 1;
    byId("page-of").textContent = "page " + (page + 1) + " of " + pages;
    byId("before").disabled = page === 0;
    byId("next").disabled = page === pages - 1;
  };
  const turn = (step) => { page += step; show(); byId("series-title").scrollIntoView(); };

  /* ---- charts */
  const node = (name, attributes, parent, text) => {
    const element = document.createElementNS(SVG, name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.appendChild(element);
    return element;
  };
  const pick = (values, share) => {
    const place = (values.length - 1) * share, low = Math.floor(place);
    return values[low] + (values[Math.min(low + 1, values.length - 1)] - values[low]) * (place - low);
  };
  const nice = (value) => (Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4))));
  const ticks = (low, high) => {
    const rough = (high - low) / 6 || 1, power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
    const out = [];
    for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) out.push(Number(t.toPrecision(12)));
    return out;
  };
  /* boxes are of all values; of many points, all beyond the whiskers and every n-th other one are drawn */
  const chosenPoints = (group) => {
    const outside = [], inside = [];
    group.values.forEach((value, n) => (value < group.low || value > group.high ? outside : inside).push(n));
    const step = Math.max(1, Math.ceil(inside.length / DRAWN));
    return [...outside.slice(0, DRAWN), ...inside.filter((_, n) => n % step === 0)];
  };
  const summary = (organ, product, pairs) => {
    const sorted = Float64Array.from(pairs, (pair) => pair[1]).sort();
    const q1 = pick(sorted, 0.25), q2 = pick(sorted, 0.5), q3 = pick(sorted, 0.75), reach = 1.5 * (q3 - q1);
    return { organ, product, series: pairs.map((pair) => pair[0]), values: pairs.map((pair) => pair[1]), min: sorted[0], max: sorted[sorted.length - 1], q1, q2, q3, low: q1 - reach, high: q3 + reach, sorted };
  };
  const drawGroups = (figure, groups, title, unit) => {
    const host = figure.querySelector(".plot"), table = byId("numbers").tBodies[0];
    host.replaceChildren();
    table.replaceChildren();
    let drawn = 0, total = 0;
    if (!groups.length) { host.textContent = "No values."; figure.querySelector(".drawn").textContent = ""; return; }
    const low0 = Math.min(...groups.map((g) => g.min)), high0 = Math.max(...groups.map((g) => g.max));
    const pad = (high0 - low0 || Math.abs(high0) || 1) * 0.04, low = low0 - pad, high = high0 + pad;
    const narrow = host.clientWidth < 560;
    const width = narrow ? 390 : 1100, left = narrow ? 14 : 300, each = narrow ? 66 : 46, height = groups.length * each + 44;
    const x = (value) => left + ((value - low) / (high - low)) * (width - left - 16);
    const svg = node("svg", { viewBox: "0 0 " + width + " " + height, role: "group", "aria-label": title }, host);
    ticks(low, high).filter((_, n) => !narrow || n % 2 === 0).forEach((t) => {
      node("path", { class: "grid", d: "M" + x(t) + " 4V" + (height - 30) }, svg);
      node("text", { class: "dim", x: x(t), y: height - 14, "text-anchor": "middle" }, svg, nice(t));
    });
    groups.forEach((group, n) => {
      const y = n * each + (narrow ? 46 : 26), { q1, q2, q3, sorted } = group;
      const inside = sorted.filter((v) => v >= group.low && v <= group.high), a = inside[0], b = inside[inside.length - 1];
      const organ = group.organ.replace(/_/g, " "), product = group.product.length > 42 ? group.product.slice(0, 41) + "…" : group.product;
      if (narrow) node("text", { class: "lab", x: left, y: y - 22 }, svg, organ + " · " + (product.length > 26 ? product.slice(0, 25) + "…" : product));
      else {
        node("text", { class: "lab", x: left - 14, y: y - 1, "text-anchor": "end" }, svg, organ);
        node("text", { class: "dim", x: left - 14, y: y + 14, "text-anchor": "end" }, svg, product);
      }
      if (sorted.length > 4) {
        node("path", { class: "whisk", d: "M" + x(a) + " " + y + "H" + x(q1) + "M" + x(q3) + " " + y + "H" + x(b) }, svg);
        node("rect", { class: "q", x: x(q1), y: y - 12, width: Math.max(x(q3) - x(q1), 1), height: 24 }, svg);
        node("path", { class: "med", d: "M" + x(q2) + " " + (y - 12) + "V" + (y + 12) }, svg);
      }
      const points = chosenPoints(group);
      total += group.values.length;
      drawn += points.length;
      points.forEach((place) => {
        const value = group.values[place], far = value < group.low || value > group.high, i = group.series[place];
        const jitter = ((i * 2654435761) % 1000) / 1000 - 0.5;
        const link = node("a", { class: far ? "pt out" : "pt", href: pageOf(i), tabindex: far ? "0" : "-1", "aria-label": organ + " " + nice(value) + (unit ? " " + unit : "") + ", series " + all.uid[i] }, svg);
        const look = (event) => { event.preventDefault(); window.open(viewerOf(i), "_blank", "noopener"); };
        link.addEventListener("click", (event) => { if (event.shiftKey) look(event); });
        link.addEventListener("keydown", (event) => { if (event.key === "v") look(event); });
        node("circle", { cx: x(value), cy: y + jitter * 16, r: points.length > 200 ? 3 : 4 }, link);
        node("title", {}, link, organ + " · " + group.product + "\n" + nice(value) + (unit ? " " + unit : "") + "\n" + (all.patient[i] || "") + "\n" + all.uid[i] + "\nShift: viewer");
      });
      const line = table.insertRow();
      const head = make("th", { scope: "row" }, organ);
      line.append(head);
      [group.product, sorted.length, nice(sorted[0]), nice(q1), nice(q2), nice(q3), nice(sorted[sorted.length - 1])].forEach((text, column) => {
        const cell = line.insertCell();
        cell.textContent = text;
        if (column > 0) cell.className = "num";
      });
    });
    figure.querySelector(".drawn").textContent = drawn < total ? "Boxes are of all " + total.toLocaleString("en") + " values, " + drawn.toLocaleString("en") + " of them are drawn as points." : total.toLocaleString("en") + " values.";
  };
  let drawing = 0;
  const drawChart = async () => {
    const figure = byId("chart"), turnNumber = (drawing += 1);
    if (!figure || !meta.quantities.length) return;
    const number = Number(byId("chart-quantity").value), quantity = meta.quantities[number], wanted = byId("chart-organ").value;
    const organs = quantity.organs.map((one) => one.organ).filter((organ) => !wanted || organ === wanted || wanted === "system:" + meta.systems[organ]);
    const only = byId("chart-found").checked ? new Set(found) : null;
    const groups = [];
    for (const organ of organs) {
      for (const group of await featureOf(number, organ)) {
        const pairs = [];
        group.read.forEach((value, n) => {
          const i = group.at ? group.at[n] : n;
          if (!Number.isNaN(value) && i < ready && (!only || only.has(i))) pairs.push([i, value]);
        });
        if (pairs.length) groups.push(summary(organ, group.product, pairs));
      }
    }
    if (turnNumber !== drawing) return;
    figure.querySelector(".what").textContent = quantity.name + (quantity.unit ? " (" + quantity.unit + ")" : "") + ".";
    drawGroups(figure, groups, "Distribution of " + quantity.name, quantity.unit);
  };
  const fillOrgans = (select, quantity, first) => {
    const old = select.value, names = quantity.organs.map((one) => one.organ);
    select.replaceChildren(first);
    if (names.length > meta.many) {
      [...new Set(names.map((name) => meta.systems[name]))].sort(collator.compare).forEach((system) => {
        const part = document.createElement("optgroup");
        part.label = system;
        if (select.id === "chart-organ") part.append(option("system:" + system, "all: " + system));
        names.filter((name) => meta.systems[name] === system).forEach((name) => part.append(option(name, name.replace(/_/g, " "))));
        select.append(part);
      });
    } else names.forEach((name) => select.append(option(name, name.replace(/_/g, " "))));
    if (Array.from(select.options).some((one) => one.value === old)) select.value = old;
    if (!select.value && select.id === "chart-organ" && names.length > meta.many) select.value = "system:" + meta.systems[names[0]];
  };

  /* ---- start */
  const start = async () => {
    meta = await load("index");
    const sorted = (values) => values.filter(Boolean).slice().sort(collator.compare);
    sorted(meta.states).forEach((value) => control.state.add(option(value, value.replace(/_/g, " "))));
    sorted(meta.reasons).forEach((value) => control.reason.add(option(value)));
    sorted(meta.collections).forEach((value) => control.collection.add(option(value)));
    meta.products.forEach((value) => control.product.add(option(value)));
    meta.flags.forEach((value, n) => control.flag.add(option(String(n), value)));
    ["accepted", "rejected", "disputed", "partly reviewed", "commented", "outdated", "not reviewed"].forEach((value) => control.reviewed.add(option(value)));
    meta.quantities.forEach((quantity, n) => {
      const text = quantity.name + (quantity.unit ? ", " + quantity.unit : "");
      control["range-quantity"].add(option(String(n), text));
      if (byId("chart-quantity")) byId("chart-quantity").add(option(String(n), text));
    });
    document.querySelector("fieldset.range").hidden = !meta.quantities.length;
    if (meta.quantities.length) {
      fillOrgans(control["range-organ"], meta.quantities[0], option("", "any series"));
      fillOrgans(byId("chart-organ"), meta.quantities[0], option("", "all"));
    }
    for (let n = 0; n < meta.pages; n += 1) {
      take(await load("series-" + n));
      if (n === 0) search();
    }
    search();
    drawChart();
  };
  const failed = (error) => { byId("count").textContent = "The list could not be read: " + error.message; };

  const firstList = byId("first-list"), firstAll = byId("first-all");
  if (firstList && firstList.children.length > 5) {
    firstList.classList.add("few");
    firstAll.hidden = false;
    firstAll.addEventListener("click", () => {
      const few = firstList.classList.toggle("few");
      firstAll.setAttribute("aria-expanded", String(!few));
      firstAll.textContent = few ? "Show all " + firstList.children.length : "Show the first 5";
    });
  }

  let typing = 0;
  control.find.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(search, ready > 2000 ? 120 : 0); });
  ["state", "reason", "collection", "flag", "reviewed"].forEach((id) => control[id].addEventListener("change", search));
  const ranged = () => readRange().then(search, failed);
  ["product", "range-organ", "range-low", "range-high"].forEach((id) => control[id].addEventListener("change", ranged));
  control["range-quantity"].addEventListener("change", () => { fillOrgans(control["range-organ"], meta.quantities[Number(control["range-quantity"].value)], option("", "any series")); ranged(); });
  byId("filters").addEventListener("submit", (event) => event.preventDefault());
  byId("filters").addEventListener("reset", () => setTimeout(() => { inRange = null; fillOrgans(control["range-organ"], meta.quantities[0] || { organs: [] }, option("", "any series")); search(); }));
  control.order.addEventListener("change", () => { sorting = { key: control.order.value, down: control.order.value === "score" }; mark(); search(); });
  const mark = () => byId("series-list").querySelectorAll("thead th").forEach((cell) => {
    const button = cell.querySelector("button");
    cell.removeAttribute("aria-sort");
    if (button && button.dataset.key === sorting.key) cell.setAttribute("aria-sort", sorting.down ? "descending" : "ascending");
  });
  byId("series-list").querySelectorAll("thead button").forEach((button) => button.addEventListener("click", () => {
    sorting = { key: button.dataset.key, down: sorting.key === button.dataset.key && !sorting.down };
    control.order.value = sorting.key === "score" && sorting.down ? "score" : sorting.key === "patient" && !sorting.down ? "patient" : "";
    mark();
    search();
  }));
  const choose = (value) => {
    gallery = value;
    byId("as-gallery").setAttribute("aria-pressed", String(gallery));
    byId("as-table").setAttribute("aria-pressed", String(!gallery));
    page = 0;
    show();
  };
  byId("as-gallery").addEventListener("click", () => choose(true));
  byId("as-table").addEventListener("click", () => choose(false));
  byId("before").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  if (byId("chart")) {
    byId("chart-quantity").addEventListener("change", () => { fillOrgans(byId("chart-organ"), meta.quantities[Number(byId("chart-quantity").value)], option("", "all")); drawChart(); });
    byId("chart-organ").addEventListener("change", drawChart);
    byId("chart-found").addEventListener("change", drawChart);
  }
  window.ctenrich.review.onChange(() => { if (meta) show(); });
  start().catch(failed);
})();
