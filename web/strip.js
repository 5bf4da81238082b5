// The strip of a training's previews: each held-out pair as input, before, now and target, at any step there is one of.
import { openLarge, sideText } from "./comparison.js";
import { el, pictureURL } from "./dom.js";
import { t } from "./texts.js";

export class Strip {
  constructor() {
    Object.assign(this, { subfolder: "", previews: [], inputs: [], at: -1, drawn: "" });
    this.scrubber = el("input", { type: "range", min: 0, step: 1, ariaLabel: t("Step of the pictures") });
    this.scrubber.oninput = () => this.go(Number(this.scrubber.value));
    this.step = el("output");
    this.rows = el("div", { className: "pairlora-strip-rows" });
    this.element = el(
      "div", { className: "pairlora-strip", hidden: true },
      el("div", { className: "pairlora-strip-bar" }, this.scrubber, this.step), this.rows,
    );
  }

  /** `previews` and `inputs` as GET /pairlora/run gives them, files of `subfolder` of the output folder. Whoever looks at the
   * newest sees the next one. */
  show({ subfolder, previews, inputs }) {
    const newest = this.at < 0 || this.at === this.previews.length - 1, step = this.previews[this.at]?.step;
    Object.assign(this, { subfolder, previews, inputs });
    this.element.hidden = !previews.length;
    this.scrubber.max = previews.length - 1;
    this.scrubber.disabled = previews.length < 2;
    const same = previews.findIndex((preview) => preview.step === step);
    this.go(newest || same < 0 ? previews.length - 1 : same);
  }

  clear() {
    this.at = -1;
    this.show({ subfolder: "", previews: [], inputs: [] });
  }

  go(at) {
    this.at = at;
    this.scrubber.value = at;
    const preview = this.previews[at];
    this.step.textContent = preview ? this.said(preview.step) : "";
    this.scrubber.ariaValueText = this.step.textContent;
    this.draw();
  }

  said(step) {
    return step === 0 ? t("before training") : t("step {step}", { step });
  }

  named(pair, side) {
    return t("Held-out pair {pair}, {side}", { pair, side });
  }

  sides(pair) {
    const { previews, inputs } = this, of = (preview) => preview?.pictures.find((picture) => picture.pair === pair)?.after;
    const { input, target } = inputs.find((given) => given.pair === pair) ?? {};
    const { step } = previews[this.at], before = previews.find((preview) => preview.step === 0);
    return [["input", input], ["before", of(before)], ["now", of(previews[this.at])], ["target", target]].map(([label, filename]) => ({
      label,
      url: filename && pictureURL({ filename, subfolder: `${this.subfolder}/previews`, type: "output" }),
      alt: this.named(pair, label === "now" ? this.said(step) : sideText(label)),
    }));
  }

  draw() {
    const pairs = (this.previews[this.at]?.pictures ?? []).map(({ pair }) => pair);
    const key = `${this.subfolder} ${pairs}`;
    if (key !== this.drawn) { // else only the pictures change, without a flicker
      this.drawn = key;
      this.rows.replaceChildren(...pairs.map((pair) => this.row(pair)));
    }
    pairs.forEach((pair, i) => {
      for (const [j, { url, alt }] of this.sides(pair).entries()) {
        const image = this.rows.children[i].querySelectorAll("img")[j];
        image.hidden = !url;
        image.alt = alt;
        if (url && image.getAttribute("src") !== url) image.src = url;
      }
    });
  }

  row(pair) {
    const figures = ["input", "before", "now", "target"].map((label) =>
      el("figure", {}, el("img", { loading: "lazy", draggable: false }), el("figcaption", { textContent: sideText(label) })));
    const button = el("button", { type: "button", title: t("Compare them large") }, ...figures);
    button.onclick = () =>
      openLarge(this.sides(pair), { title: this.named(pair, this.said(this.previews[this.at].step)), left: "before", right: "now" });
    return button;
  }
}
