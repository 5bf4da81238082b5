// What goes with the samples of a dataset, where steps and learning rate are typed.
import { el, post } from "./dom.js";
import { t } from "./texts.js";

const RATES = { PairLoRADemoModel: 0.002 }; // the tiny model learns nothing at less
const RATE = 0.0001;
const DATASET = "PairLoRADataset";

const given = (node, name) => node.getInputNode?.(node.inputs?.findIndex((input) => input.name === name) ?? -1);

/** How many samples a dataset node has and how many steps these want, by the inputs shown in it; null where that is known
 * only when it runs. */
class Counted {
  async of(dataset) {
    if (dataset?.comfyClass !== DATASET || dataset.inputs?.some(({ link }) => link != null)) return null;
    const shown = dataset.widgets.filter(({ options, type }) => options?.serialize !== false && type !== "button");
    const inputs = Object.fromEntries(shown.filter(({ serialize }) => serialize !== false).map(({ name, value }) => [name, value]));
    const key = JSON.stringify(inputs);
    if (key === this.key) return this.samples;
    const { counts, steps } = await (await post("preview", inputs)).json();
    this.key = key;
    this.samples = counts ? { pairs: counts.pairs, all: counts.samples, steps } : null;
    return this.samples;
  }
}

/** Advice for the widgets of a Train node; a click takes it. */
export class Advice {
  constructor(node) {
    this.node = node;
    this.counted = new Counted();
    this.element = el("div", { className: "pairlora-advice", hidden: true });
  }

  async look() {
    let samples = null;
    try {
      samples = await this.counted.of(given(this.node, "dataset"));
    } catch {
      // the dataset's own panel says that the server does not answer
    }
    const rate = RATES[given(this.node, "model")?.comfyClass] ?? RATE;
    const steps = samples?.all && { name: "steps", value: samples.steps };
    const about = { steps: steps?.value?.toLocaleString(), n: samples?.all };
    const many = samples?.all === samples?.pairs
      ? t("about {steps} for this {n} pair | about {steps} for these {n} pairs", about)
      : t("about {steps} for this {n} sample | about {steps} for these {n} samples", about);
    const parts = [
      steps && { ...steps, label: t("Steps:"), text: many },
      { name: "learning_rate", value: rate, label: t("Rate:"), text: t("try {rate}", { rate }) },
    ].filter((part) => part && this.widget(part.name) && this.widget(part.name).value !== part.value);
    const key = JSON.stringify(parts);
    if (key === this.drawn) return;
    this.drawn = key;
    this.element.hidden = !parts.length;
    this.element.replaceChildren(...parts.flatMap(({ label, text, ...part }) => [
      el("span", { textContent: label }),
      el("button", { textContent: text, title: t("Take it"), type: "button", onclick: () => this.take(part) }),
    ]));
  }

  /** Undefined where a link gives the value. */
  widget(name) {
    const linked = this.node.inputs?.some((input) => input.name === name && input.link != null);
    return linked ? undefined : this.node.widgets.find((widget) => widget.name === name);
  }

  take({ name, value }) {
    const widget = this.widget(name);
    widget.value = value;
    widget.callback?.(value);
    this.node.setDirtyCanvas?.(true, true);
    this.look();
  }
}
