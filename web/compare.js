// The widget of "Before / After": its pictures under the comparer, a strip of the samples, and a grid of checkpoints.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { Comparison, openLarge, sideText } from "./comparison.js";
import { addPanel, after, el, pictureURL, post } from "./dom.js";
import { NO_ID, idOf, isOnScreen, nodeAt, noteChange, refreshDropdowns, useLora } from "./graph.js";
import { t } from "./texts.js";

const NODE = "PairLoRABeforeAfter";
const HEIGHT = 420; // px that the widget has at least
const KEPT = "pairlora_pictures", WHEN = "pairlora_when", CHOSEN = "pairlora_view"; // properties of the node: saved, and in no prompt
const LATER = 300; // ms after the last move of the slider in which it is kept
const CELL = /^(.+) step (\d+) at (-?[\d.]+)$/; // a label of Checkpoints of a Run
const ORDER = ["input", "input 2", "input 3", "before", "after", "target"];

class CompareWidget {
  constructor(node) {
    Object.assign(this, { node, looks: 0, newest: 0 });
    this.comparison = new Comparison({ onChange: () => this.keep(), missing: t("Queue this node to make it again.") });
    this.strip = el("div", { className: "pairlora-film", role: "listbox", ariaLabel: t("Samples") });
    this.title = el("span", { className: "pairlora-title" });
    this.scores = el("div", { className: "pairlora-scores" });
    this.answer = el("output");
    this.grid = el("div", { className: "pairlora-grid", hidden: true });
    const step = (by, text, ariaLabel) => el("button", { textContent: text, ariaLabel, onclick: () => this.step(by) });
    this.steps = [step(-1, "◀", t("Previous sample")), step(1, "▶", t("Next sample"))];
    this.gridButton = el("button", { textContent: t("Grid"), ariaPressed: "false", hidden: true, onclick: () => this.toggle() });
    const large = el("button", { textContent: t("Large"), ariaLabel: t("Open large"), onclick: () => this.enlarge() });
    this.empty = el("p", { className: "pairlora-note", textContent: t("Queue to compare the pictures here.") });
    const head = el("div", { className: "pairlora-buttons" }, ...this.steps, this.title, this.gridButton, large);
    this.full = el(
      "div", { className: "pairlora-compared", hidden: true },
      head, this.grid, this.comparison.element, this.scores, this.strip, this.answer,
    );
    this.element = el("div", { className: "pairlora-panel pairlora-compare" }, this.empty, this.full);
    this.element.addEventListener("keydown", (event) => this.pressed(event));
    addPanel(node, "comparison", this.element, HEIGHT);
    node.hideOutputImages = true; // which ComfyUI would draw below; before it knew that word, onDrawBackground did
    node.onDrawBackground = () => {};
    node.setSize([Math.max(node.size[0], 460), Math.max(node.size[1], node.computeSize()[1])]);
    after(node, "onConfigure", () => {
      this.show(node.properties[KEPT] ?? []);
      this.looking = this.look();
    });
  }

  /** Show what came last, where the workflow on screen does not know of it: an undo, a reload, a picture dropped on the page
      and a second tab go back to before it. To tell ComfyUI of a change would queue again in "on change" mode. */
  async look() {
    const { node } = this, look = ++this.looks;
    await new Promise(setTimeout); // until it is in its graph, and a subgraph in the one around it
    const workflow = node.graph?.rootGraph.id ?? NO_ID;
    if (workflow === NO_ID) return;
    try {
      const response = await api.fetchApi(`/pairlora/compared?${new URLSearchParams({ workflow, node: idOf(node) })}`);
      const { images } = await response.json();
      this.newest = images[0]?.when ?? 0;
      if (look === this.looks && this.newest > (node.properties[WHEN] ?? 0)) this.show(images);
    } catch {} // the server is away; what the workflow has stays
  }

  /** Take what a run has put out, and keep the files' names with the workflow, and that nothing newer was wanted. */
  async ran(images) {
    const { properties } = this.node;
    this.looks++;
    properties[KEPT] = images;
    this.show(images);
    await this.looking;
    properties[WHEN] = Math.max(this.newest, images[0].when ?? 0); // of a cached node, or of the history, they are older
  }

  /** Newer pages leave of a picture in their history nothing but its file; the server's own has the rest. */
  async wasTold(images) {
    const looks = ++this.looks;
    if (!images[0].side) {
      const history = await (await api.fetchApi("/history")).json();
      const all = Object.values(history).flatMap(({ outputs }) => Object.values(outputs).map((output) => output.images));
      images = all.find((others) => others?.[0]?.side && others[0].filename === images[0].filename);
    }
    if (images && looks === this.looks) this.ran(images);
  }

  show(images) {
    this.images = images;
    const chosen = this.node.properties[CHOSEN] ?? {};
    this.count = 1 + Math.max(-1, ...images.map(({ sample }) => sample ?? 0));
    this.sample = Math.min(chosen.sample ?? 0, Math.max(0, this.count - 1));
    this.empty.hidden = images.length > 0;
    this.full.hidden = !images.length;
    const cells = this.cells();
    this.hasGrid = cells.length > 0;
    this.wantsGrid = chosen.grid ?? true;
    this.drawStrip();
    this.drawGrid(cells);
    this.draw(chosen);
  }

  of(sample) {
    return this.images
      .filter((image) => image.sample === sample || image.sample === null)
      .sort((a, b) => ORDER.indexOf(a.side) - ORDER.indexOf(b.side));
  }

  nameOf(sample) {
    return this.of(sample).find(({ name, sample: own }) => name && own !== null)?.name ?? t("sample {n}", { n: sample + 1 });
  }

  /** Of a sample its pictures, and of a grid also what the other cells have come to. */
  sides(sample = this.sample) {
    const side = (image, label) => ({
      label, url: pictureURL(image), alt: t("{side} of {name}", { side: sideText(image.side), name: this.nameOf(image.sample ?? sample) }),
    });
    const others = this.hasGrid
      ? this.images.filter((image) => image.side === "after" && image.sample !== sample && image.name)
      : [];
    return [...this.of(sample).map((image) => side(image, image.side)), ...others.map((image) => side(image, image.name))];
  }

  draw(chosen = {}) {
    this.title.textContent = t("{name} ({n} of {all})", { name: this.nameOf(this.sample), n: this.sample + 1, all: this.count });
    this.comparison.show(this.sides(), chosen);
    const scored = this.of(this.sample).filter(({ scores }) => Object.keys(scores ?? {}).length);
    this.scores.replaceChildren(...(scored.length ? [tableOf(scored)] : []));
    for (const [index, tile] of [...this.strip.children].entries()) {
      tile.ariaSelected = String(index === this.sample);
      tile.tabIndex = index === this.sample ? 0 : -1;
    }
    this.strip.children[this.sample]?.scrollIntoView?.({ block: "nearest", inline: "nearest" });
    for (const button of this.steps) button.disabled = this.count < 2;
    const grid = this.hasGrid && this.wantsGrid;
    this.gridButton.hidden = !this.hasGrid;
    this.gridButton.ariaPressed = String(grid);
    this.grid.hidden = !grid;
    for (const part of [this.comparison.element, this.scores]) part.hidden = grid;
    this.strip.hidden = grid || this.count < 2;
  }

  drawStrip() {
    const tiles = Array.from({ length: this.count }, (_, sample) => {
      const side = this.sides(sample).find(({ label }) => label === "after");
      const name = this.nameOf(sample);
      const picture = el("img", { src: side?.url ?? "", alt: name, title: name, loading: "lazy" });
      return el("button", { role: "option", onclick: () => this.choose(sample) }, picture);
    });
    this.strip.replaceChildren(...tiles);
  }

  choose(sample) {
    this.sample = (sample + this.count) % this.count;
    this.draw();
    this.keep();
  }

  step(by) {
    this.choose(this.sample + by);
  }

  pressed(event) {
    const inStrip = this.strip.contains(event.target);
    const by = { PageUp: -1, PageDown: 1, ...(inStrip ? { ArrowLeft: -1, ArrowRight: 1 } : {}) }[event.key];
    if (!by || this.count < 2) return;
    event.preventDefault();
    event.stopPropagation();
    this.step(by);
    if (inStrip) this.strip.children[this.sample].focus();
  }

  /** What the user has chosen goes with the workflow, but into no prompt. */
  keep() {
    const { mode, left, right, position } = this.comparison.chosen;
    const view = { mode, left, right, position, sample: this.sample, grid: this.wantsGrid };
    if (JSON.stringify(view) === JSON.stringify(this.node.properties[CHOSEN])) return;
    this.node.properties[CHOSEN] = view;
    clearTimeout(this.timer); // one step of undo for a whole move
    this.timer = setTimeout(noteChange, LATER);
  }

  enlarge() {
    const { left, right } = this.comparison.chosen;
    openLarge(this.sides(), { title: this.nameOf(this.sample), left, right });
  }

  /** The samples that are checkpoints: {sample, lora, step, strength}. */
  cells() {
    return Array.from({ length: this.count }, (_, sample) => {
      const [, lora, step, strength] = CELL.exec(this.nameOf(sample)) ?? [];
      return lora && { sample, lora, step: Number(step), strength: Number(strength) };
    }).filter(Boolean);
  }

  /** One column for each step of each LoRA, one row for each strength. */
  drawGrid(cells) {
    const sorted = (name, of = cells) => [...new Set(of.map((cell) => cell[name]))].sort((a, b) => a - b);
    const loras = [...new Set(cells.map(({ lora }) => lora))];
    const stepsOf = (lora) => sorted("step", cells.filter((cell) => cell.lora === lora));
    const columns = loras.flatMap((lora) => stepsOf(lora).map((step) => ({ lora, step })));
    const head = (textContent, scope, colSpan = 1) => el("th", { textContent, scope, colSpan });
    const rows = sorted("strength").map((strength) => {
      const across = columns.map(({ lora, step }) => {
        const cell = cells.find((one) => one.lora === lora && one.step === step && one.strength === strength);
        return el("td", {}, cell ? this.cellOf(cell) : "");
      });
      return el("tr", {}, head(strength, "row"), ...across);
    });
    const names = loras.length > 1 ? [el("tr", {}, el("td"), ...loras.map((lora) => head(lora, "colgroup", stepsOf(lora).length)))] : [];
    const top = el("tr", {}, head(t("strength"), "col"), ...columns.map(({ step }) => head(t("step {step}", { step }), "col")));
    this.grid.replaceChildren(...(cells.length ? [el("table", {}, ...names, top, ...rows)] : []));
  }

  cellOf(cell) {
    const name = this.nameOf(cell.sample), after = this.sides(cell.sample).find(({ label }) => label === "after");
    const use = el("button", {
      textContent: t("Use"), title: t("Keep step {step} as a LoRA, for strength {strength}", cell),
      ariaLabel: t("Use step {step} at {strength}", cell), onclick: () => this.use(cell),
    });
    const show = () => {
      this.choose(cell.sample);
      this.enlarge();
    };
    const picture = el("img", { src: after?.url ?? "", alt: name, loading: "lazy" });
    return el("figure", {}, el("button", { className: "pairlora-cell", ariaLabel: t("Compare {name}", { name }), onclick: show }, picture), use);
  }

  async use({ lora, step, strength }) {
    let file, error;
    try {
      ({ file, error } = await (await post("keep", { lora, step })).json());
    } catch ({ message }) {
      error = t("The server does not answer ({reason}).", { reason: message });
    }
    if (file) await refreshDropdowns();
    const taken = file ? useLora(lora, file, strength).map(({ title, id }) => `${title} (${id})`) : [];
    if (taken.length) noteChange();
    this.answer.textContent = error ?? (taken.length
      ? t("Kept as {file}, and taken in {nodes} at strength {strength}.", { file, nodes: taken.join(", "), strength })
      : t("Kept as {file}. To use it, type it into lora of Load LoRA (file or URL), and {strength} into its strength.", { file, strength }));
  }

  toggle() {
    this.wantsGrid = !this.wantsGrid;
    this.draw();
    this.keep();
  }
}

/** One row for each picture that was scored, one column for each score and region. */
function tableOf(scored) {
  const keys = Object.keys(scored[0].scores);
  const title = (key) => {
    const [, measure, part] = /^(psnr|ssim)(.*)$/.exec(key);
    const where = { _edited: t("edited"), _kept: t("kept") }[part] ?? "";
    return `${measure.toUpperCase()} ${where}`.trim();
  };
  const rows = scored.map(({ side, scores }) =>
    el("tr", {},
      el("th", { textContent: sideText(side), scope: "row" }),
      ...keys.map((key) => el("td", { textContent: scores[key]?.toFixed(key.startsWith("psnr") ? 1 : 3) ?? "–" })),
    ),
  );
  const heads = ["", ...keys.map(title)].map((textContent) => el("th", { textContent, scope: "col" }));
  return el("table", { title: t("How near to the target: PSNR in dB, SSIM up to 1") }, el("tr", {}, ...heads), ...rows);
}

const widgets = new WeakMap();

app.registerExtension({
  name: "pairlora.compare",
  setup() {
    api.addEventListener("executed", async ({ detail }) => {
      const images = detail.output?.images, id = detail.display_node ?? detail.node;
      if (!images?.[0]?.side) return;
      if (await isOnScreen(detail.prompt_id)) widgets.get(nodeAt(id))?.ran(images);
      else widgets.get(nodeAt(id))?.look(); // perhaps queued before this page was loaded
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) widgets.set(node, new CompareWidget(node));
  },
  onNodeOutputsUpdated(outputs) { // an entry of the history was opened, or another workflow, with what it showed then
    for (const [id, { images } = {}] of Object.entries(outputs)) {
      const widget = images?.length && widgets.get(nodeAt(id));
      if (widget && images[0].filename !== widget.node.properties[KEPT]?.[0]?.filename) widget.wasTold(images);
    }
  },
});
