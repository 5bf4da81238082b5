// The runs that lie on this machine, with the room that they take; showing and removing one.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { el, many, post } from "./dom.js";

/** Bytes in words. */
export function size(bytes) {
  const power = Math.min(4, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  return `${Number((bytes / 1000 ** power).toPrecision(3))} ${["bytes", "kB", "MB", "GB", "TB"][power]}`;
}

/** A button, and the list that it opens. `onShow` is called with the key of a run that is to be shown, `onRemoved` after one
 * has been removed. */
export class Runs {
  constructor(onShow, onRemoved) {
    Object.assign(this, { onShow, onRemoved });
    this.button = el("button", { textContent: "Runs", title: "All runs on this machine", type: "button", ariaExpanded: "false" });
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
      const all = runs.reduce((sum, run) => sum + run.size, 0);
      this.element.replaceChildren(
        el("p", { textContent: message || `${many(runs.length, "run")}, ${size(all)}. Removing one leaves the LoRAs in the loras folder.` }),
        ...runs.map((run) => this.row(run)),
      );
    } catch (error) {
      this.element.textContent = `The server does not answer (${error.message}).`;
    }
  }

  row({ key, name, size: bytes, step, finished }) {
    const remove = el("button", { textContent: "Remove", type: "button", ariaLabel: `Remove the run ${name} ${key}` });
    remove.onclick = async () => {
      const message = `Remove the run ${name} (${key}), ${size(bytes)}? Its checkpoints and pictures are deleted and it cannot be ` +
        "trained on; the LoRAs in the loras folder stay.";
      if (!(await app.extensionManager.dialog.confirm({ title: "Remove a run", message, type: "delete" }))) return;
      let error;
      try {
        ({ error } = await (await post("run/remove", { key })).json());
      } catch ({ message: reason }) {
        error = `The server does not answer (${reason}).`;
      }
      await this.list(error);
      if (!error) this.onRemoved();
    };
    const state = `${finished.includes(step) ? "finished at" : "at"} step ${step}, ${size(bytes)}`;
    const show = el("button", { textContent: "Show", type: "button", ariaLabel: `Show the run ${name} ${key} here` });
    show.onclick = () => this.onShow(key);
    return el("div", {}, el("b", { textContent: name }), el("span", { textContent: state }), show, remove);
  }
}
