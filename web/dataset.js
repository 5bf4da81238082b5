// The widget of "Load Paired Dataset": counts, contact sheet, report, and the upload of a folder or zip.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { openLarge } from "./comparison.js";
import { addPanel, after, el, many, pictureURL, post } from "./dom.js";
import { inputsOf, isOnScreen, nodeAt, refreshDropdowns } from "./graph.js";
import { upload } from "./upload.js";

const NODE = "PairLoRADataset";
const INPUTS = ["folder", "default_caption", "trigger_word", "resolution", "background", "strict", "path"];
const PATIENCE = 300; // ms without another change before the folder is looked at
const AGAIN = 3000; // ms until it is looked at again, since its files may change,
const SHARE = 20; // but at least this many times as long as a look takes
const HEIGHT = 320; // px that the widget has at least

// What stopped runs, and what a preview of the same inputs said then: as long as it says the same, no file has changed. By
// the inputs as keyOf gives them: {error, preview}. What runs found in the pixels, the preview says itself.
const runs = new Map();
const keyOf = (inputs) => JSON.stringify(INPUTS.map((name) => inputs[name]));

class DatasetWidget {
  constructor(node) {
    this.node = node;
    this.request = 0; // the last one wins
    this.preview = {}; // the last one: {key, text}
    this.drawn = null; // what is shown, as JSON
    this.editor = null; // the caption that is being edited; nothing is drawn anew over it
    this.counts = el("div", { className: "pairlora-counts" });
    this.progress = el("progress", { max: 1, value: 0 });
    this.percent = el("span");
    this.cancel = el("button", { textContent: "Cancel" });
    this.uploading = el("div", { className: "pairlora-uploading", hidden: true }, this.progress, this.percent, this.cancel);
    this.uploaded = el("div"); // what became of the last upload
    this.body = el("div", { className: "pairlora-body" });
    this.problems = el("input", { type: "checkbox", onchange: () => this.filter() });
    this.element = el(
      "div", { className: "pairlora-panel pairlora-dataset" },
      this.counts,
      el("div", { className: "pairlora-buttons" }, ...this.pickers()),
      this.uploading,
      this.uploaded,
      this.body,
    );

    addPanel(node, "pairs", this.element, HEIGHT);
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
      after(widget, "callback", () => this.schedule());
    }
    for (const event of ["onConfigure", "onConnectionsChange"]) after(node, event, () => this.schedule());
    after(node, "onRemoved", () => this.stop());
  }

  inputs() {
    const linked = new Set((this.node.inputs ?? []).filter(({ link }) => link != null).map(({ name }) => name));
    if (linked.has("path") || linked.has("folder")) return null; // known only when it runs
    const widgets = this.node.widgets.filter(({ name }) => INPUTS.includes(name) && !linked.has(name));
    return Object.fromEntries(widgets.map(({ name, value }) => [name, value]));
  }

  schedule(wait = PATIENCE) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), wait);
  }

  stop() {
    clearTimeout(this.timer);
    this.request++;
  }

  async look() {
    const inputs = this.inputs();
    if (!inputs) return this.linked || this.message("The folder comes from another node: queue to see it.");
    const key = keyOf(inputs), known = this.preview.key === key;
    if (known && (document.hidden || !this.element.checkVisibility())) return this.schedule(AGAIN);
    if (!known) this.editor = null; // it was of another folder
    const request = ++this.request, start = performance.now();
    let text;
    try {
      const response = await post("preview", inputs);
      text = JSON.stringify(await response.json());
    } catch (error) {
      text = known ? this.preview.text : JSON.stringify({ error: `The server does not answer (${error.message}).` });
    }
    if (request !== this.request) return;
    this.preview = { key, text };
    this.draw();
    this.schedule(Math.max(AGAIN, SHARE * (performance.now() - start)));
  }

  /** Take what a run with `inputs`, as they were queued, has found: {result}, or the {error} that stopped it. */
  ran(inputs, found) {
    const typed = Object.fromEntries(Object.entries(inputs).filter(([, value]) => !Array.isArray(value))); // else a link
    this.linked = !("folder" in typed && "path" in typed);
    if (this.linked) return found.error ? this.message(found.error, "error") : this.show(found);
    const key = keyOf(typed), known = this.preview.key === key;
    runs.delete(key);
    if (found.result) return this.schedule(0);
    runs.set(key, { ...found, preview: known ? this.preview.text : null });
    known ? this.draw() : this.schedule(0);
  }

  /** Show what the preview found, and what stopped a run on the files as they are. */
  draw() {
    if (this.editor) return;
    const { key, text } = this.preview, run = runs.get(key);
    if (run) run.preview ??= text;
    const error = run?.preview === text ? run.error : undefined;
    const state = JSON.stringify([text, error]);
    if (state === this.drawn) return; // else scrolling and opened parts would be lost
    this.drawn = state;
    const result = JSON.parse(text);
    result.error ? this.message(result.error, "error") : this.show({ result, error });
  }

  message(text, level = "note") {
    this.editor = null;
    this.counts.replaceChildren(el("span", { className: `pairlora-${level}`, textContent: text }));
    this.body.replaceChildren();
  }

  show({ result, error }) {
    const { layout, counts, samples, left_out, more, findings, unused, text, checked, read_only } = result;
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
      el("small", { textContent: `${layout}${checked || error ? "" : " · queue to check the images"}` }),
      error ? el("span", { className: "pairlora-error", textContent: error }) : "",
    );
    const sheet = samples.map((sample) => this.figure(sample, read_only));
    if (more) sheet.push(el("p", { className: "pairlora-more", textContent: `and ${more} more` }));
    const aside = left_out.map((sample) => this.figure(sample, read_only, true));
    const some = samples.some((sample) => sample.findings.length);
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
      some ? el("label", { className: "pairlora-filter" }, this.problems, "Only pairs with something to look at") : "",
      el("div", { className: "pairlora-sheet" }, ...sheet),
      read_only ? el("p", { className: "pairlora-more", textContent: read_only }) : "",
      aside.length ? details(`${aside.length} left out`, el("div", { className: "pairlora-sheet" }, ...aside)) : "",
      counts.unused ? details(many(counts.unused, "file") + " not used", el("ul", {}, ...files)) : "",
      details("Report, advice and checklist", el("pre", { textContent: text })),
    );
    this.filter();
  }

  /** Show only the samples with findings, where that is asked for. */
  filter() {
    this.body.classList.toggle("pairlora-only-problems", this.problems.checked && this.problems.isConnected);
  }

  /** A sample on the sheet: its pictures, its caption, what was found, and what can be done with it. */
  figure({ name, caption, image, findings }, readOnly, isOut = false) {
    const figure = el("figure", { className: findings.length ? "pairlora-found" : "" });
    const picture = el("img", { src: pictureURL(image), loading: "lazy", alt: name });
    const text = el("figcaption", {}, el("b", { textContent: name }), ` ${caption || "no caption"}`);
    const remarks = findings.map(({ level, message }) => el("small", { className: `pairlora-${level}`, textContent: message }));
    const failed = el("small", { className: "pairlora-error", role: "alert" });
    const doing = (action) => async () => {
      failed.textContent = "";
      try {
        await action();
      } catch (error) {
        failed.textContent = error.message;
      }
    };
    if (!this.inputs()) { // the folder comes from another node, so it cannot be named
      figure.append(picture, text, ...remarks);
      return figure;
    }
    const button = (textContent, what, action) =>
      el("button", { textContent, title: `${what} of ${name}`, ariaLabel: `${what} of ${name}`, onclick: doing(action) });
    const large = el("button", {
      className: "pairlora-enlarge", title: `Compare ${name} large`, onclick: doing(() => this.enlarge(name)),
    }, picture);
    figure.append(large, text, ...remarks);
    if (readOnly) {
      figure.append(failed);
      return figure;
    }
    const change = button(caption ? "Edit" : "Add", "Caption", () => this.edit(name, figure));
    const move = el("button", {
      textContent: isOut ? "Use again" : "Leave out", ariaLabel: `${isOut ? "Use" : "Leave out"} ${name}`,
      title: isOut ? "Take it from left_out.txt" : "Name it in left_out.txt; its files stay where they are",
      onclick: doing(async () => {
        await this.ask("left_out", { sample: name, out: !isOut }, "POST");
        await this.look();
      }),
    });
    figure.append(el("div", { className: "pairlora-actions" }, change, move), failed);
    return figure;
  }

  /** A sample's request to the server; the folder goes along. Throws with the server's sentence. */
  async ask(route, about, method = "GET") {
    const { folder, path } = this.inputs(), values = { folder, path, ...about };
    const response = method === "GET"
      ? await api.fetchApi(`/pairlora/${route}?${new URLSearchParams(values)}`)
      : await post(route, values);
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    return answer;
  }

  /** Compare a sample's pictures, whole, in a dialog. */
  async enlarge(sample) {
    const { folder, path, background } = this.inputs();
    const about = { sample, ...(background == null ? {} : { background }) };
    const { sides } = await this.ask("sides", about);
    const pictures = sides.map(({ label, which }) => {
      const query = new URLSearchParams({ folder, path, ...about, which });
      return { label, url: api.apiURL(`/pairlora/picture?${query}`), alt: `${label} of ${sample}` };
    });
    openLarge(pictures, { title: sample, left: sides[0].label, right: "target" });
  }

  /** Turn a sample's caption into a field; Ctrl+Enter saves, Esc leaves it as it was. */
  async edit(sample, figure) {
    if (this.editor) throw new Error("Save or close the other caption first.");
    const { folder, path } = this.inputs(), about = { folder, path, sample }; // of now, whatever is chosen meanwhile
    const { file, text, version, remark } = await this.ask("caption", about);
    if (this.editor || !figure.isConnected) return;
    const field = el("textarea", { value: text, rows: 4, ariaLabel: `Caption of ${sample}`, spellcheck: true });
    const note = el("small", { textContent: remark ? `${file} ${remark}. Saving writes UTF-8.` : version ? file : `new file ${file}` });
    const failed = el("small", { className: "pairlora-error", role: "alert" });
    const close = () => {
      this.editor?.remove();
      this.editor = null;
      figure.classList.remove("pairlora-edited");
      this.drawn = null;
      this.draw();
    };
    const save = async () => {
      failed.textContent = "";
      try {
        await this.ask("caption", { ...about, text: field.value, version }, "POST");
      } catch (error) {
        failed.textContent = error.message;
        return;
      }
      close();
      await this.look();
    };
    field.addEventListener("keydown", (event) => {
      event.stopPropagation(); // the canvas behind has shortcuts
      if (event.key === "Escape") close();
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    });
    this.editor = el("div", { className: "pairlora-editor" }, field, note, failed, el(
      "div", { className: "pairlora-actions" },
      el("button", { textContent: "Save", onclick: save }), el("button", { textContent: "Cancel", onclick: close }),
    ));
    figure.classList.add("pairlora-edited");
    figure.append(this.editor);
    field.focus();
    this.body.scrollTop += Math.max(0, this.editor.getBoundingClientRect().bottom - this.body.getBoundingClientRect().bottom);
  }

  async send(files) {
    const transfer = upload(files, (part) => {
      this.progress.value = part;
      this.percent.textContent = part < 1 ? `${Math.floor(part * 100)} %` : "unpacking";
    });
    this.cancel.onclick = () => transfer.cancel();
    this.uploading.hidden = false;
    this.uploaded.replaceChildren();
    try {
      const { folder, skipped } = await transfer.done;
      await this.choose(folder);
      if (skipped.length) {
        const left = skipped.map(({ file, reason }) => `${file}: ${reason}`).join("\n");
        const were = skipped.length === 1 ? "was" : "were";
        const summary = `${many(skipped.length, "file")} of the upload ${were} left out`;
        this.uploaded.append(details(summary, el("pre", { textContent: left })));
      }
    } catch (error) {
      this.uploaded.append(el("span", { className: "pairlora-error", textContent: error.message }));
    } finally {
      this.uploading.hidden = true;
    }
  }

  async choose(folder) {
    await refreshDropdowns();
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

async function ran(prompt, nodeId, found) {
  if (!(await isOnScreen(prompt))) return;
  widgets.get(nodeAt(nodeId))?.ran(inputsOf(prompt, nodeId), found);
}

app.registerExtension({
  name: "pairlora.dataset",
  setup() {
    api.addEventListener("pairlora_dataset", ({ detail: { prompt_id, node, result } }) => ran(prompt_id, node, { result }));
    api.addEventListener("execution_error", ({ detail }) => {
      ran(detail.prompt_id, detail.node_id, { error: detail.exception_message.trim() });
    });
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) widgets.set(node, new DatasetWidget(node));
  },
});
