// The widget of "Train Edit LoRA": how far the training is, its warnings, and in the end the report.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { el } from "./dom.js";
import { isOnScreen, nodeAt, refreshDropdowns } from "./graph.js";

const NODE = "PairLoRATrain";
const HEIGHT = 110; // px that the widget has at least

const widgets = new Map(); // by node, of the workflow on screen
let known; // the client id that the server knows as one that draws progress itself

class TrainWidget {
  constructor(node) {
    this.when = 0;
    this.text = el("p");
    this.warnings = el("div");
    this.element = el("div", { className: "pairlora-panel pairlora-train" }, this.text, this.warnings);
    // the canvas would take the wheel for zooming
    this.element.addEventListener("wheel", (event) => event.stopPropagation(), { passive: true });
    this.show({ text: "Progress and the report appear here." });
    const widget = node.addDOMWidget("progress", "pairlora-train", this.element, {
      serialize: false, hideOnZoom: false, getMinHeight: () => HEIGHT,
    });
    widget.serialize = false; // nor in saved workflows, whose values go by position
    node.setSize([Math.max(node.size[0], 300), Math.max(node.size[1], node.computeSize()[1])]);
    const { onRemoved } = node;
    node.onRemoved = function (...args) {
      widgets.delete(node);
      return onRemoved?.apply(this, args);
    };
  }

  /** `when` is the server's time in seconds: what is older than what is shown is not shown. */
  show({ text, warnings = [], when = this.when, ended = true, failed = false }) {
    if (when < this.when) return;
    Object.assign(this, { when, ended });
    this.text.textContent = text;
    this.text.className = failed ? "pairlora-error" : "";
    const lines = warnings.map((warning) => el("p", { className: "pairlora-warning", textContent: warning }));
    this.warnings.replaceChildren(...lines);
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
  },
  nodeCreated(node) {
    if (node.comfyClass === NODE) widgets.set(node, new TrainWidget(node));
  },
  afterConfigureGraph() {
    ask(); // not awaited: the workflow is on screen only once this is done
  },
});
