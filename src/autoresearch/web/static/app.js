// The page's only script. The server sends HTML that it has escaped; this file draws the chart,
// puts new parts in their places, and opens experiments beside the page. No other host is asked.

const find = (selector, within = document) => within.querySelector(selector);
const findAll = (selector, within = document) => [...within.querySelectorAll(selector)];
const session = find("#session");
const base = session?.dataset.base;
const CLOCK_OFFSET_S = Number(document.body.dataset.now) - Date.now() / 1000;

const tell = (text) => {
  const trouble = find("#trouble");
  trouble.hidden = !text;
  trouble.textContent = text;
};

async function fetchPart(address, signal) {
  const url = new URL(address, location.href);
  url.searchParams.set("part", "1");
  const response = await fetch(url, { signal });
  const text = await response.text();
  // A page that cannot be shown comes as a part that says why. Anything else is no page of ours.
  if (!response.ok && !response.headers.get("content-type")?.startsWith("text/html")) {
    throw new Error(text.trim() || `the server answered ${response.status}`);
  }
  return text;
}

// Put a part in its place. Whatever had the focus in it has it again.
function replacePart(place, html) {
  const focused = place.contains(document.activeElement) ? document.activeElement : null;
  const { sort, page, open, do: action } = focused?.dataset ?? {};
  place.innerHTML = html;
  const same = [["sort", sort], ["page", page], ["open", open], ["do", action]].find(([, value]) => value);
  if (same) {
    const [name, value] = same;
    find(`:is(a, button)[data-${name}="${CSS.escape(value)}"]`, place)?.focus({ preventScroll: true });
  }
  tick();
}

// Call at most once in `ms`, the last time included.
function limit(ms, call) {
  let timer = 0;
  let last = -Infinity;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      last = performance.now();
      call();
    }, Math.max(0, last + ms - performance.now()));
  };
}

// ---- times that go on without the server --------------------------------------------------

function formatDuration(seconds) {
  if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 99.5) return `${seconds.toFixed(0)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function tick() {
  const now = Date.now() / 1000 + CLOCK_OFFSET_S;
  for (const element of findAll("[data-age]")) {
    element.textContent = formatDuration(now - Number(element.dataset.age));
  }
  for (const element of findAll("progress[data-started]")) {
    element.value = Math.min(element.max, now - Number(element.dataset.started));
  }
}

// ---- dark and light -----------------------------------------------------------------------

const isDark = () => {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  document.cookie = `theme=${theme}; path=/; max-age=31536000; samesite=lax`;
  chart?.redraw();
}

// ---- the chart ----------------------------------------------------------------------------

const DISCARD = 0;
const KEEP = 1;
const CRASH = 2;
const REACH = 26; // pixels from the pointer to a dot that it means
const LABEL_ANGLE = Math.PI / 6;
const LABEL_GAP = 17; // pixels between the lines on which two labels are written
const ROOM = 0.02; // of the width, free at either side

class Chart {
  constructor(place, tip) {
    this.place = place;
    this.tip = tip;
    this.hint = tip.textContent;
    this.numbers = [];
    this.statuses = [];
    this.metrics = [];
    this.texts = [];
    this.changes = [];
    this.view = { last: null, box: null, outliers: false };
    this.chosen = -1;
    this.colours = new Map();
    this.loading = null;
    new ResizeObserver(() => this.resize()).observe(place);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.redraw());
    place.addEventListener("keydown", (event) => this.handleKey(event));
    place.addEventListener("blur", () => this.choose(-1));
  }

  // Ask for the experiments that are new, and for the lines, which may all have moved.
  async load() {
    if (this.loading) return;
    this.loading = fetch(`${base}chart?after=${this.numbers.length - 1}`);
    try {
      const response = await this.loading;
      if (response.ok) this.take(await response.json());
    } finally {
      this.loading = null;
    }
  }

  take(news) {
    if (news.after !== this.numbers.length - 1) return;
    this.numbers.push(...news.dots.number);
    this.statuses.push(...news.dots.status);
    this.metrics.push(...news.dots.metric);
    this.texts.push(...news.dots.text);
    this.changes.push(...news.dots.change);
    this.facts = news;
    this.place.dataset.dots = this.numbers.length;
    find("#band-legend").hidden = !news.sd;
    if (this.plot) {
      this.plot.setData(this.data(), false);
      this.show();
    } else if (this.numbers.length && news.frame[0] !== null) {
      this.place.textContent = "";
      this.plot = new uPlot(this.options(), this.data(), this.place);
      this.plot.over.addEventListener("click", (event) => this.click(event));
      this.show();
    } else {
      this.place.textContent = "The first dot appears when the baseline is measured.";
    }
  }

  data() {
    return [this.numbers.map((_, place) => place), this.metrics];
  }

  options() {
    const ink = () => this.colour("--muted");
    const grid = { stroke: () => this.colour("--line"), width: 1 };
    const axis = { stroke: ink, grid, ticks: { ...grid, size: 4 }, font: "12px system-ui" };
    const whole = (_, splits) => splits.map((at) => (Number.isInteger(at) ? String(at) : ""));
    return {
      ...this.size(),
      legend: { show: false },
      scales: { x: { time: false, auto: false }, y: { auto: false } },
      axes: [
        { ...axis, values: whole, label: "experiments finished", labelSize: 18, labelFont: "12px system-ui" },
        { ...axis, size: 66, values: (_, splits) => this.formatTicks(splits) },
      ],
      series: [{}, { paths: () => null, points: { show: false } }],
      cursor: {
        points: { show: false },
        drag: { x: true, y: true, uni: 40, setScale: false },
        bind: { dblclick: () => () => this.zoom("all") },
      },
      hooks: {
        draw: [(plot) => this.draw(plot)],
        setCursor: [(plot) => this.hover(plot)],
        setSelect: [(plot) => this.select(plot)],
      },
    };
  }

  size() {
    return { width: this.place.clientWidth, height: this.place.clientHeight };
  }

  resize() {
    this.plot?.setSize(this.size());
  }

  // A canvas needs the colour itself, not the expression for both themes.
  colour(name) {
    const key = `${name} ${isDark()}`;
    if (!this.colours.has(key)) {
      this.probe ??= this.place.parentElement.appendChild(document.createElement("i"));
      this.probe.hidden = true;
      this.probe.style.color = `var(${name})`;
      this.colours.set(key, getComputedStyle(this.probe).color);
    }
    return this.colours.get(key);
  }

  redraw() {
    this.plot?.redraw(false, true);
  }

  formatTicks(splits) {
    const step = splits.length > 1 ? Math.abs(splits[1] - splits[0]) : 1;
    const decimals = Math.min(10, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9)));
    return splits.map((at) => (Math.abs(at) >= 1e6 ? at.toExponential(2) : at.toFixed(decimals)));
  }

  // ---- zoom

  zoom(kind) {
    if (kind === "outliers") this.view.outliers = !this.view.outliers;
    else this.view.last = kind === "all" ? null : Number(kind);
    this.view.box = null;
    this.show();
  }

  scale(by) {
    const [low, high] = this.range().x;
    const middle = this.chosen >= 0 ? this.chosen : (low + high) / 2;
    const half = Math.max(2, ((high - low) / 2) * by);
    this.view.box = { x: [middle - half, middle + half], y: this.range().y };
    this.show();
  }

  range() {
    if (this.view.box) return this.view.box;
    const last = Math.max(1, this.numbers.length - 1);
    const first = this.view.last === null ? 0 : Math.max(0, last - this.view.last);
    const room = ROOM * (last - first) + 0.5;
    let [low, high] = this.facts.frame;
    if (this.view.outliers) {
      for (const value of this.metrics) {
        if (value === null) continue;
        low = Math.min(low, value);
        high = Math.max(high, value);
      }
      const margin = 0.05 * (high - low);
      [low, high] = [low - margin, high + margin];
    }
    return { x: [first - room, last + room], y: [low, high] };
  }

  show() {
    if (!this.plot) return;
    const { x, y } = this.range();
    this.plot.batch(() => {
      this.plot.setScale("x", { min: x[0], max: x[1] });
      this.plot.setScale("y", { min: y[0], max: y[1] });
    });
    for (const button of findAll("[data-zoom]")) {
      const kind = button.dataset.zoom;
      const isOn = kind === "outliers" ? this.view.outliers
        : !this.view.box && (kind === "all" ? this.view.last === null : Number(kind) === this.view.last);
      button.setAttribute("aria-pressed", String(isOn));
    }
  }

  select(plot) {
    const { left, top, width, height } = plot.select;
    if (width < 4 && height < 4) return;
    const value = (at, scale) => plot.posToVal(at, scale);
    const { x, y } = this.range();
    const isWide = width >= plot.over.clientWidth - 1 || width < 4;
    const isTall = height >= plot.over.clientHeight - 1 || height < 4;
    this.view.box = {
      x: isWide ? x : [value(left, "x"), value(left + width, "x")],
      y: isTall ? y : [value(top + height, "y"), value(top, "y")],
    };
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
    this.dragged = performance.now();
    this.show();
  }

  // ---- pointing

  nearest(plot) {
    const { left, top } = plot.cursor;
    if (left < 0) return -1;
    const first = Math.floor(plot.posToVal(left - REACH, "x"));
    const last = Math.ceil(plot.posToVal(left + REACH, "x"));
    let best = -1;
    let closest = REACH ** 2;
    for (let at = Math.max(0, first); at <= Math.min(last, this.numbers.length - 1); at++) {
      const y = this.height(plot, at, false);
      if (y === null) continue;
      const away = (plot.valToPos(at, "x") - left) ** 2 + (y - top) ** 2;
      const wins = away < closest - 4 || (away < closest + 4 && this.statuses[at] === KEEP);
      if (wins) [best, closest] = [at, Math.min(away, closest)];
    }
    return best;
  }

  // Where a dot is drawn: a crash has no value and is marked at the edge.
  height(plot, at, isCanvas) {
    const box = isCanvas ? plot.bbox : { top: 0, height: plot.over.clientHeight };
    const ratio = isCanvas ? devicePixelRatio : 1;
    if (this.statuses[at] === CRASH) {
      return this.facts.down ? box.top + box.height - 7 * ratio : box.top + 7 * ratio;
    }
    const value = this.metrics[at];
    return value === null ? null : plot.valToPos(value, "y", isCanvas);
  }

  hover(plot) {
    if (document.activeElement === this.place && plot.cursor.left < 0) return;
    this.choose(this.nearest(plot));
  }

  click(event) {
    const at = this.nearest(this.plot);
    if (performance.now() - (this.dragged ?? -1000) < 300 || at < 0 || event.button) return;
    openExperiment(this.numbers[at]);
  }

  choose(at) {
    if (at === this.chosen) return;
    this.chosen = at;
    this.place.style.cursor = at < 0 ? "" : "pointer";
    const status = ["discard", "keep", "crash"][this.statuses[at]];
    this.tip.textContent = at < 0 ? this.hint
      : `#${this.numbers[at]} ${status} ${this.texts[at]} · ${this.changes[at]}`;
    this.redraw();
  }

  handleKey(event) {
    const last = this.numbers.length - 1;
    const steps = { ArrowLeft: this.chosen - 1, ArrowRight: this.chosen + 1, Home: 0, End: last };
    if (event.key in steps) {
      const start = this.chosen < 0 && event.key.startsWith("Arrow") ? last : steps[event.key];
      this.choose(Math.min(last, Math.max(0, start)));
    } else if (event.key === "Enter" && this.chosen >= 0) openExperiment(this.numbers[this.chosen]);
    else if (event.key === "+") this.scale(0.5);
    else if (event.key === "-") this.scale(2);
    else if (event.key === "0") this.zoom("all");
    else return;
    event.preventDefault();
  }

  // ---- drawing

  draw(plot) {
    const { ctx, bbox } = plot;
    const ratio = devicePixelRatio;
    const colours = Object.fromEntries(
      ["keep", "discard", "crash", "best", "band", "ink", "card", "muted", "line"].map((name) => [name, this.colour(`--${name}`)]),
    );
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    this.drawSegments(plot, colours, ratio);
    this.drawBest(plot, colours, ratio);
    this.drawDots(plot, colours, ratio);
    ctx.restore();
    ctx.save();
    this.drawLabels(plot, colours, ratio);
    this.drawOutside(plot, colours, ratio);
    ctx.restore();
  }

  drawSegments({ ctx, bbox, ...plot }, colours, ratio) {
    ctx.strokeStyle = colours.muted;
    ctx.lineWidth = ratio;
    ctx.setLineDash([4 * ratio, 4 * ratio]);
    for (const at of this.facts.segments) {
      const x = plot.valToPos(at, "x", true);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.setLineDash([]);
  }

  drawBest(plot, colours, ratio) {
    const { ctx } = plot;
    const steps = this.facts.steps;
    if (!steps.length) return;
    const end = Math.max(this.numbers.length - 1, steps.at(-1)[0]) + 0.5;
    const spans = steps.map(([from, value], at) => [from, steps[at + 1]?.[0] ?? end, value]);
    const x = (at) => plot.valToPos(at, "x", true);
    const y = (value) => plot.valToPos(value, "y", true);
    if (this.facts.sd) {
      ctx.fillStyle = colours.band;
      for (const [from, to, value] of spans) {
        const top = y(value + this.facts.sd);
        ctx.fillRect(x(from), top, x(to) - x(from), y(value - this.facts.sd) - top);
      }
    }
    ctx.strokeStyle = colours.best;
    ctx.lineWidth = 2 * ratio;
    ctx.lineJoin = "round";
    ctx.beginPath();
    for (const [from, to, value] of spans) {
      ctx.lineTo(x(from), y(value));
      ctx.lineTo(x(to), y(value));
    }
    ctx.stroke();
  }

  drawDots(plot, colours, ratio) {
    const { ctx } = plot;
    const { min, max } = plot.scales.x;
    const first = Math.max(0, Math.floor(min));
    const last = Math.min(this.numbers.length - 1, Math.ceil(max));
    const many = last - first > 400;
    const paths = { [DISCARD]: new Path2D(), [KEEP]: new Path2D(), [CRASH]: new Path2D() };
    const radius = { [DISCARD]: (many ? 1.7 : 3.4) * ratio, [KEEP]: (many ? 4 : 5) * ratio, [CRASH]: 2.6 * ratio };
    const taken = new Set(); // places of two pixels, so that a cloud of 10,000 is drawn in time
    for (let at = first; at <= last; at++) {
      const y = this.height(plot, at, true);
      if (y === null) continue;
      const x = plot.valToPos(at, "x", true);
      const status = this.statuses[at];
      const place = (Math.round(x / 2) << 16) + Math.round(y / 2) * 4 + status;
      if (many && taken.has(place)) continue;
      taken.add(place);
      const [path, size] = [paths[status], radius[status]];
      if (status === CRASH) {
        path.moveTo(x - size, y - size);
        path.lineTo(x + size, y + size);
        path.moveTo(x + size, y - size);
        path.lineTo(x - size, y + size);
      } else if (many && status === DISCARD) {
        path.rect(x - size, y - size, 2 * size, 2 * size);
      } else {
        path.moveTo(x + size, y);
        path.arc(x, y, size, 0, 2 * Math.PI);
      }
    }
    ctx.globalAlpha = many ? 0.6 : 0.95;
    ctx.fillStyle = colours.discard;
    ctx.fill(paths[DISCARD]);
    ctx.globalAlpha = 1;
    ctx.lineWidth = 1.5 * ratio;
    ctx.strokeStyle = colours.crash;
    ctx.stroke(paths[CRASH]);
    ctx.fillStyle = colours.keep;
    ctx.strokeStyle = colours.card;
    ctx.fill(paths[KEEP]);
    ctx.stroke(paths[KEEP]);
    if (this.chosen >= 0 && this.chosen <= last) {
      const y = this.height(plot, this.chosen, true);
      if (y === null) return;
      ctx.strokeStyle = colours.ink;
      ctx.lineWidth = 2 * ratio;
      ctx.beginPath();
      ctx.arc(plot.valToPos(this.chosen, "x", true), y, 8 * ratio, 0, 2 * Math.PI);
      ctx.stroke();
    }
  }

  // Name the keeps, the most important first: the first, the best and the largest steps. A label
  // that would be written over another, or out of the picture, is left out.
  drawLabels(plot, colours, ratio) {
    const { ctx, bbox } = plot;
    const isNarrow = bbox.width / ratio < 600;
    const size = isNarrow ? 10 : 11;
    const keeps = this.facts.keeps;
    const weight = (keep, at) => (at === 0 || at === keeps.length - 1 ? Infinity : keep.gain ?? 0);
    const ordered = keeps.map((keep, at) => [weight(keep, at), keep]).sort((a, b) => b[0] - a[0]);
    const angle = this.facts.down ? -LABEL_ANGLE : LABEL_ANGLE;
    const [cos, sin] = [Math.cos(angle), Math.sin(angle)];
    const taken = [];
    ctx.font = `${size * ratio}px system-ui`;
    ctx.fillStyle = colours.muted;
    ctx.strokeStyle = colours.card;
    ctx.lineWidth = 3 * ratio;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    for (const [, keep] of ordered) {
      const value = this.metrics[keep.place];
      if (value === null || value === undefined) continue;
      const x = plot.valToPos(keep.place, "x", true);
      const y = plot.valToPos(value, "y", true);
      const isIn = x >= bbox.left && x <= bbox.left + bbox.width && y >= bbox.top && y <= bbox.top + bbox.height;
      if (!isIn) continue;
      const text = this.fit(ctx, keep.label, isNarrow ? 18 : 45, (bbox.left + bbox.width - x) / cos, (this.facts.down ? y : bbox.top + bbox.height - y) / Math.abs(sin));
      if (!text) continue;
      const along = x * cos + y * sin;
      const across = y * cos - x * sin;
      const width = ctx.measureText(text).width;
      const hits = taken.some(([line, start, wide]) => Math.abs(line - across) < LABEL_GAP * ratio && along < start + wide && start < along + width);
      if (hits) continue;
      taken.push([across, along, width + 20 * ratio]);
      ctx.save();
      ctx.translate(x, y);
      ctx.rotate(angle);
      ctx.strokeText(text, 9 * ratio, 0); // a halo, so that dots below do not break the letters
      ctx.fillText(text, 9 * ratio, 0);
      ctx.restore();
    }
  }

  // The text, cut to the room that it has; empty if that is too little for words.
  fit(ctx, label, most, ...rooms) {
    const room = Math.min(...rooms) - 12 * devicePixelRatio;
    let text = label.length > most ? `${label.slice(0, most - 3)}...` : label;
    while (text.length > 8 && ctx.measureText(text).width > room) text = `${text.slice(0, -4)}...`;
    return ctx.measureText(text).width <= room ? text : "";
  }

  drawOutside({ ctx, bbox }, colours, ratio) {
    if (!this.facts.outside || this.view.outliers || this.view.box) return;
    ctx.font = `${11 * ratio}px system-ui`;
    ctx.fillStyle = colours.muted;
    ctx.textAlign = "right";
    ctx.textBaseline = this.facts.down ? "top" : "bottom";
    const y = this.facts.down ? bbox.top + 4 * ratio : bbox.top + bbox.height - 4 * ratio;
    ctx.fillText(this.facts.outside, bbox.left + bbox.width - 6 * ratio, y);
  }
}

// ---- the table ----------------------------------------------------------------------------

const table = { sort: "number", order: "down", page: 1, request: null };

async function loadTable() {
  table.request?.abort();
  const request = (table.request = new AbortController());
  const filter = new FormData(find("#filter"));
  const query = new URLSearchParams({ ...Object.fromEntries(filter), sort: table.sort, order: table.order, page: table.page });
  try {
    replacePart(find("#table"), await fetchPart(`${base}table?${query}`, request.signal));
  } catch (error) {
    if (error.name !== "AbortError") tell(`The table cannot be read: ${error.message}`);
  }
}

function sortTable(name) {
  const textual = ["status", "reason", "agent", "change"].includes(name);
  if (table.sort === name) table.order = table.order === "up" ? "down" : "up";
  else [table.sort, table.order] = [name, textual ? "up" : "down"];
  table.page = 1;
  loadTable();
}

// ---- an experiment, beside the page --------------------------------------------------------

const drawer = find("#drawer");

async function openExperiment(number) {
  if (!drawer) return;
  const address = `${base}${number}`;
  find("#drawer-page").href = address;
  const body = find("#drawer-body");
  if (!drawer.open) {
    body.textContent = "";
    drawer.showModal();
  }
  history.replaceState(null, "", `#${number}`);
  try {
    body.innerHTML = await fetchPart(address);
  } catch (error) {
    body.textContent = `It cannot be shown: ${error.message}`;
  }
  drawer.scrollTop = 0;
  find("h1", body)?.focus({ preventScroll: true });
}

function handleClick(event) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey) return;
  const target = event.target.closest("[data-open], [data-sort], [data-page], [data-zoom], [data-do]");
  if (!target || !session || event.target.closest("a:not([data-open])")) return;
  const { open, sort, page, zoom, do: action } = target.dataset;
  if (open !== undefined) {
    if (getSelection().type === "Range") return; // the user marks text
    openExperiment(Number(open));
  } else if (sort) sortTable(sort);
  else if (page) {
    table.page = Number(page);
    loadTable();
  } else if (zoom) chart.zoom(zoom);
  else if (action) act(action).then(() => tell(""), (error) => tell(error.message));
  event.preventDefault();
}

// ---- control: the server has these buttons only where it was started with --control --------

async function act(action, body) {
  const headers = { "X-Autoresearch": "1", "Content-Type": "text/plain" };
  const response = await fetch(`${base}control/${action}`, { method: "POST", headers, body });
  const text = await response.text();
  if (!response.ok) throw new Error(text.trim());
  return text;
}

async function leaveNote(event) {
  event.preventDefault();
  const told = find("#note-told");
  try {
    told.textContent = await act("note", find("#note-text").value);
    find("#note").reset();
  } catch (error) {
    told.textContent = `The note was not taken: ${error.message}`;
  }
}

// ---- the server's news ---------------------------------------------------------------------

const loadPanels = limit(3000, async () => {
  replacePart(find("#panels"), await fetchPart(`${base}panels`));
});
const loadTableSoon = limit(1000, () => {
  if (table.page === 1 && !find("#table").contains(getSelection().anchorNode)) loadTable();
});
const loadChart = limit(250, () => chart.load());

function take(news) {
  if (news.trouble !== undefined) tell(news.trouble);
  if (news.head !== undefined) replacePart(find("#head"), news.head);
  if (news.now !== undefined) replacePart(find("#now"), news.now);
  if (news.version !== undefined && news.version !== session.dataset.version) {
    session.dataset.version = news.version;
    loadChart();
    loadTableSoon();
    loadPanels();
  }
}

function follow() {
  const stream = new EventSource(`${base}events`);
  stream.onmessage = (event) => take(JSON.parse(event.data));
  stream.onerror = () => tell("The connection to `autoresearch watch` is lost. This is how it was; it is tried again.");
  stream.onopen = () => tell("");
}

// ---- the start -----------------------------------------------------------------------------

const chart = session ? new Chart(find("#chart"), find("#chart-tip")) : null;
find("#theme").addEventListener("click", switchTheme);
document.addEventListener("click", handleClick);
setInterval(tick, 250);
tick();
if (session) {
  const search = limit(120, loadTable);
  find("#filter").addEventListener("input", () => {
    table.page = 1;
    search();
  });
  find("#filter").addEventListener("submit", (event) => event.preventDefault());
  find("#drawer-close").addEventListener("click", () => drawer.close());
  drawer.addEventListener("click", (event) => event.target === drawer && drawer.close());
  drawer.addEventListener("close", () => history.replaceState(null, "", location.pathname));
  find("#note")?.addEventListener("submit", leaveNote);
  chart.load();
  loadPanels();
  follow();
  if (/^#\d+$/.test(location.hash)) openExperiment(Number(location.hash.slice(1)));
} else if (find("#overview")) {
  setInterval(async () => {
    if (!document.hidden) replacePart(find("#overview"), await fetchPart("/?all"));
  }, 3000);
}
