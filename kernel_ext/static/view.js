// The live view of a build: one module, no network, nothing bundled.
//
// The kernel sends the graph once, as SVG, and then what changed: {now, head, steps, logs} at most ten times a
// second. A Store keeps what has been said, for views that are opened later; a View draws it. Texts from the
// build are only ever set as text; the HTML of log lines was escaped and coloured by the kernel.

const stores = new Map();
const ENDED = new Set(["definition", "content", "remote", "ran", "merged", "skipped", "compiled", "cancelled", "failed"]);
const CACHED = new Set(["definition", "content", "remote"]);
const LOG_LIMIT = 400_000;

class Store {
  constructor(model) {
    this.model = model;
    this.steps = new Map();
    this.logs = new Map();
    this.head = { state: "running", subject: model.get("title"), verdict: "is being prepared", parts: [], done: 0, total: 0 };
    this.lag = 0;
    this.begun = null;
    this.listeners = new Set();
    this.receive = (message) => this.take(message);
    model.on("msg:custom", this.receive);
    // A graph that is there from the beginning: the page was loaded anew, in the middle of a build.
    if (model.get("graph")) model.send({ type: "replay" });
  }

  take(message) {
    if (message.type !== "delta") return;
    if (message.whole) this.logs.clear();
    this.lag = Date.now() / 1000 - message.now;
    if (message.begun) this.begun = message.begun;
    if (message.head) this.head = message.head;
    for (const [id, change] of Object.entries(message.steps || {})) {
      this.steps.set(id, { ...(this.steps.get(id) || { id }), ...change });
    }
    const grown = new Map();
    for (const [id, text] of Object.entries(message.logs || {})) {
      const before = this.logs.get(id) || "";
      const whole = before + text;
      // Cut between lines: each line's tags are closed in it.
      const cut = whole.length > LOG_LIMIT ? whole.indexOf("\n", whole.length - LOG_LIMIT) + 1 : 0;
      this.logs.set(id, whole.slice(cut));
      grown.set(id, cut || !before || message.whole ? null : text);
    }
    for (const tell of this.listeners) tell(message, grown);
  }

  now() {
    return Date.now() / 1000 - this.lag;
  }

  close() {
    this.model.off("msg:custom", this.receive);
  }
}

const make = (tag, name, text) => {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
};

function seconds(value) {
  if (value === null || value === undefined) return "";
  if (value < 0.0995) return value < 0.001 ? "<1 ms" : `${Math.round(value * 1000)} ms`;
  if (value < 59.95) return `${value.toFixed(value < 0.995 ? 2 : 1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} m`;
}

function size(value) {
  if (value === null || value === undefined) return "";
  if (value < 1000) return `${value} B`;
  let unit = -1;
  while (value >= 999.5 && unit < 3) {
    value /= 1000;
    unit += 1;
  }
  const shown = value < 99.95 ? value.toFixed(1).replace(/\.0$/, "") : Math.round(value);
  return `${shown} ${["kB", "MB", "GB", "TB"][unit]}`;
}

class View {
  constructor(model, store, el) {
    this.model = model;
    this.store = store;
    this.picked = null;
    this.byHand = false;
    this.shownLog = null;
    this.build(el);
    this.listen = (message, grown) => this.changed(message, grown);
    store.listeners.add(this.listen);
    this.graphChanged = () => this.drawGraph();
    model.on("change:graph", this.graphChanged);
    this.timer = setInterval(() => this.tick(), 200);
    this.drawGraph();
    this.changed({ steps: Object.fromEntries(store.steps), head: store.head }, new Map());
  }

  close() {
    clearInterval(this.timer);
    this.store.listeners.delete(this.listen);
    this.model.off("change:graph", this.graphChanged);
  }

  build(el) {
    const root = make("div", "bknb");
    const head = make("div", "bknb-head");
    this.sign = make("span", "bknb-pill");
    this.said = make("span", "bknb-said");
    this.clock = make("span", "bknb-clock");
    this.cancel = make("button", "", "Cancel");
    this.cancel.title = "Stop the build; what has finished is kept. The notebook's stop button does the same.";
    this.cancel.addEventListener("click", () => {
      this.model.send({ type: "cancel" });
      this.cancel.disabled = true;
      this.cancel.textContent = "Cancelling…";
      // A kernel that cannot hear a button while a cell runs leaves the page waiting: say what does work.
      setTimeout(() => { this.cancel.textContent = "Press I I to stop"; }, 3000);
    });
    head.append(this.sign, this.said, this.clock, this.cancel);
    const bar = make("div", "bknb-bar");
    this.fill = bar.appendChild(make("i"));
    this.now = make("div", "bknb-now");
    this.graph = make("div", "bknb-graph-box");
    this.graph.addEventListener("click", (event) => this.pick(event.target.closest("[data-step]")));
    this.graph.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      event.stopPropagation();
      this.pick(event.target.closest("[data-step]"));
    });
    this.timeline = make("details");
    this.timelineSummary = this.timeline.appendChild(make("summary", "", "Timeline"));
    this.rows = this.timeline.appendChild(make("div", "bknb-rows"));
    this.timeline.addEventListener("toggle", () => this.drawTimeline());
    this.step = make("div", "bknb-step");
    this.step.hidden = true;
    root.append(head, bar, this.now, this.graph, this.timeline, this.step);
    el.replaceChildren(root);
  }

  drawGraph() {
    // The kernel drew it and escaped every word in it.
    this.graph.innerHTML = this.model.get("graph");
    for (const box of this.graph.querySelectorAll("[data-step]")) {
      box.setAttribute("tabindex", "0");
      box.setAttribute("role", "button");
      const step = this.store.steps.get(box.dataset.step);
      if (step) this.paint(box, step);
    }
  }

  paint(box, step) {
    box.dataset.state = step.state;
    box.classList.toggle("picked", step.id === this.picked && this.byHand);
    const lower = box.querySelector(".s");
    if (lower && step.status) {
      // A tile has room for the sign and its number alone.
      lower.textContent = lower.dataset.number ? `${step.status[0]} ${lower.dataset.number}` : step.status;
    }
    box.setAttribute("aria-label", `${step.label}: ${step.status || step.state}`);
  }

  box(id) {
    return this.graph.querySelector(`[data-step="${CSS.escape(id)}"]`);
  }

  changed(message, grown) {
    const { head } = this.store;
    this.sign.parentElement.dataset.state = head.state;
    this.sign.textContent = head.sign || "▸";
    const bold = make("b", "", head.subject);
    this.said.replaceChildren(bold, ` ${[head.verdict, ...head.parts].join(" · ")}`);
    this.said.title = this.said.textContent;
    this.fill.style.width = head.total ? `${(100 * head.done) / head.total}%` : "0";
    for (const id of Object.keys(message.steps || {})) {
      const box = this.box(id);
      if (box) this.paint(box, this.store.steps.get(id));
    }
    this.wires();
    if (!this.byHand) {
      this.reveal();
      this.follow();
    }
    if (this.picked && (message.steps || {})[this.picked]) this.drawStep();
    if (this.picked && grown.has(this.picked)) this.drawLog(grown.get(this.picked));
    this.tick();
    this.drawTimeline();
  }

  wires() {
    const busy = new Set(["ran", "running", "failed", "merged"]);
    for (const wire of this.graph.querySelectorAll(".w")) {
      const from = this.graph.querySelector(`#g-${CSS.escape(wire.dataset.from)}`);
      const to = this.graph.querySelector(`#g-${CSS.escape(wire.dataset.to)}`);
      if (from && to) wire.classList.toggle("strong", busy.has(from.dataset.state) && busy.has(to.dataset.state));
    }
  }

  // Scrolls a graph that is higher than its place to what runs, until the reader picks a step.
  reveal() {
    const running = this.graph.querySelector("[data-state='running']");
    if (!running || this.graph.scrollHeight <= this.graph.clientHeight + 4) return;
    const place = this.graph.getBoundingClientRect();
    const box = running.getBoundingClientRect();
    if (box.top < place.top) this.graph.scrollTop -= place.top - box.top + 30;
    else if (box.bottom > place.bottom) this.graph.scrollTop += box.bottom - place.bottom + 60;
  }

  // Shows the step that spoke last, until the reader picks one.
  follow() {
    const running = [...this.store.steps.values()].filter((s) => s.state === "running" && this.store.logs.has(s.id));
    const failed = [...this.store.steps.values()].find((s) => s.state === "failed");
    const next = failed || running[running.length - 1];
    if (next && next.id !== this.picked) {
      this.picked = next.id;
      this.drawStep();
    }
  }

  pick(box) {
    if (!box) return;
    const id = box.dataset.step;
    const again = this.byHand && this.picked === id;
    this.byHand = !again;
    this.picked = id;
    for (const other of this.graph.querySelectorAll(".picked")) other.classList.remove("picked");
    if (!again) box.classList.add("picked");
    this.drawStep();
  }

  drawStep() {
    const step = this.store.steps.get(this.picked);
    if (!step) return;
    const open = this.logFold ? this.logFold.open : true;
    const title = make("div", "title");
    title.dataset.state = step.state;
    title.append(make("span", "bknb-pill", step.status || step.state), make("b", "", step.label));
    if (step.size !== null && step.size !== undefined) title.append(make("span", "bknb-quiet", size(step.size)));
    if (step.note) title.append(make("span", "bknb-quiet", step.note));
    const parts = [title];
    if (step.error) parts.push(make("div", "", step.error));
    if (step.lines) parts.push(make("pre", "lines", step.lines));
    this.logFold = make("details");
    this.logFold.open = open;
    this.logSummary = make("summary", "", "Log");
    this.log = make("pre", "log");
    this.logFold.append(this.logSummary, this.log);
    parts.push(this.logFold, this.facts(step));
    this.step.replaceChildren(...parts);
    this.step.hidden = false;
    this.drawLog(null);
  }

  facts(step) {
    const fold = make("details");
    fold.append(make("summary", "", "Digest, keys, op"));
    const list = make("dl");
    const add = (name, value) => {
      if (!value) return null;
      list.append(make("dt", "", name));
      return list.appendChild(make("dd", "", value));
    };
    const digest = add("digest", step.digest);
    if (digest && navigator.clipboard) {
      const copy = digest.appendChild(make("button", "", "copy"));
      copy.addEventListener("click", () => navigator.clipboard.writeText(step.digest));
    }
    add("result", step.result);
    for (const key of step.keys || []) add("key", key);
    for (const [cause, from, to] of step.waits || []) add(`waited for ${cause}`, to === null ? "still" : seconds(to - from));
    if (step.op) add("op", step.op).style.whiteSpace = "pre-wrap";
    fold.append(list);
    return fold;
  }

  drawLog(delta) {
    if (!this.log) return;
    const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 24;
    const whole = this.store.logs.get(this.picked) || "";
    if (delta === null) this.log.innerHTML = whole;
    else this.log.insertAdjacentHTML("beforeend", delta);
    const count = whole.split("\n").length - 1;
    this.logSummary.replaceChildren("Log", make("span", "", count ? ` · ${count} line${count === 1 ? "" : "s"}` : " · empty"));
    this.logFold.hidden = !count;
    if (atEnd || delta === null) this.log.scrollTop = this.log.scrollHeight;
  }

  tick() {
    const { begun, head } = this.store;
    const running = head.state === "running";
    this.clock.textContent = begun && running ? seconds(Math.max(0, this.store.now() - begun)) : "";
    this.cancel.hidden = !running;
    this.drawNow();
  }

  drawNow() {
    const running = [...this.store.steps.values()].filter((s) => s.state === "running");
    const parts = [];
    for (const step of running.slice(0, 6)) {
      parts.push(make("span", "sign", "▸"), make("span", "what", step.label));
      const waiting = (step.waits || []).filter(([cause, , to]) => to === null && cause !== "input").map(([cause]) => cause);
      const time = step.started ? seconds(Math.max(0, this.store.now() - step.started)) : "";
      parts.push(make("span", "time", waiting.length ? `waits for ${waiting.join(", ")} · ${time}` : time));
      for (const [name, current, total, done] of (step.pulls || []).slice(-4)) parts.push(this.pull(name, current, total, done));
    }
    if (running.length > 6) parts.push(make("span"), make("span", "what bknb-quiet", `and ${running.length - 6} more`), make("span"));
    this.now.replaceChildren(...parts);
  }

  pull(name, current, total, done) {
    const row = make("div", done ? "bknb-pull done" : "bknb-pull");
    const track = make("div", "track");
    const fill = track.appendChild(make("i"));
    fill.style.width = done ? "100%" : total ? `${Math.min(100, (100 * current) / total)}%` : "12%";
    const amount = total ? `${size(current)} of ${size(total)}` : size(current);
    row.append(make("code", "", name), track, make("span", "amount", amount));
    return row;
  }

  drawTimeline() {
    const worked = [...this.store.steps.values()].filter((s) => s.started && !CACHED.has(s.state));
    this.timelineSummary.replaceChildren("Timeline", make("span", "", worked.length ? ` · ${worked.length} step${worked.length === 1 ? "" : "s"} worked` : ""));
    if (!this.timeline.open || !worked.length) return;
    worked.sort((a, b) => a.started - b.started);
    const begin = worked[0].started;
    const end = Math.max(this.store.head.state === "running" ? this.store.now() : 0, ...worked.map((s) => s.completed || 0));
    const at = (time) => `${(100 * Math.max(0, time - begin)) / Math.max(end - begin, 0.001)}%`;
    const parts = [];
    for (const step of worked.slice(-30)) {
      const row = make("div", "row");
      row.dataset.state = step.state;
      for (const [cause, from, to] of step.waits || []) {
        if (cause === "input") continue;
        const line = row.appendChild(make("span", "wait"));
        line.title = `waited for ${cause}`;
        line.style.left = at(from);
        line.style.width = at(begin + (to === null ? end : to) - from);
      }
      const stop = step.completed || end;
      const span = row.appendChild(make("span", "span"));
      span.style.left = at(step.started);
      span.style.width = at(begin + stop - step.started);
      const took = row.appendChild(make("span", "took", seconds(stop - step.started)));
      took.style.left = at(stop);
      parts.push(make("div", "name", step.label), row);
    }
    this.rows.replaceChildren(...parts);
  }
}

function storeOf(model) {
  const key = model.get("key");
  if (!stores.has(key)) stores.set(key, new Store(model));
  return stores.get(key);
}

export default {
  initialize({ model }) {
    const store = storeOf(model);
    return () => {
      store.close();
      stores.delete(model.get("key"));
    };
  },
  render({ model, el }) {
    const view = new View(model, storeOf(model), el);
    return () => view.close();
  },
};
