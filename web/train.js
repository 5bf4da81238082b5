// The widget of "Train Edit LoRA": how the training goes, live and later, and what can be asked of it.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Advice } from "./advice.js";
import { Chart } from "./chart.js";
import { addPanel, after, el, post } from "./dom.js";
import { isOnScreen, nodeAt, refreshDropdowns } from "./graph.js";
import { forget, KEY, lastOf, remember, shownBy } from "./keys.js";
import { Runs, size } from "./runs.js";
import { Strip } from "./strip.js";
import { t } from "./texts.js";

const NODE = "PairLoRATrain";
const HEIGHT = 340; // px that the widget has at least
const AGAIN = 2000; // ms between two looks at a run that is trained, and at what the advice is about
const asks = () => [ // what, its button, its tooltip, and what is said meanwhile
  ["stop", t("Stop and use this"), t("End the training; the graph goes on with the LoRA so far"), t("Stops after this step…")],
  ["preview", t("Preview now"), t("Make pictures of the held-out pairs now"), t("Pictures are made…")],
  ["copy", t("Save a copy now"), t("Put the LoRA so far into the loras folder"), t("The copy is made…")],
];

const widgets = new Map(); // by node, of the workflow on screen, also in its subgraphs
let loading = false; // a workflow, not single nodes
let known; // the client id that the server knows as one that draws progress itself

function duration(seconds) {
  const [hours, minutes, rest] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, Math.round(seconds) % 60];
  const h = t("{n} h", { n: hours }), min = t("{n} min", { n: minutes }), s = t("{n} s", { n: rest });
  return hours ? `${h} ${min}` : minutes ? `${min} ${s}` : s;
}

class TrainWidget {
  constructor(node) {
    Object.assign(this, { node, when: 0, ended: true, told: {}, found: null, from: 0, look: 0, spoken: false });
    this.text = el("p", { className: "pairlora-text" });
    this.report = el("pre");
    this.folded = el("details", { hidden: true }, el("summary", { textContent: t("Report") }), this.report);
    this.warnings = el("div");
    this.numbers = el("p", { className: "pairlora-numbers" });
    this.verdict = el("p", { className: "pairlora-verdict" });
    this.asks = asks().map(([what, textContent, title, meanwhile]) =>
      el("button", { textContent, title, type: "button", onclick: () => this.ask(what, meanwhile) }));
    this.answer = el("output");
    this.runs = new Runs((key) => this.choose(key), () => this.follow());
    this.buttons = el("div", { className: "pairlora-buttons" }, ...this.asks, this.runs.button, this.answer);
    this.chart = new Chart();
    this.strip = new Strip();
    this.advice = new Advice(node);
    this.live = el("div", { className: "pairlora-live", hidden: true }, this.numbers, this.verdict, this.chart.element, this.strip.element);
    this.element = el(
      "div", { className: "pairlora-panel pairlora-train" },
      this.advice.element, this.text, this.buttons, this.runs.element, this.live, this.warnings, this.folded,
    );
    this.nothing = t("The loss, pictures of held-out pairs and the report appear here.");
    this.show({ text: this.nothing });
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
    const take = () => {
      if (!node.graph) return;
      widgets.set(node, this);
      if (!loading && !this.key) forget(node);
      this.follow(loading ? lastOf(node) : this.key);
    };
    after(node, "onConfigure", take);
    after(node, "onAdded", take);
    const { clone } = node; // what a copy is made by, but not what is moved into a subgraph or out of it
    node.clone = () => {
      const copy = clone.call(node);
      if (copy) delete copy.properties[KEY]; // it has trained nothing; queued, it finds a run of the same settings at once
      return copy;
    };
    after(node, "onRemoved", () => {
      widgets.delete(node);
      clearTimeout(this.timer);
      this.look++;
      this.removed = true;
      this.seen.disconnect();
      this.chart.remove();
    });
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
      if (shownBy(this.node).at(-1) !== key) remember(this.node, key);
    }
    Object.assign(this, { found: null, from: 0 });
    this.look++;
    this.chart.clear();
    this.strip.clear();
    this.tick();
  }

  /** Show a run that was chosen, until the node trains one. */
  choose(key) {
    if (this.training) return this.said(t("This node shows its own run while it trains."));
    Object.assign(this, { spoken: false, told: {} });
    this.say("");
    this.warnings.replaceChildren();
    this.runs.toggle();
    this.follow(key);
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
          if (!this.spoken) this.say(t("The run {key} is not on this machine. Queue to train it here.", { key }));
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
    this.spoken = when > 0 || text !== this.nothing;
    Object.assign(this, { when, ended, told });
    this.say(text, failed);
    this.warnings.replaceChildren(...warnings.map((warning) => el("p", { className: "pairlora-warning", textContent: warning })));
    if (key && key !== this.key) this.follow(key);
    else if ((ended || !this.found?.training) && this.visible) this.tick();
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
    else if (has && !this.spoken) this.say(t("Trains elsewhere: step {step}", { step: `${metrics.last}${this.steps ? `/${this.steps}` : ""}` }));
    this.live.hidden = !has;
    const live = training && !this.ended, pace = (live && told.seconds_a_step) || metrics.pace;
    const at = { step: Math.max(metrics.last, (live && told.step) || 0), steps: (live && told.steps) || this.steps };
    const left = live ? told.left : training && pace && this.steps > metrics.last ? pace * (this.steps - metrics.last) : null;
    const parts = [
      has && (training ? t("step {step} of {steps}", at) : t("step {step}", at)),
      pace && t("{seconds} s a step", { seconds: Number(pace.toPrecision(2)) }),
      left && t("{time} left", { time: duration(left) }),
      live && told.held_out != null && t("held-out {loss}", { loss: told.held_out.toFixed(4) }),
      live && told.memory && t("{used} of {total} used", { used: size(told.memory.used), total: size(told.memory.total) }),
      live && told.plan,
      has && found.size && !training && t("run: {size}", { size: size(found.size) }),
    ];
    this.numbers.textContent = parts.filter(Boolean).join(" · ");
    const verdict = (live && told.verdict) || (!training && has && found.finished.at(-1)?.lines?.[0]) || "";
    this.verdict.textContent = verdict;
    this.verdict.hidden = !verdict;
    for (const button of this.asks) button.hidden = !training;
    if (this.asked && !training) this.said("");
    this.buttons.title = training ? t("Cancel loses nothing: the same queue goes on from there.") : "";
    this.copied();
  }

  /** How a run that nobody trains stands. */
  past() {
    const { finished, checkpoints } = this.found, note = finished.find(({ step }) => step === this.steps) ?? finished.at(-1);
    const { last } = this.chart.metrics, kept = Math.max(0, ...checkpoints);
    if (note && note.step >= last) return note.report || t("Finished at step {step}.", note);
    if (kept >= last) return t("Stopped at step {step}. Nothing is lost: queue to go on.", { step: last });
    return kept
      ? t("Stopped at step {step}. Queue to go on from step {kept}, which is kept.", { step: last, kept })
      : t("Stopped at step {step}. Queue to begin anew: no checkpoint was kept yet.", { step: last });
  }

  get steps() {
    return this.node.widgets?.find(({ name }) => name === "steps")?.value ?? 0;
  }

  said(text) {
    this.asked = Boolean(text);
    this.answer.textContent = text;
  }

  async ask(what, meanwhile) {
    this.before = { what, copies: this.copies.length, previews: this.found?.previews?.length ?? 0 };
    this.said(meanwhile);
    try {
      const response = await post(`run/${what}`, { key: this.key });
      if (!response.ok) this.said((await response.json()).error);
    } catch (error) {
      this.said(t("The server does not answer ({reason}).", { reason: error.message }));
    }
  }

  get copies() {
    return this.found?.copies?.length > (this.told.copies?.length ?? 0) ? this.found.copies : (this.told.copies ?? []);
  }

  /** Say that what was asked for is there. */
  copied() {
    const { before } = this;
    if (before?.what === "copy" && this.copies.length > before.copies) {
      this.said(t("Saved as {file}", { file: this.copies.at(-1) }));
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

/** Whether a training that has ended was shown by its node before another run, which it shows now. */
const isPast = ({ node, ended, key }) => ended && shownBy(nodeAt(node) ?? {}).slice(0, -1).includes(key);

/** Ask what was told of this workflow: when it has been loaded, and when the server has been away. */
async function ask() {
  known = api.clientId;
  const response = await api.fetchApi(`/pairlora/told?${new URLSearchParams({ workflow: app.graph.id, client: known })}`);
  const { told } = await response.json();
  await Promise.all(told.filter((word) => !isPast(word)).map(show));
  const nodes = new Set(told.map(({ node }) => nodeAt(node)));
  for (const [node, widget] of widgets) {
    if (widget.ended || nodes.has(node)) continue;
    widget.show({ text: t("Ended: ComfyUI was started anew."), failed: true });
    widget.spoken = !widget.key; // else how the run stands comes in its place
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
    if (node.comfyClass === NODE) new TrainWidget(node);
  },
  beforeConfigureGraph() {
    loading = true;
  },
  afterConfigureGraph() {
    loading = false;
    ask(); // not awaited: the workflow is on screen only once this is done
  },
});
