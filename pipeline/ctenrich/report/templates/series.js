"use strict";
/* The picture of a series page: planes of a reduced volume, masks as outlines and areas, landmarks as lines.

   Arrays have the axes 0 from head to feet, 1 from front to back, 2 from the patient's right to left. All drawing on a
   plane uses one coordinate system: mm from its upper left corner, which `Pane.transform` turns into pixels. */
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const PLANES = { axial: { fixed: 0, down: 1, right: 2 }, coronal: { fixed: 1, down: 0, right: 2 }, sagittal: { fixed: 2, down: 0, right: 1 } };
  const DASHES = [[], [6, 4], [2, 3], [9, 3, 2, 3]];
  const BANDS = ["#8c6bb1", "#4292c6", "#41ab5d", "#d94801", "#c51b8a", "#6a6a6a"];
  const letter = (n) => (n < 26 ? String.fromCharCode(65 + n) : String(n + 1));
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const words = (name) => name.replaceAll("_", " ");
  const make = (name, parent, attributes, text) => {
    const element = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    if (parent) parent.appendChild(element);
    return element;
  };

  /* ---------------------------------------------------------------- data: script files of the report's folder */

  const waiting = new Map();
  window.ctenrichPicture = (key, parts) => { const take = waiting.get(key); if (take) take(parts); };
  const load = (file, key) => new Promise((resolve, reject) => {
    waiting.set(key, resolve);
    const script = document.createElement("script");
    script.onerror = () => reject(new Error("missing"));
    script.src = file;
    document.head.appendChild(script);
  }).finally(() => waiting.delete(key));
  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const inflate = async (text) => {
    const stream = new Blob([bytes(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Response(stream).arrayBuffer();
  };
  const decodeSlices = async (parts, shape, chunk) => {
    const [planes, rows, columns] = shape, size = rows * columns, padded = Math.ceil(rows / 8) * 8;
    const out = new Uint8Array(planes * size);
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d", { willReadFrequently: true });
    for (let n = 0; n < parts.length; n++) {
      const image = await createImageBitmap(new Blob([bytes(parts[n])], { type: "image/jpeg" }), { colorSpaceConversion: "none" });
      canvas.width = image.width;
      canvas.height = image.height;
      context.drawImage(image, 0, 0);
      const pixels = context.getImageData(0, 0, image.width, image.height).data;
      for (let m = 0; m < chunk && n * chunk + m < planes; m++) {
        const from = m * padded * columns, to = (n * chunk + m) * size;
        for (let p = 0; p < size; p++) out[to + p] = pixels[4 * (from + p)];
      }
      for (let p = 0; p < 400; p += 4) if (pixels[p] !== pixels[p + 1]) throw new Error("changed");
    }
    return out;
  };

  /* ---------------------------------------------------------------- outlines */

  /* Outline of each label of a plane as a path in mm: pixel edges are followed, corners are cut at their midpoints. */
  const outlines = (labels, width, height, mmRight, mmDown) => {
    const edges = new Map();
    const at = (x, y) => (x < 0 || y < 0 || x >= width || y >= height ? 0 : labels[y * width + x]);
    const add = (label, x0, y0, x1, y1) => {
      if (!edges.has(label)) edges.set(label, new Map());
      const mine = edges.get(label), start = y0 * (width + 1) + x0, end = y1 * (width + 1) + x1;
      if (mine.has(start)) mine.get(start).push(end); else mine.set(start, [end]);
    };
    for (let y = 0; y < height; y++) for (let x = 0; x < width; x++) {
      const label = labels[y * width + x];
      if (!label) continue;
      if (at(x, y - 1) !== label) add(label, x, y, x + 1, y);
      if (at(x + 1, y) !== label) add(label, x + 1, y, x + 1, y + 1);
      if (at(x, y + 1) !== label) add(label, x + 1, y + 1, x, y + 1);
      if (at(x - 1, y) !== label) add(label, x, y + 1, x, y);
    }
    const out = new Map(), point = (v) => [(v % (width + 1)) * mmRight, Math.floor(v / (width + 1)) * mmDown];
    edges.forEach((mine, label) => {
      const path = new Path2D();
      for (const start of mine.keys()) {
        while (mine.get(start).length) {
          let here = start, first = true;
          do {
            const next = mine.get(here).pop(), [ax, ay] = point(here), [bx, by] = point(next);
            if (first) path.moveTo((ax + bx) / 2, (ay + by) / 2); else path.lineTo((ax + bx) / 2, (ay + by) / 2);
            first = false;
            here = next;
          } while (here !== start);
          path.closePath();
        }
      }
      out.set(label, path);
    });
    return out;
  };

  /* Isodose line of a plane of dose levels as a path in mm, interpolated between samples; nothing where a level is 0. */
  const isodose = (levels, width, height, mmRight, mmDown, wanted) => {
    const path = new Path2D();
    for (let y = 0; y + 1 < height; y++) for (let x = 0; x + 1 < width; x++) {
      const p = y * width + x, a = levels[p], b = levels[p + 1], c = levels[p + width + 1], d = levels[p + width];
      if (!a || !b || !c || !d) continue;
      const code = (a >= wanted) + 2 * (b >= wanted) + 4 * (c >= wanted) + 8 * (d >= wanted);
      if (code === 0 || code === 15) continue;
      const part = (from, to) => (wanted - from) / (to - from);
      const cuts = [];
      if ((a >= wanted) !== (b >= wanted)) cuts.push([x + part(a, b), y]);
      if ((b >= wanted) !== (c >= wanted)) cuts.push([x + 1, y + part(b, c)]);
      if ((d >= wanted) !== (c >= wanted)) cuts.push([x + part(d, c), y + 1]);
      if ((a >= wanted) !== (d >= wanted)) cuts.push([x, y + part(a, d)]);
      if (code === 10) cuts.unshift(cuts.pop()); /* two opposite corners: the lines cut off the cold ones */
      for (let n = 0; n + 1 < cuts.length; n += 2) {
        path.moveTo((cuts[n][0] + 0.5) * mmRight, (cuts[n][1] + 0.5) * mmDown);
        path.lineTo((cuts[n + 1][0] + 0.5) * mmRight, (cuts[n + 1][1] + 0.5) * mmDown);
      }
    }
    return path;
  };
  /* Colour of a share of the maximum: blue for little dose, red for the most. */
  const doseColour = (share) => "hsl(" + Math.round(240 * (1 - clamp(share, 0, 1))) + " 100% 50%)";
  const DOSE_FROM = 0.1; /* share of the maximum below which the wash is transparent */

  /* Places near the wanted ones, at least `least` apart as far as they fit between `low` and `high`. */
  const spread = (wanted, least, low, high) => {
    const order = wanted.map((_, n) => n).sort((a, b) => wanted[a] - wanted[b]), out = wanted.slice();
    let floor = low;
    order.forEach((n) => { out[n] = Math.max(wanted[n], floor); floor = out[n] + least; });
    let ceiling = high;
    order.reverse().forEach((n) => { out[n] = Math.min(out[n], ceiling); ceiling = out[n] - least; });
    return out;
  };

  /* ---------------------------------------------------------------- one plane */

  class Pane {
    constructor(bench, name, products) {
      this.bench = bench;
      this.name = name;
      this.products = products;
      Object.assign(this, PLANES[name]);
      const axes = bench.meta.axes;
      this.axis = axes[this.fixed];
      this.columns = axes[this.right].count;
      this.rows = axes[this.down].count;
      this.mmRight = axes[this.right].spacing;
      this.mmDown = axes[this.down].spacing;
      this.width = this.columns * this.mmRight;
      this.height = this.rows * this.mmDown;
      this.build();
    }

    build() {
      const axes = this.bench.meta.axes;
      this.element = make("div", this.bench.views, { class: "pane p-" + this.name });
      this.frame = make("div", this.element, { class: "pane-picture", tabindex: "0", role: "group" });
      this.frame.style.aspectRatio = this.width + " / " + this.height;
      this.canvas = make("canvas", this.frame, { role: "img", "aria-label": this.name + " CT" });
      this.marks = make("svg:svg", this.frame, { class: "marks", "aria-hidden": "true" });
      const hud = (place, text) => make("span", this.frame, { class: "hud " + place, "aria-hidden": "true" }, text);
      const [left, right] = axes[this.right].ends, [top, bottom] = axes[this.down].ends;
      hud("side left", left); hud("side right", right); hud("side top", top); hud("side bottom", bottom);
      const several = this.bench.meta.products.length > 1;
      const title = hud("tl", this.name[0].toUpperCase() + this.name.slice(1) + (several ? " · " + this.products.map(letter).join(" ") : ""));
      if (several && this.products.length === 1) make("small", title, {}, this.bench.meta.products[this.products[0]].name);
      this.window = hud("tr", "");
      this.place = hud("bl", "");
      const scale = hud("br", "");
      this.bar = make("span", scale, { class: "scale-bar" });
      make("br", scale);
      this.barText = make("span", scale, {}, "");
      this.slider = make("input", this.element, { type: "range", min: "0", max: String(this.axis.count - 1), step: "1", "aria-label": "Slice of the " + this.name + " plane" });
      this.slider.addEventListener("input", () => this.bench.go(this.fixed, Number(this.slider.value)));
      this.offscreen = document.createElement("canvas");
      this.offscreen.width = this.columns;
      this.offscreen.height = this.rows;
      this.listen();
      this.watch = new ResizeObserver(() => this.draw());
      this.watch.observe(this.frame);
    }

    remove() { this.watch.disconnect(); this.element.remove(); }

    /* Position in mm and zoom are shared by all panes of a plane. */
    get view() { return this.bench.zooms[this.name]; }

    transform() {
      const w = this.frame.clientWidth, h = this.frame.clientHeight;
      const scale = Math.min(w / this.width, h / this.height) * this.view.zoom;
      return { scale, x: w / 2 - this.view.x * scale, y: h / 2 - this.view.y * scale, w, h };
    }

    toSample(event) {
      const box = this.frame.getBoundingClientRect(), t = this.transform();
      return [Math.floor((event.clientY - box.top - t.y) / t.scale / this.mmDown), Math.floor((event.clientX - box.left - t.x) / t.scale / this.mmRight)];
    }

    draw() {
      const t = this.transform(), ratio = window.devicePixelRatio || 1;
      if (!t.w || !t.h || !this.bench.levels) return;
      this.canvas.width = Math.round(t.w * ratio);
      this.canvas.height = Math.round(t.h * ratio);
      const context = this.canvas.getContext("2d"), index = this.bench.at[this.fixed];
      const off = this.offscreen.getContext("2d"), image = off.createImageData(this.columns, this.rows);
      const plane = this.bench.plane(this.bench.levels, this.fixed, index), grey = this.bench.grey;
      for (let p = 0; p < plane.length; p++) {
        image.data[4 * p] = image.data[4 * p + 1] = image.data[4 * p + 2] = grey[plane[p]];
        image.data[4 * p + 3] = 255;
      }
      off.putImageData(image, 0, 0);
      context.setTransform(ratio, 0, 0, ratio, 0, 0);
      context.imageSmoothingQuality = "high";
      context.drawImage(this.offscreen, t.x, t.y, this.width * t.scale, this.height * t.scale);
      context.setTransform(ratio * t.scale, 0, 0, ratio * t.scale, ratio * t.x, ratio * t.y);
      if (this.bench.dose) this.drawDose(context, index, t);
      this.products.forEach((n) => this.drawMasks(context, n, index, t.scale));
      this.drawMarks(t, index);
      this.describe(index, t);
      this.frame.style.touchAction = this.view.zoom > 1 ? "none" : "pan-y"; /* a picture that is not zoomed lets the page scroll */
    }

    drawDose(context, index, t) {
      const mode = this.bench.doseSelect.value;
      if (mode === "off") return;
      const levels = this.bench.plane(this.bench.dose, this.fixed, index);
      if (mode !== "lines") {
        const off = this.offscreen.getContext("2d"), image = off.createImageData(this.columns, this.rows);
        const pixels = new Uint32Array(image.data.buffer), colours = this.bench.doseColours;
        for (let p = 0; p < levels.length; p++) pixels[p] = colours[levels[p]];
        off.putImageData(image, 0, 0);
        context.globalAlpha = Number(this.bench.doseOpacity.value);
        context.drawImage(this.offscreen, 0, 0, this.width, this.height);
        context.globalAlpha = 1;
      }
      if (mode === "wash") return;
      context.lineWidth = 1.6 / t.scale;
      this.bench.isodoses.forEach((dose) => {
        const key = "dose " + dose + " " + this.fixed + " " + index, share = dose / this.bench.meta.dose.maximum;
        if (!this.bench.cache.has(key)) this.bench.cache.set(key, isodose(levels, this.columns, this.rows, this.mmRight, this.mmDown, 1 + 254 * share));
        context.strokeStyle = doseColour(share);
        context.stroke(this.bench.cache.get(key));
      });
    }

    drawMasks(context, number, index, scale) {
      const product = this.bench.meta.products[number];
      this.bench.paths(number, this, index).forEach((path, label) => {
        const segment = product.segments[label - 1], style = this.bench.styles.get(segment.name);
        if (!style || !style.shown) return;
        context.fillStyle = context.strokeStyle = segment.colour;
        if (style.drawn !== "contour") { context.globalAlpha = style.opacity; context.fill(path, "evenodd"); }
        if (style.drawn !== "fill") {
          context.globalAlpha = Math.min(1, style.opacity * 3);
          context.lineWidth = 1.8 / scale;
          context.setLineDash(DASHES[number % 4].map((d) => d / scale));
          context.stroke(path);
        }
      });
      context.globalAlpha = 1;
    }

    drawMarks(t, index) {
      this.marks.replaceChildren();
      this.marks.setAttribute("viewBox", "0 0 " + t.w + " " + t.h);
      const stack = this.bench.meta.stack, shown = this.bench.shown;
      if (this.bench.three) this.drawCross(t);
      if (this.fixed === stack) return;
      const across = this.down === stack, mm = this.bench.meta.axes[stack].spacing;
      const pixel = (sample) => (across ? t.y : t.x) + (sample + 0.5) * mm * t.scale;
      const length = across ? t.w : t.h, limit = across ? t.h : t.w;
      if (shown.regions) this.bench.meta.regions.forEach((region, n) => region.ranges.forEach(([from, to]) => {
        const a = clamp(pixel(from), 0, limit), b = clamp(pixel(to), 0, limit), side = 34 + 16 * n;
        if (b <= a) return;
        const place = across ? { x: side, y: a, width: 13, height: b - a } : { x: a, y: side, width: b - a, height: 13 };
        make("svg:title", make("svg:rect", this.marks, { class: "region", fill: BANDS[n % BANDS.length], rx: 2, ...place }), {}, region.name);
        if (b - a > 6.5 * region.name.length) make("svg:text", this.marks, { class: "rname", "text-anchor": "middle", transform: across ? "translate(" + (side + 10) + "," + (a + b) / 2 + ") rotate(-90)" : "translate(" + (a + b) / 2 + "," + (side + 10) + ")" }, region.name);
      }));
      if (!shown.landmarks) return;
      const lines = this.bench.meta.landmarks.map((mark) => ({ name: words(mark.name), at: pixel(mark.at) })).filter((l) => l.at > 0 && l.at < limit);
      const places = across ? spread(lines.map((l) => l.at), 13, 28, limit - 50) : spread(lines.map((l) => l.at), 60, 30, limit - 30);
      lines.forEach((line, n) => {
        const d = across ? "M0 " + line.at + "H" + (length - 72) : "M" + line.at + " 0V" + (length - 22);
        make("svg:path", this.marks, { class: "mark", d, "data-landmark": line.name }, undefined);
        const lead = across ? "M" + (length - 72) + " " + line.at + "L" + (length - 60) + " " + places[n] : "M" + line.at + " " + (length - 22) + "L" + places[n] + " " + (length - 14);
        make("svg:path", this.marks, { class: "lead", d: lead }, undefined);
        make("svg:text", this.marks, across ? { x: length - 4, y: places[n] + 4, "text-anchor": "end" } : { x: places[n], y: length - 4, "text-anchor": "middle" }, line.name);
      });
    }

    drawCross(t) {
      const x = t.x + (this.bench.at[this.right] + 0.5) * this.mmRight * t.scale, y = t.y + (this.bench.at[this.down] + 0.5) * this.mmDown * t.scale;
      make("svg:path", this.marks, { class: "cross", d: "M" + x + " 0V" + t.h + "M0 " + y + "H" + t.w });
    }

    describe(index, t) {
      const [centre, width] = this.bench.level;
      this.window.textContent = "C " + Math.round(centre) + " W " + Math.round(width);
      const number = this.axis.first + index * this.axis.step + 1;
      const position = this.axis.position + index * this.axis.position_step;
      const what = this.fixed === this.bench.meta.stack ? "Slice " : "Plane ";
      const text = what + number + " of " + this.axis.total + " · " + ["z", "y", "x"][this.fixed] + " " + position.toFixed(1).replace("-", "−") + " mm";
      const here = this.fixed === this.bench.meta.stack ? this.bench.meta.landmarks.filter((m) => Math.round(m.at) === index).map((m) => words(m.name)) : [];
      this.place.textContent = text + (here.length && this.bench.shown.landmarks ? " · " + here.join(", ") : "");
      const steps = [1, 2, 5, 10, 20, 50, 100, 200], bar = steps.filter((mm) => mm * t.scale <= Math.min(110, t.w * 0.3)).pop() || 1;
      this.bar.style.width = bar * t.scale + "px";
      this.bar.dataset.mm = bar;
      this.barText.textContent = bar + " mm";
      this.slider.value = index;
      this.slider.setAttribute("aria-valuetext", text);
      const names = this.products.map((n) => this.bench.meta.products[n].name).join(" and ");
      this.canvas.setAttribute("aria-label", this.name + " CT, " + text + (names ? ", masks of " + names : ""));
      this.frame.setAttribute("aria-label", this.name + " plane" + (names ? " of " + names : "") + ": arrow keys scroll slices, plus and minus zoom");
    }

    listen() {
      const bench = this.bench, points = new Map();
      let last = null, moved = 0, left = 0, pinch = 0, turned = 0;
      const step = (n) => bench.go(this.fixed, bench.at[this.fixed] + n);
      this.frame.addEventListener("wheel", (event) => {
        const way = Math.sign(event.deltaY);
        if (event.ctrlKey) { event.preventDefault(); this.zoom(Math.pow(1.15, -way), event); return; }
        const next = bench.at[this.fixed] + way;
        if (!way || next < 0 || next >= this.axis.count) return;
        event.preventDefault();
        turned = (Math.sign(turned) === way ? turned : 0) + event.deltaY * (event.deltaMode ? 33 : 1);
        if (Math.abs(turned) >= 50) { turned = 0; step(way); } /* a notch of a wheel; several events of a touchpad */
      }, { passive: false });
      this.frame.addEventListener("contextmenu", (event) => event.preventDefault());
      this.frame.addEventListener("dblclick", () => bench.fit(this.name));
      this.frame.addEventListener("pointerdown", (event) => {
        points.set(event.pointerId, [event.clientX, event.clientY]);
        if (event.pointerType !== "touch") this.frame.setPointerCapture(event.pointerId);
        last = [event.clientX, event.clientY]; moved = left = pinch = 0;
      });
      this.frame.addEventListener("pointermove", (event) => {
        bench.point(this, event);
        if (!points.has(event.pointerId)) return;
        points.set(event.pointerId, [event.clientX, event.clientY]);
        const [a, b] = [...points.values()];
        if (b) {
          const apart = Math.hypot(a[0] - b[0], a[1] - b[1]), middle = { clientX: (a[0] + b[0]) / 2, clientY: (a[1] + b[1]) / 2 };
          if (pinch) this.zoom(apart / pinch, middle);
          pinch = apart;
          return;
        }
        const dx = event.clientX - last[0], dy = event.clientY - last[1];
        last = [event.clientX, event.clientY];
        moved += Math.abs(dx) + Math.abs(dy);
        if (event.pointerType === "touch" && this.view.zoom <= 1) {
          left += dx;
          const each = Math.max(4, this.frame.clientWidth / this.axis.count), n = Math.trunc(left / each);
          if (n) { left -= n * each; step(n); }
        } else if (event.shiftKey || event.buttons === 2) bench.setWindow(bench.level[0] + dy * 2, Math.max(1, bench.level[1] + dx * 4));
        else if (moved > 3) this.pan(dx, dy);
      });
      const end = (event) => {
        points.delete(event.pointerId);
        if (event.type === "pointerup" && moved <= 3 && bench.three && event.button === 0) {
          const [row, column] = this.toSample(event);
          if (row >= 0 && row < this.rows && column >= 0 && column < this.columns) { bench.at[this.down] = row; bench.at[this.right] = column; bench.draw(); }
        }
      };
      this.frame.addEventListener("pointerup", end);
      this.frame.addEventListener("pointercancel", end);
      this.frame.addEventListener("pointerleave", () => bench.point(null));
      this.frame.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.altKey || event.metaKey) return;
        const shift = { ArrowUp: [0, 40], ArrowDown: [0, -40], ArrowLeft: [40, 0], ArrowRight: [-40, 0] }[event.key];
        const scroll = { ArrowUp: -1, ArrowLeft: -1, ArrowDown: 1, ArrowRight: 1, PageUp: -10, PageDown: 10, Home: -1e6, End: 1e6 }[event.key];
        if (event.shiftKey && shift) this.pan(...shift);
        else if (scroll) step(scroll);
        else if (event.key === "+" || event.key === "=") this.zoom(1.25);
        else if (event.key === "-") this.zoom(0.8);
        else if (event.key === "0") bench.fit(this.name);
        else if (event.key === "w") bench.nextWindow();
        else return;
        event.preventDefault();
      });
    }

    zoom(factor, around) {
      const t = this.transform(), box = this.frame.getBoundingClientRect(), view = this.view;
      const px = around ? around.clientX - box.left : t.w / 2, py = around ? around.clientY - box.top : t.h / 2;
      const zoom = clamp(view.zoom * factor, 0.5, 20), mmX = (px - t.x) / t.scale, mmY = (py - t.y) / t.scale, scale = t.scale * zoom / view.zoom;
      view.zoom = zoom;
      view.x = mmX + (t.w / 2 - px) / scale;
      view.y = mmY + (t.h / 2 - py) / scale;
      this.bench.draw();
    }

    pan(dx, dy) {
      const t = this.transform();
      this.view.x = clamp(this.view.x - dx / t.scale, 0, this.width);
      this.view.y = clamp(this.view.y - dy / t.scale, 0, this.height);
      this.bench.draw();
    }
  }

  /* ---------------------------------------------------------------- the whole picture */

  class Bench {
    constructor(root) {
      this.root = root;
      this.meta = JSON.parse(root.querySelector(".bench-data").textContent);
      this.shape = this.meta.axes.map((axis) => axis.count);
      this.at = this.meta.start.slice();
      this.views = root.querySelector(".bench-views");
      this.state = root.querySelector(".bench-state");
      this.panes = [];
      this.cache = new Map();
      this.labels = [];
      this.visible = this.meta.products.map(() => true);
      this.shown = { landmarks: true, regions: false };
      this.zooms = {};
      for (const name in PLANES) this.fit(name);
      const drawn = this.meta.products.length > 1 || this.meta.dose ? "contour" : "both";
      this.styles = new Map(this.meta.products.flatMap((p) => p.segments).map((s) => [s.name, { shown: true, drawn, opacity: 0.35 }]));
      this.values = this.valueTable();
    }

    async start() {
      this.state.textContent = "Loading slices …";
      try {
        const [slices, ...masks] = await Promise.all([load(this.meta.file, this.meta.key), ...this.meta.products.map((p) => load(p.file, p.key))]);
        if (this.meta.dose) this.dose = new Uint8Array(await inflate((await load(this.meta.dose.file, this.meta.dose.key))[0]));
        this.levels = await decodeSlices(slices, this.shape, this.meta.chunk);
        this.labels = await Promise.all(masks.map((parts, n) => Promise.all(parts.map(async (part) => {
          const buffer = await inflate(part);
          return this.meta.products[n].wide ? new Uint16Array(buffer) : new Uint8Array(buffer);
        }))));
      } catch (error) {
        this.state.textContent = error.message === "missing" ? "The still picture is shown: the files of the folder “pictures” are not beside this page." : error.message === "changed" ? "The still picture is shown: this browser changes the pixels that a page reads back (protection against fingerprinting)." : "The still picture is shown: this browser cannot decode the slices (" + error.message + ").";
        return;
      }
      this.state.textContent = "";
      this.root.classList.add("ready");
      this.connect();
      this.layout();
      this.root.dataset.ready = "yes";
      this.follow();
      addEventListener("hashchange", () => this.follow());
    }

    /* The list of the first page links to a slice: #slice=INDEX. */
    follow() {
      const wanted = /^#slice=(\d+)$/.exec(location.hash);
      if (!wanted) return;
      this.show(Number(wanted[1]));
      this.root.scrollIntoView({ block: "start" });
    }

    /* Value of each of the 256 levels. */
    valueTable() {
      const knots = this.meta.knots, out = new Float32Array(256);
      for (let level = 0, n = 0; level < 256; level++) {
        while (n < knots.length - 2 && level > knots[n + 1][1]) n++;
        const [[v0, l0], [v1, l1]] = [knots[n], knots[n + 1]];
        out[level] = v0 + (v1 - v0) * (level - l0) / (l1 - l0);
      }
      return out;
    }

    /* One plane of an array: rows from the top, columns from the left. */
    plane(array, fixed, index) {
      const [nz, ny, nx] = this.shape;
      if (fixed === 0) return array.subarray(index * ny * nx, (index + 1) * ny * nx);
      const width = fixed === 1 ? nx : ny, out = new array.constructor(nz * width);
      for (let z = 0; z < nz; z++) for (let c = 0; c < width; c++) out[z * width + c] = array[(z * ny + (fixed === 1 ? index : c)) * nx + (fixed === 1 ? c : index)];
      return out;
    }

    paths(product, pane, index) {
      const key = product + " " + pane.fixed + " " + index;
      if (!this.cache.has(key)) {
        if (this.cache.size > 300) this.cache.clear();
        const found = new Map();
        this.labels[product].forEach((layer) => outlines(this.plane(layer, pane.fixed, index), pane.columns, pane.rows, pane.mmRight, pane.mmDown).forEach((path, label) => found.set(label, path)));
        this.cache.set(key, found);
      }
      return this.cache.get(key);
    }

    setWindow(centre, width) {
      this.level = [centre, width];
      this.windowSelect.value = "own";
      this.applyWindow();
    }

    applyWindow() {
      const [centre, width] = this.level;
      this.grey = Uint8ClampedArray.from(this.values, (v) => (v - centre + width / 2) / width * 255);
      this.centreInput.value = Math.round(centre);
      this.widthInput.value = Math.round(width);
      this.draw();
    }

    chooseWindow() {
      const value = this.windowSelect.value, low = this.values[0], high = this.values[255];
      if (value === "own") return;
      this.level = value === "whole" ? [(low + high) / 2, high - low] : value.split(",").map(Number);
      this.applyWindow();
    }

    nextWindow() {
      const options = this.windowSelect.options;
      this.windowSelect.selectedIndex = (this.windowSelect.selectedIndex + 1) % (options.length - 1);
      this.chooseWindow();
    }

    go(axis, index) {
      this.at[axis] = clamp(Math.round(index), 0, this.shape[axis] - 1);
      this.draw();
    }

    fit(name) {
      const { down, right } = PLANES[name], axes = this.meta.axes;
      this.zooms[name] = { zoom: 1, x: axes[right].count * axes[right].spacing / 2, y: axes[down].count * axes[down].spacing / 2 };
      if (this.levels) this.draw();
    }

    draw() {
      if (this.queued) return;
      this.queued = requestAnimationFrame(() => {
        this.queued = 0;
        this.panes.forEach((pane) => pane.draw());
        const first = this.panes[0];
        if (first) this.root.querySelector(".b-zoom").textContent = Math.round(first.view.zoom * 100) + " %";
      });
    }

    get three() { return this.viewSelect.value === "three"; }

    layout() {
      this.panes.forEach((pane) => pane.remove());
      const names = this.three ? Object.keys(PLANES) : [this.viewSelect.value];
      const products = this.meta.products.map((_, n) => n).filter((n) => this.visible[n]);
      const side = this.compareSelect !== null && this.compareSelect.value === "side" && products.length > 1;
      this.views.className = "bench-views" + (this.three ? " three" : "") + (side ? " side" : "");
      this.panes = (side ? products.map((n) => [n]) : [products]).flatMap((shown) => names.map((name) => new Pane(this, name, shown)));
      this.draw();
    }

    /* Value and structures under the pointer. */
    point(pane, event) {
      const line = this.root.querySelector(".bench-pointer");
      if (!pane) { line.textContent = ""; return; }
      const [row, column] = pane.toSample(event);
      if (row < 0 || column < 0 || row >= pane.rows || column >= pane.columns) { line.textContent = ""; return; }
      const at = this.at.slice();
      at[pane.down] = row;
      at[pane.right] = column;
      const place = (at[0] * this.shape[1] + at[1]) * this.shape[2] + at[2];
      const several = this.meta.products.length > 1;
      const names = pane.products.flatMap((n) => this.labels[n].filter((layer) => layer[place]).map((layer) => (several ? letter(n) + " " : "") + words(this.meta.products[n].segments[layer[place] - 1].name)));
      const dose = !this.dose ? [] : this.dose[place] ? ["≈ " + ((this.dose[place] - 1) / 254 * this.meta.dose.maximum).toFixed(1) + " Gy"] : ["outside the dose grid"];
      line.textContent = ["≈ " + Math.round(this.values[this.levels[place]]) + " " + this.meta.unit, ...dose, ...names].join(" · ");
    }

    /* Slice of the source, or the place where a structure is largest. */
    show(index, organ) {
      const stack = this.meta.stack, axis = this.meta.axes[stack];
      if (organ) {
        const segment = this.meta.products.flatMap((p) => p.segments).find((s) => s.name === organ && s.at);
        if (segment) this.at = segment.at.slice();
      }
      if (index !== null) this.at[stack] = clamp(Math.round((index - axis.first) / axis.step), 0, axis.count - 1);
      this.draw();
    }

    connect() {
      const find = (name) => this.root.querySelector(name);
      this.viewSelect = find(".b-view");
      this.windowSelect = find(".b-window");
      this.centreInput = find(".b-centre");
      this.widthInput = find(".b-width");
      this.compareSelect = find(".b-compare");
      if (this.views.clientWidth > 760) this.viewSelect.value = "three";
      else this.viewSelect.value = Object.keys(PLANES)[this.meta.stack];
      this.viewSelect.addEventListener("change", () => this.layout());
      this.windowSelect.addEventListener("change", () => this.chooseWindow());
      [this.centreInput, this.widthInput].forEach((input) => input.addEventListener("change", () => this.setWindow(Number(this.centreInput.value), Math.max(1, Number(this.widthInput.value)))));
      if (this.compareSelect) this.compareSelect.addEventListener("change", () => this.layout());
      find(".b-in").addEventListener("click", () => this.panes.forEach((pane, n) => { if (this.panes.findIndex((p) => p.name === pane.name) === n) pane.zoom(1.25); }));
      find(".b-out").addEventListener("click", () => this.panes.forEach((pane, n) => { if (this.panes.findIndex((p) => p.name === pane.name) === n) pane.zoom(0.8); }));
      find(".b-fit").addEventListener("click", () => { for (const name in PLANES) this.fit(name); });
      ["landmarks", "regions"].forEach((what) => {
        const box = find(".b-" + what);
        if (box) box.addEventListener("change", () => { this.shown[what] = box.checked; this.draw(); });
      });
      this.root.querySelectorAll("[data-product]").forEach((box) => box.addEventListener("change", () => { this.visible[Number(box.dataset.product)] = box.checked; this.layout(); }));
      const page = this.root.closest("article, main") || document;
      page.querySelectorAll("button.goto").forEach((button) => button.addEventListener("click", () => {
        this.show(Number(button.dataset.index), button.dataset.organ);
        this.root.scrollIntoView({ block: "start" });
        this.panes[0].frame.focus({ preventScroll: true });
      }));
      this.connectDose(find);
      this.connectOrgans(find, page);
      this.chooseWindow();
    }

    connectDose(find) {
      this.doseSelect = find(".b-dose");
      this.doseOpacity = find(".b-dose-opacity");
      if (!this.dose) return;
      const canvas = document.createElement("canvas"), context = canvas.getContext("2d"), input = find(".b-isodoses"), legend = find(".b-dose-legend"), most = this.meta.dose.maximum;
      canvas.width = 256; canvas.height = 1;
      for (let level = 0; level < 256; level++) {
        context.fillStyle = doseColour((level - 1) / 254);
        if ((level - 1) / 254 >= DOSE_FROM) context.fillRect(level, 0, 1, 1);
      }
      this.doseColours = new Uint32Array(context.getImageData(0, 0, 256, 1).data.buffer);
      const refresh = () => {
        this.isodoses = [...new Set(input.value.split(/[,;\s]+/).map(Number).filter((dose) => dose > 0 && dose < most))].sort((a, b) => b - a);
        const mode = this.doseSelect.value;
        legend.replaceChildren();
        legend.hidden = mode === "off";
        if (mode !== "lines") {
          make("span", legend, {}, (DOSE_FROM * most).toFixed(1) + " Gy");
          make("i", legend, { class: "b-wash" }).style.background = "linear-gradient(90deg," + [0.1, 0.325, 0.55, 0.775, 1].map(doseColour).join(",") + ")";
          make("span", legend, {}, most.toFixed(1) + " Gy");
        }
        if (mode !== "wash") this.isodoses.forEach((dose) => {
          const item = make("span", legend, { class: "b-isodose" });
          make("i", item).style.background = doseColour(dose / most);
          make("span", item, {}, dose + " Gy");
        });
        this.draw();
      };
      [this.doseSelect, input].forEach((control) => control.addEventListener("change", refresh));
      this.doseOpacity.addEventListener("input", () => this.draw());
      refresh();
    }

    connectOrgans(find, page) {
      const search = find(".organ-find"), scope = find(".b-scope"), drawn = find(".b-drawn"), opacity = find(".b-opacity");
      if (!search) return;
      const items = [...this.root.querySelectorAll(".legend li")], systems = [...this.root.querySelectorAll(".b-system")];
      const refresh = () => {
        items.forEach((item) => {
          const box = item.querySelector(".b-shown");
          if (box) { this.styles.get(item.dataset.organ).shown = box.checked; item.classList.toggle("off", !box.checked); }
        });
        systems.forEach((system) => {
          const all = system.querySelector(".b-group-all"), boxes = [...system.querySelectorAll(".b-shown")];
          if (all) { all.checked = boxes.every((b) => b.checked); all.indeterminate = !all.checked && boxes.some((b) => b.checked); }
        });
        this.draw();
      };
      drawn.value = this.meta.products.length > 1 || this.meta.dose ? "contour" : "both";
      const chosen = () => {
        const style = scope.value ? this.styles.get(scope.value) : null;
        items.forEach((item) => item.classList.toggle("chosen", item.dataset.organ === scope.value));
        if (style) { drawn.value = style.drawn; opacity.value = style.opacity; }
      };
      items.forEach((item) => {
        const name = item.dataset.organ, box = item.querySelector(".b-shown"), button = item.querySelector("button.b-name");
        if (!box) return;
        scope.add(new Option(words(name), name));
        box.addEventListener("change", refresh);
        button.addEventListener("click", () => { scope.value = name; chosen(); this.show(null, name); });
      });
      scope.addEventListener("change", chosen);
      const change = (set) => { this.styles.forEach((style, name) => { if (!scope.value || scope.value === name) set(style); }); this.draw(); };
      drawn.addEventListener("change", () => change((style) => { style.drawn = drawn.value; }));
      opacity.addEventListener("input", () => change((style) => { style.opacity = Number(opacity.value); }));
      systems.forEach((system) => {
        const all = system.querySelector(".b-group-all");
        if (all) all.addEventListener("change", () => {
          system.querySelectorAll("li:not([hidden]) .b-shown").forEach((box) => { box.checked = all.checked; });
          refresh();
        });
      });
      search.addEventListener("input", () => {
        const wanted = search.value.toLowerCase().split(/\s+/).filter(Boolean);
        items.forEach((item) => { item.hidden = !wanted.every((word) => item.querySelector(".b-name").textContent.toLowerCase().includes(word)); });
        systems.forEach((system) => {
          system.hidden = [...system.querySelectorAll(".legend li")].every((item) => item.hidden);
          if (wanted.length && !system.hidden) system.open = true;
        });
        page.querySelectorAll("table.organs tbody").forEach((body) => {
          const rows = [...body.rows].filter((row) => !row.classList.contains("system"));
          rows.forEach((row) => { row.hidden = !wanted.every((word) => row.cells[0].textContent.toLowerCase().includes(word)); });
          body.hidden = rows.every((row) => row.hidden);
        });
      });
    }
  }

  /* The picture is loaded when it comes into view. */
  const started = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (!entry.isIntersecting) return;
    started.unobserve(entry.target);
    new Bench(entry.target).start();
  }), { rootMargin: "400px" });
  document.querySelectorAll(".bench").forEach((bench) => started.observe(bench));
})();
