// The widget of "Train Edit LoRA": how the training goes, live and later, and what can be asked of it.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Advice } from "./advice.js";
import { Chart } from "./chart.js";
import { addPanel, after, el, post } from "./dom.js";
import { isOnScreen, nodeAt, refreshDropdowns } from "./graph.js";
import { Runs, size } from "./runs.js";
import { Strip } from "./strip.js";

const NODE = "PairLoRATrain";
const HEIGHT = 340; // px that the widget has at least
const AGAIN = 2000; // ms between two looks at a run that is trained, and at what the advice is about
const KEY = "pairlora_run"; // the property that names the run, all that is saved of it in a workflow
const NOTHING = "The loss, pictures of held-out pairs and the report appear here.";
const LOST = "Cancel loses nothing: the same queue goes on from there.";
const ASKS = [
  ["stop", "Stop and use this", "End the training; the graph goes on with the LoRA so far"],
  ["preview", "Preview now", "Make pictures of the held-out pairs now"],
  ["copy", "Save a copy now", "Put the LoRA so far into the loras folder"],
];

const widgets = new Map(); // by node, of the workflow on screen
const keys = new Map(); // of the runs that nodes have trained, by graph and node: an undo goes back to before them
let loading = false; // a workflow, not single nodes
let known; // the client id that the server knows as one that draws progress itself

const place = (node) => `${node.graph?.id}/${node.id}`;

function duration(seconds) {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.round(seconds) % 60];
  return hours ? `${hours} h ${minutes} min` : minutes ? `${minutes} min ${rest} s` : `${rest} s`;
}

class TrainWidget {
  constructor(node) {
    Object.assign(this, { node, when: 0, ended: true, told: {}, found: null, from: 0, look: 0, spoken: false });
    this.text = el("p", { className: "pairlora-text" });
    this.report = el("pre");
    this.folded = el("details", { hidden: true }, el("summary", { textContent: "Report" }), this.report);
    this.warnings = el("div");
    this.numbers = el("p", { className: "pairlora-numbers" });
    this.verdict = el("p", { className: "pairlora-verdict" });
    this.asks = ASKS.map(([what, textContent, title]) =>
      el("button", { textContent, title, type: "button", onclick: () => this.ask(what) }));
    this.answer = el("output");
    this.runs = new Runs(() => this.follow());
    this.buttons = el("div", { className: "pairlora-buttons" }, ...this.asks, this.runs.button, this.answer);
    this.chart = new Chart();
    this.strip = new Strip();
    this.advice = new Advice(node);
    this.live = el("div", { className: "pairlora-live", hidden: true }, this.numbers, this.verdict, this.chart.element, this.strip.element);
    this.element = el(
      "div", { className: "pairlora-panel pairlora-train" },
      this.advice.element, this.text, this.buttons, this.runs.element, this.live, this.warnings, this.folded,
    );
    this.show({ text: NOTHING });
    addPanel(node, "progress", this.element, HEIGHT);
    node.onDrawBackground = null; // else the canvas draws ComfyUI's preview below the strip; on Nodes 2.0 the style hides it
    node.setSize([Math.max(node.size[0], 420), Math.max(node.size[1], node.computeSize()[1])]);
    this.hook();
    this.seen = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && this.tick());
    this.seen.observe(this.element);
    this.draw();
    this.tick();
  }

  hook() {
    const { node } = this;
    // a pasted node is configured before it is added on ComfyUI 0.3.75, and after it on newer ones
    const take = () => node.graph && this.follow(this.isCopy() ? undefined : (node.properties[KEY] ?? keys.get(place(node))));
    after(node, "onConfigure", take);
    after(node, "onAdded", take);
    after(node, "onRemoved", () => {
      widgets.delete(node);
      clearTimeout(this.timer);
      this.look++;
      this.removed = true;
      this.seen.disconnect();
      this.chart.remove();
    });
  }

  /** Whether this was pasted beside the node that has trained the run; a copy has trained nothing. */
  isCopy() {
    const { node, key } = this;
    const copy = key && !loading && [...widgets.keys()].some((other) =>
      other !== node && other.graph === node.graph && other.properties[KEY] === key);
    if (copy) delete node.properties[KEY];
    return Boolean(copy);
  }

  get key() {
    return this.node.properties[KEY];
  }

  get visible() {
    return !this.removed && !document.hidden && this.element.isConnected && this.element.checkVisibility();
  }

  /** Show the run `key` from its beginning on; without one, what the node shows is looked up anew. */
  follow(key = this.key) {
    if (key) {
      this.node.properties[KEY] = key;
      keys.set(place(this.node), key);
    }
    Object.assign(this, { found: null, from: 0 });
    this.look++;
    this.chart.clear();
    this.strip.clear();
    this.tick();
  }

  /** Look now, and again while it is seen. A page that is not looked at asks for nothing. */
  async tick() {
    clearTimeout(this.timer);
    if (!this.visible) return;
    const look = ++this.look;
    this.advice.look();
    if (this.key && (!this.found || this.found.training || !this.ended || this.told.changed !== this.shown)) await this.read(look);
    if (look !== this.look) return;
    this.chart.draw();
    this.timer = setTimeout(() => this.tick(), AGAIN);
  }

  async read(look) {
    const { key } = this, { changed } = this.told;
    try {
      for (let more = true; more; ) {
        const response = await api.fetchApi(`/pairlora/run?${new URLSearchParams({ key, from: this.from })}`);
        const found = await response.json();
        if (look !== this.look) return;
        if (!response.ok) {
          if (!this.spoken) this.say(`The run ${key} is not on this machine. Queue to train it here.`);
          this.found = { missing: true };
          return;
        }
        if (found.next < this.from) return this.follow(); // it has been removed and begun anew
        for (const line of found.lines) this.chart.metrics.add(line);
        this.from = found.next;
        this.found = { ...this.found, ...found, lines: [], missing: false };
        more = found.lines.length > 0;
      }
      this.shown = changed;
    } catch {
      return; // the server is away; the next look may find it
    }
    const { previews, checkpoints, finished } = this.found, last = finished.at(-1);
    this.chart.marks = { checkpoints, previews: previews.map(({ step }) => step), best: this.found.training ? undefined : last?.best_step };
    this.strip.show(this.found);
    this.draw();
  }

  /** What the server tells. `when` is its time in seconds: what is older than what is shown is not shown. */
  show({ text, warnings = [], when = this.when, ended = true, failed = false, key, ...told }) {
    if (when < this.when) return;
    this.spoken = when > 0 || text !== NOTHING;
    Object.assign(this, { when, ended, told });
    this.say(text, failed);
    this.warnings.replaceChildren(...warnings.map((warning) => el("p", { className: "pairlora-warning", textContent: warning })));
    if (key && key !== this.key) this.follow(key);
    else if (this.visible && (ended || !this.found?.training)) this.tick();
    this.draw();
  }

  /** What is above the LoRA's own line are warnings; what is below it is folded. */
  say(text, failed = false) {
    const lines = text.split("\n"), at = lines.findIndex((line) => line.includes(".safetensors: ")) + 1 || lines.length;
    this.text.textContent = lines.slice(0, at).join("\n");
    this.text.classList.toggle("pairlora-error", failed);
    this.report.textContent = lines.slice(at).join("\n");
    this.folded.hidden = at === lines.length;
  }

  get training() {
    return Boolean(this.key && (this.found?.training || !this.ended));
  }

  draw() {
    const { told, found, chart: { metrics } } = this, { training } = this;
    const has = Boolean(found && !found.missing);
    if (has && !this.spoken && !training) this.say(this.past());
    else if (has && !this.spoken) this.say(`Trains elsewhere: step ${metrics.last}${this.steps ? `/${this.steps}` : ""}`);
    this.live.hidden = !has;
    const live = training && !this.ended, pace = (live && told.seconds_a_step) || metrics.pace;
    const left = live ? told.left : training && pace && this.steps > metrics.last ? pace * (this.steps - metrics.last) : null;
    const parts = [
      has && `step ${Math.max(metrics.last, (live && told.step) || 0)}${training ? ` of ${(live && told.steps) || this.steps}` : ""}`,
      pace && `${Number(pace.toPrecision(2))} s a step`,
      left && `${duration(left)} left`,
      live && told.held_out != null && `held-out ${told.held_out.toFixed(4)}`,
      live && told.memory && `${size(told.memory.used)} of ${size(told.memory.total)} used`,
      live && told.plan,
      has && found.size && !training && `run: ${size(found.size)}`,
    ];
    this.numbers.textContent = parts.filter(Boolean).join(" · ");
    const verdict = (live && told.verdict) || (!training && has && found.finished.at(-1)?.lines?.[0]) || "";
    this.verdict.textContent = verdict;
    this.verdict.hidden = !verdict;
    this.buttons.hidden = !this.key && !this.runs.open && !has;
    for (const button of this.asks) button.hidden = !training;
    if (this.asked && !training) this.said("");
    this.buttons.title = training ? LOST : "";
    this.copied();
  }

  /** How a run that nobody trains stands. */
  past() {
    const { finished } = this.found, note = finished.find(({ step }) => step === this.steps) ?? finished.at(-1);
    if (note && note.step >= this.chart.metrics.last) return note.report || `Finished at step ${note.step}.`;
    return `Stopped at step ${this.chart.metrics.last}. Nothing is lost: queue to go on.`;
  }

  get steps() {
    return this.node.widgets?.find(({ name }) => name === "steps")?.value ?? 0;
  }

  said(text) {
    this.asked = Boolean(text);
    this.answer.textContent = text;
  }

  async ask(what) {
    const words = { stop: "Stops after this step…", preview: "Pictures are made…", copy: "The copy is made…" };
    this.before = { what, copies: this.copies.length, previews: this.found?.previews?.length ?? 0 };
    this.said(words[what]);
    try {
      const response = await post(`run/${what}`, { key: this.key });
      if (!response.ok) this.said((await response.json()).error);
    } catch (error) {
      this.said(`The server does not answer (${error.message}).`);
    }
  }

  get copies() {
    return this.found?.copies?.length > (this.told.copies?.length ?? 0) ? this.found.copies : (this.told.copies ?? []);
  }

  /** Say that what was asked for is there. */
  copied() {
    const { before } = this;
    if (before?.what === "copy" && this.copies.length > before.copies) {
      this.said(`Saved as ${this.copies.at(-1)}`);
      this.before = null;
      refreshDropdowns();
    } else if (before?.what === "preview" && (this.found?.previews?.length ?? 0) > before.previews) {
      this.said("");
      this.before = null;
    }
  }
}

async function show({ prompt, workflow, node, ...told }) {
  if (await isOnScreen(prompt, workflow)) widgets.get(nodeAt(node))?.show(told);
}

/** Ask what was told of this workflow: when it has been loaded, and when the server has been away. */
async function ask() {
  known = api.clientId;
  const response = await api.fetchApi(`/pairlora/told?${new URLSearchParams({ workflow: app.graph.id, client: known })}`);
  const { told } = await response.json();
  await Promise.all(told.map(show));
  const nodes = new Set(told.map(({ node }) => nodeAt(node)));
  for (const [node, widget] of widgets) {
    if (!widget.ended && !nodes.has(node)) widget.show({ text: "Ended: ComfyUI was started anew.", failed: true });
  }
}

app.registerExtension({
  name: "pairlora.train",
  setup() {
    api.addEventListener("pairlora_train", ({ detail }) => {
      show(detail);
      if (detail.ended && !detail.failed) refreshDropdowns(); // they list the new LoRA
    });
    // a run that is cached tells nothing, but its output is sent again
    api.addEventListener("executed", ({ detail }) => {
      const [text] = detail.output?.text ?? [];
      if (text) show({ prompt: detail.prompt_id, node: detail.display_node ?? detail.node, text });
    });
    api.addEventListener("status", () => {
      if (api.clientId !== known) ask(); // the page was drawn before it was connected
    });
    api.addEventListener("reconnected", ask);
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) for (const widget of widgets.values()) widget.tick();
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) widgets.set(node, new TrainWidget(node));
  },
  beforeConfigureGraph() {
    loading = true;
  },
  afterConfigureGraph() {
    loading = false;
    ask(); // not awaited: the workflow is on screen only once this is done
  },
});
