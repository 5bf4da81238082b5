// Load LoRA: the strength as a slider from -2 to 2; what is typed beside it may lie beyond.
import { app } from "../../scripts/app.js";
import { addPanel, after, el } from "./dom.js";
import { isLinked } from "./graph.js";
import { t } from "./texts.js";

const HEIGHT = 26; // px

function addSlider(node) {
  const strength = node.widgets.find((widget) => widget.name === "strength");
  const slider = el("input", { type: "range", min: -2, max: 2, step: 0.05, className: "pairlora-strength", title: t("strength") });
  slider.setAttribute("aria-label", t("strength"));
  const show = () => {
    slider.value = strength.value; // the browser keeps it within -2 and 2
    slider.disabled = isLinked(node, "strength");
  };
  slider.addEventListener("input", () => {
    strength.value = Number(slider.value);
    strength.callback?.(strength.value);
    node.setDirtyCanvas(true, true);
  });
  slider.addEventListener("dblclick", () => {
    slider.value = 1;
    slider.dispatchEvent(new Event("input"));
  });
  after(strength, "callback", show);
  addPanel(node, "slider", slider, HEIGHT, HEIGHT);
  for (const event of ["onConfigure", "onConnectionsChange"]) after(node, event, show);
  show();
}

app.registerExtension({
  name: "pairlora.load",
  nodeCreated(node) {
    if (node.comfyClass === "PairLoRALoad") addSlider(node);
  },
});
