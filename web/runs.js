// The runs that lie on this machine, with the room that they take; showing and removing one.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { el, post } from "./dom.js";
import { t } from "./texts.js";

/** Bytes in words. */
export function size(bytes) {
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  return `${Number((bytes / 1000 ** power).toPrecision(3))} ${[t("bytes"), "kB", "MB", "GB", "TB"][power]}`;
}

/** A button, and the list that it opens. `onShow` is called with the key of a run that is to be shown, `onRemoved` after one
 * has been removed. */
export class Runs {
  constructor(onShow, onRemoved) {
    Object.assign(this, { onShow, onRemoved });
    this.button = el("button", { textContent: t("Runs"), title: t("All runs on this machine"), type: "button", ariaExpanded: "false" });
    this.button.onclick = () => this.toggle();
    this.element = el("div", { className: "pairlora-runs", hidden: true });
  }

  get open() {
    return !this.element.hidden;
  }

  toggle() {
    this.element.hidden = this.open;
    this.button.ariaExpanded = String(this.open);
    if (this.open) this.list();
  }

  async list(message = "") {
    try {
      const { runs } = await (await api.fetchApi("/pairlora/runs")).json();
      const about = { n: runs.length, size: size(runs.reduce((sum, run) => sum + run.size, 0)) };
      const many = t("{n} run, {size}. | {n} runs, {size}.", about);
      this.element.replaceChildren(
        el("p", { textContent: message || `${many} ${t("Removing one leaves the LoRAs in the loras folder.")}` }),
        ...runs.map((run) => this.row(run)),
      );
    } catch (error) {
      this.element.textContent = t("The server does not answer ({reason}).", { reason: error.message });
    }
  }

  row({ key, name, size: bytes, step, finished }) {
    const remove = el("button", { textContent: t("Remove"), type: "button", ariaLabel: t("Remove the run {name} {key}", { name, key }) });
    remove.onclick = async () => {
      const message = t(
        "Remove the run {name} ({key}), {size}? Its checkpoints and pictures are deleted and it cannot be trained on; the LoRAs in the loras folder stay.",
        { name, key, size: size(bytes) },
      );
      if (!(await app.extensionManager.dialog.confirm({ title: t("Remove a run"), message, type: "delete" }))) return;
      let error;
      try {
        ({ error } = await (await post("run/remove", { key })).json());
      } catch ({ message: reason }) {
        error = t("The server does not answer ({reason}).", { reason });
      }
      await this.list(error);
      if (!error) this.onRemoved();
    };
    const show = el("button", { textContent: t("Show"), type: "button", ariaLabel: t("Show the run {name} {key} here", { name, key }) });
    show.onclick = () => this.onShow(key);
    const about = { step, size: size(bytes) };
    const state = finished.includes(step) ? t("finished at step {step}, {size}", about) : t("at step {step}, {size}", about);
    return el("div", {}, el("b", { textContent: name }), el("span", { textContent: state }), show, remove);
  }
}
