// The widget of "Load Paired Dataset": counts, contact sheet, report, and the upload of a folder or zip.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { el } from "./dom.js";
import { upload } from "./upload.js";

const NODE = "PairLoRADataset";
const INPUTS = ["folder", "default_caption", "trigger_word", "resolution", "background", "path"];
const PATIENCE = 300; // ms without another change before the folder is looked at
const HEIGHT = 320; // px that the widget has at least

class DatasetWidget {
  constructor(node) {
    this.node = node;
    this.request = 0; // the last one wins
    this.checkedFor = null; // the inputs whose pixels have been looked at: a preview knows less
    this.counts = el("div", { className: "pairlora-counts" });
    this.progress = el("progress", { max: 1, value: 0 });
    this.percent = el("span");
    this.cancel = el("button", { textContent: "Cancel" });
    this.uploading = el("div", { className: "pairlora-uploading", hidden: true }, this.progress, this.percent, this.cancel);
    this.body = el("div", { className: "pairlora-body" });
    this.element = el(
      "div", { className: "pairlora-dataset" },
      this.counts,
      el("div", { className: "pairlora-buttons" }, ...this.pickers()),
      this.uploading,
      this.body,
    );
    // the canvas would take the wheel for zooming
    this.element.addEventListener("wheel", (event) => event.stopPropagation(), { passive: true });

    const widget = node.addDOMWidget("pairs", "pairlora-dataset", this.element, {
      serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT,
    });
    widget.serialize = false; // nor in saved workflows, whose values go by position
    node.setSize([Math.max(node.size[0], 420), Math.max(node.size[1], node.computeSize()[1])]);
    this.watch();
    this.schedule();
  }

  /** A button each for a folder and a zip; the inputs behind them are hidden. */
  pickers() {
    return [
      ["Upload folder", { webkitdirectory: true, multiple: true }],
      ["Upload zip", { accept: ".zip" }],
    ].flatMap(([label, options]) => {
      const input = el("input", { type: "file", hidden: true, ...options });
      input.onchange = () => {
        const files = [...input.files];
        input.value = ""; // the same choice again is a change again
        if (files.length) this.send(files);
      };
      return [el("button", { textContent: label, onclick: () => input.click() }), input];
    });
  }

  /** Look at the folder again when a widget changes or a workflow has been loaded. */
  watch() {
    const { node } = this;
    for (const widget of node.widgets.filter(({ name }) => INPUTS.includes(name))) {
      const { callback } = widget;
      widget.callback = (...args) => {
        const result = callback?.apply(widget, args);
        this.schedule();
        return result;
      };
    }
    for (const [event, then] of [
      ["onConfigure", () => this.schedule()],
      ["onConnectionsChange", () => this.schedule()],
      ["onExecuted", (output) => this.executed(output)],
    ]) {
      const before = node[event];
      node[event] = function (...args) {
        before?.apply(this, args);
        then(...args);
      };
    }
  }

  inputs() {
    const linked = new Set((this.node.inputs ?? []).filter(({ link }) => link != null).map(({ name }) => name));
    if (linked.has("path") || linked.has("folder")) return null; // known only when it runs
    const widgets = this.node.widgets.filter(({ name }) => INPUTS.includes(name) && !linked.has(name));
    return Object.fromEntries(widgets.map(({ name, value }) => [name, value]));
  }

  schedule() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.preview(), PATIENCE);
  }

  async preview() {
    const inputs = this.inputs();
    if (!inputs) return this.checkedFor || this.message("The folder comes from another node: queue to see it.");
    const key = JSON.stringify(inputs);
    if (key === this.checkedFor) return;
    const request = ++this.request;
    let answer;
    try {
      const response = await api.fetchApi("/pairlora/preview", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: key,
      });
      answer = await response.json();
    } catch (error) {
      answer = { error: `The server does not answer (${error.message}).` };
    }
    if (request !== this.request) return;
    this.checkedFor = null;
    answer.error ? this.message(answer.error, "error") : this.show(answer);
  }

  executed(output) {
    const result = output?.pairlora_dataset?.[0];
    if (!result) return;
    this.request++; // a preview under way is outdated
    this.checkedFor = JSON.stringify(this.inputs());
    this.show(result);
  }

  message(text, level = "note") {
    this.counts.replaceChildren(el("span", { className: `pairlora-${level}`, textContent: text }));
    this.body.replaceChildren();
  }

  show({ layout, counts, samples, more, findings, unused, text, checked }) {
    const many = (number, word) => `${number} ${word}${String(number) === "1" ? "" : "s"}`;
    const parts = [
      counts.pairs || !counts.unpaired ? many(counts.pairs, "pair") : "",
      counts.unpaired ? `${counts.unpaired} without inputs` : "",
      counts.pairs ? many(counts.references.join(" or "), "input") + " each" : "",
      many(counts.captions, "caption"),
    ];
    this.counts.replaceChildren(
      el("b", { textContent: parts.filter(Boolean).join(", ") }),
      counts.errors ? el("span", { className: "pairlora-error", textContent: many(counts.errors, "error") }) : "",
      counts.warnings ? el("span", { className: "pairlora-warning", textContent: many(counts.warnings, "warning") }) : "",
      el("small", { textContent: `${layout}${checked ? "" : " · queue to check the images"}` }),
    );
    const sheet = samples.map(({ name, caption, image, findings }) =>
      el("figure", {},
        el("img", { src: api.apiURL(`/view?${new URLSearchParams(image)}`), loading: "lazy", alt: name }),
        el("figcaption", {}, el("b", { textContent: name }), ` ${caption || "no caption"}`),
        ...findings.map(({ level, message }) => el("small", { className: `pairlora-${level}`, textContent: message })),
      ),
    );
    if (more) sheet.push(el("p", { textContent: `and ${more} more` }));
    const rows = findings.map(({ level, sample, message }) =>
      el("tr", {},
        el("td", { className: `pairlora-${level}`, textContent: level }),
        el("td", { textContent: sample ?? "" }),
        el("td", { textContent: message }),
      ),
    );
    const files = unused.map(({ file, reason }) => el("li", { textContent: `${file}: ${reason}` }));
    this.body.replaceChildren(
      rows.length ? el("table", {}, ...rows) : "",
      el("div", { className: "pairlora-sheet" }, ...sheet),
      counts.unused ? details(many(counts.unused, "file") + " not used", el("ul", {}, ...files)) : "",
      details("Report, advice and checklist", el("pre", { textContent: text })),
    );
  }

  async send(files) {
    const transfer = upload(files, (part) => {
      this.progress.value = part;
      this.percent.textContent = part < 1 ? `${Math.floor(part * 100)} %` : "unpacking";
    });
    this.cancel.onclick = () => transfer.cancel();
    this.uploading.hidden = false;
    try {
      const { folder, skipped } = await transfer.done;
      await this.choose(folder);
      if (skipped.length) {
        const left = skipped.map(({ file, reason }) => `${file}: ${reason}`).join("\n");
        this.uploaded = details(`${skipped.length} files of the upload were left out`, el("pre", { textContent: left }));
        this.uploading.after(this.uploaded);
      }
    } catch (error) {
      clearTimeout(this.timer); // a preview would hide the reason
      this.request++;
      this.message(error.message, "error");
    } finally {
      this.uploading.hidden = true;
    }
  }

  /** Select a new folder, in a list that every dataset node knows. */
  async choose(folder) {
    this.uploaded?.remove();
    for (const node of app.graph.nodes.filter((other) => other.comfyClass === NODE)) {
      const { options } = node.widgets.find(({ name }) => name === "folder");
      if (Array.isArray(options.values) && !options.values.includes(folder)) options.values = [...options.values, folder];
    }
    for (const [name, value] of [["path", ""], ["folder", folder]]) {
      const widget = this.node.widgets.find((other) => other.name === name);
      widget.value = value;
      widget.callback?.(value);
    }
    app.graph.setDirtyCanvas(true, true);
  }
}

function details(summary, content) {
  return el("details", {}, el("summary", { textContent: summary }), content);
}

const widgets = new WeakMap();

app.registerExtension({
  name: "pairlora.dataset",
  setup() {
    document.head.append(el("link", { rel: "stylesheet", href: new URL("dataset.css", import.meta.url).href }));
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) widgets.set(node, new DatasetWidget(node));
  },
  // after switching between workflows, whose nodes are made anew
  onNodeOutputsUpdated(outputs) {
    for (const [id, output] of Object.entries(outputs)) widgets.get(app.graph.getNodeById(id))?.executed(output);
  },
});
