"use strict";
/* Decisions of one reviewer: kept in the browser, and in a review file that `ctenrich review import` takes. */
window.ctenrich = window.ctenrich || {};
window.ctenrich.review = (() => {
  const REASONS = ["over-segmentation", "under-segmentation", "wrong structure", "wrong side", "island", "missing part", "dose", "image quality", "wrong series", "other"];
  const CHOICES = [["accept", "Accept"], ["reject", "Reject"], ["comment", "Comment only"]];
  const STATES = { accept: "accepted", reject: "rejected", comment: "commented" };
  const bar = document.querySelector(".review-bar");
  const run = bar ? bar.dataset.run : "";
  const key = "ctenrich-review " + run;
  const keyOf = (series, product) => series + " " + product;
  let entries = {};
  let kept = true;
  let handle = null;
  let said = null;
  const listeners = [];

  const element = (name, attributes, ...children) => {
    const made = document.createElement(name);
    for (const attribute in attributes) made.setAttribute(attribute, attributes[attribute]);
    made.append(...children);
    return made;
  };
  const read = () => {
    try { entries = JSON.parse(localStorage.getItem(key) || "{}") || {}; } catch (_) { kept = false; }
  };
  const keep = () => {
    try { localStorage.setItem(key, JSON.stringify(entries)); } catch (_) { kept = false; }
  };
  const name = () => { try { return localStorage.getItem("ctenrich-reviewer") || ""; } catch (_) { return ""; } };
  const content = () => JSON.stringify({
    format: "ctenrich-review", version: 1, run,
    reviews: Object.values(entries).sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0)),
  }, null, 1) + "\n";
  const say = (text) => { if (said) said.textContent = text; };
  const count = () => {
    const n = Object.keys(entries).length;
    return n + (n === 1 ? " review" : " reviews") + (kept ? " kept in this browser" : " in this page only: this browser keeps nothing, save the file before you leave");
  };

  /* the handle of the file is kept so that other pages of the report write to the same file */
  const database = (mode, work) => new Promise((done) => {
    try {
      const opening = indexedDB.open("ctenrich-review", 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("handles");
      opening.onerror = () => done(undefined);
      opening.onsuccess = () => {
        const request = work(opening.result.transaction("handles", mode).objectStore("handles"));
        request.onsuccess = () => done(request.result);
        request.onerror = () => done(undefined);
      };
    } catch (_) { done(undefined); }
  });
  const write = async () => {
    const stream = await handle.createWritable();
    await stream.write(content());
    await stream.close();
    say(count() + "; written to " + handle.name);
  };
  const writeSilently = async () => {
    if (!handle) { say(count() + "; not yet in a file"); return; }
    try {
      if ((await handle.queryPermission({ mode: "readwrite" })) === "granted") await write();
      else say(count() + "; press Save to write them to " + handle.name);
    } catch (_) { say(count() + "; the file could not be written, press Save"); }
  };
  const save = async () => {
    if (!window.showSaveFilePicker) {
      const link = element("a", { href: URL.createObjectURL(new Blob([content()], { type: "application/json" })), download: "review.json" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
      say(count() + "; saved as a download: ctenrich review import RUN review.json");
      return;
    }
    try {
      if (handle && (await handle.requestPermission({ mode: "readwrite" })) !== "granted") handle = null;
      if (!handle) {
        handle = await window.showSaveFilePicker({ id: "ctenrich-review", suggestedName: "review.json", types: [{ description: "Review", accept: { "application/json": [".json"] } }] });
        database("readwrite", (store) => store.put(handle, key));
      }
      await write();
    } catch (error) {
      if (error.name !== "AbortError") say("The file could not be written: " + error.message);
    }
  };
  const open = (file) => {
    const reader = new FileReader();
    reader.onload = () => {
      let found = null;
      try { found = JSON.parse(reader.result); } catch (_) { say(file.name + " is not JSON."); return; }
      if (!found || found.format !== "ctenrich-review" || found.version !== 1 || !Array.isArray(found.reviews)) { say(file.name + " is not a review file of this version."); return; }
      if (found.run !== run) { say(file.name + " is about another run."); return; }
      let taken = 0;
      found.reviews.forEach((entry) => {
        if (typeof entry.series !== "string" || typeof entry.product !== "string" || !STATES[entry.decision]) return;
        const old = entries[keyOf(entry.series, entry.product)];
        if (!old || old.time < entry.time) { entries[keyOf(entry.series, entry.product)] = entry; taken += 1; }
      });
      keep();
      document.querySelectorAll(".review").forEach(fill);
      listeners.forEach((listener) => listener());
      say(taken + " reviews taken from " + file.name);
    };
    reader.readAsText(file);
  };

  const decide = (box, change) => {
    const { series, product, objects } = box.dataset;
    const old = entries[keyOf(series, product)] || { decision: "comment", reason: "", comment: "" };
    const reviewer = name().trim();
    if (!reviewer) {
      say("Enter your name first: every review states who made it.");
      const field = bar && bar.querySelector("input.reviewer");
      if (field) field.focus();
      fill(box);
      return;
    }
    const time = new Date().toISOString().replace(/\.\d+Z$/, "Z");
    entries[keyOf(series, product)] = { ...old, ...change, series, product, objects, reviewer, time };
    keep();
    document.querySelectorAll(".review").forEach((other) => {
      if (other.dataset.series === series && other.dataset.product === product) fill(other);
    });
    listeners.forEach((listener) => listener(series, product));
    writeSilently();
  };

  let numbers = 0;
  const build = (box) => {
    const group = "review-" + (numbers += 1);
    const fields = element("fieldset", {}, element("legend", {}, "Review of " + box.dataset.product));
    CHOICES.forEach(([value, label]) => {
      const radio = element("input", { type: "radio", name: group, value });
      radio.addEventListener("change", () => decide(box, { decision: value, ...(value === "reject" ? {} : { reason: "" }) }));
      fields.append(element("label", { class: "choice" }, radio, label));
    });
    const reason = element("select", { class: "why" }, ...["", ...REASONS].map((text) => element("option", { value: text }, text || "none")));
    reason.addEventListener("change", () => decide(box, { reason: reason.value, decision: "reject" }));
    const comment = element("input", { type: "text", class: "words", maxlength: "10000", autocomplete: "off" });
    comment.addEventListener("change", () => decide(box, { comment: comment.value }));
    fields.append(element("label", { class: "text" }, "Reason to reject", reason), element("label", { class: "text" }, "Comment", comment));
    box.append(box.closest(".case") ? element("details", { class: "review-fold" }, element("summary", {}, "Accept, reject or comment"), fields) : fields);
  };
  const fill = (box) => {
    if (!box.querySelector("fieldset")) build(box);
    const entry = entries[keyOf(box.dataset.series, box.dataset.product)];
    box.querySelectorAll("input[type=radio]").forEach((radio) => { radio.checked = Boolean(entry) && entry.decision === radio.value; });
    const reason = box.querySelector(".why");
    const wanted = entry ? entry.reason : "";
    if (wanted && !REASONS.includes(wanted) && !Array.from(reason.options).some((o) => o.value === wanted)) reason.append(element("option", { value: wanted }, wanted));
    reason.value = wanted;
    box.querySelector(".words").value = entry ? entry.comment : "";
    const stale = entry && entry.objects !== box.dataset.objects;
    const state = box.querySelector(".review-state");
    state.replaceChildren("Review: ", element("b", {}, entry ? STATES[entry.decision] : box.dataset.state || "not reviewed"));
    if (entry) state.append(" by " + entry.reviewer + (stale ? ", of objects that have been made again since" : ", not imported yet"));
    else if (box.dataset.state && box.dataset.state !== "not reviewed") state.append(", imported into the run");
  };

  read();
  if (bar && run) {
    const field = element("input", { class: "reviewer", type: "text", autocomplete: "name", maxlength: "200" });
    field.value = name();
    field.addEventListener("input", () => { try { localStorage.setItem("ctenrich-reviewer", field.value); } catch (_) { kept = false; } });
    const button = element("button", { type: "button", class: "save" }, "Save reviews to a file");
    button.addEventListener("click", save);
    const chooser = element("input", { type: "file", accept: ".json,application/json" });
    chooser.addEventListener("change", () => { if (chooser.files.length) open(chooser.files[0]); });
    said = element("p", { class: "said", role: "status" });
    bar.append(element("label", {}, "Reviewer", field), button, element("label", { class: "file" }, "Continue a review file", chooser), said);
    say(count());
    database("readonly", (store) => store.get(key)).then((found) => { if (found && found.createWritable) { handle = found; say(count() + "; Save writes to " + handle.name); } });
  }
  document.querySelectorAll(".review").forEach(fill);

  return {
    /** Element with the controls of one product. */
    controls: (series, product, objects, state) => {
      const box = element("div", { class: "review", "data-series": series, "data-product": product, "data-objects": objects, "data-state": state || "" }, element("p", { class: "review-state" }));
      fill(box);
      return box;
    },
    /** State of a product: of this browser's review, else of those that the run has. */
    state: (series, product, imported) => {
      const entry = entries[keyOf(series, product)];
      return entry ? STATES[entry.decision] : imported || "not reviewed";
    },
    onChange: (listener) => listeners.push(listener),
    content,
  };
})();
