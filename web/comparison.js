// Two of several pictures of one thing, compared: under a slider, flipped, side by side, or their difference.
import { el } from "./dom.js";
import { t } from "./texts.js";

const MOST = 64; // times that a picture is enlarged
const STEP = 2, LEAP = 10; // percent that an arrow key moves the slider, alone and with Shift
const WHEEL = 1.0015; // zoom for each pixel that the wheel turns
const GRIP = 14; // px around the slider in which it, not the enlarged picture, is dragged
const LARGEST = 2048; // pixels a side in which the difference is reckoned
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]]; // matplotlib's inferno

// ComfyUI's canvas zooms for two fingers wherever they are, before the stage hears of them, which goes by pointers.
addEventListener("touchmove", (event) => {
  if (event.target.closest?.(".pairlora-stage")) event.stopPropagation();
}, { capture: true, passive: true });

const modes = () => ({
  slider: t("Slider"), flip: t("Hold to flip"), side: t("Side by side"), difference: t("Difference"),
});

/** What a side is called on the page; its label stays what a workflow is saved with. */
export const sideText = (label) => ({
  input: t("input"), "input 2": t("input 2"), "input 3": t("input 3"), before: t("before"), after: t("after"), now: t("now"),
  target: t("target"), "what changes": t("what changes"),
})[label] ?? label;

/** Shows `sides`, an array of {label, url, alt}; a url that is missing or cannot be loaded becomes a placeholder. */
export class Comparison {
  /** `onChange` is called after the user has chosen a mode, side or position, with `chosen`. */
  constructor({ onChange = () => {}, missing = t("Queue the graph to make it again.") } = {}) {
    Object.assign(this, { onChange, missing, sides: [], pointers: new Map() });
    this.chosen = { mode: "slider", left: "", right: "", position: 50 };
    this.reset();
    this.mode = el("select", { ariaLabel: t("How to compare") });
    this.mode.append(...Object.entries(modes()).map(([value, text]) => el("option", { value, textContent: text })));
    this.mode.onchange = () => this.choose({ mode: this.mode.value });
    this.layers = ["left", "right"].map((which) => this.layer(which));
    this.heat = el("canvas");
    this.line = el("div", { className: "pairlora-line" });
    this.stage = el("div", { className: "pairlora-stage", tabIndex: 0 }, ...this.layers.map(({ box }) => box), this.line);
    this.note = el("output", { className: "pairlora-sizes" });
    this.bar = el("div", { className: "pairlora-bar" }, this.layers[0].tools, this.mode, this.layers[1].tools);
    this.element = el("div", { className: "pairlora-comparison" }, this.bar, this.stage, this.note);
    this.listen();
    new ResizeObserver(() => this.place()).observe(this.stage);
  }

  layer(which) {
    const image = el("img", { draggable: false, hidden: true });
    const placeholder = el("p", { className: "pairlora-missing", hidden: true });
    const label = el("span", { className: "pairlora-side" });
    const box = el("div", { className: `pairlora-layer pairlora-${which}` }, image, placeholder, label);
    const select = el("select", { ariaLabel: which === "left" ? t("Picture on the left") : t("Picture on the right"), onchange: () => this.choose({ [which]: select.value }) });
    const buttons = [
      [t("Copy"), which === "left" ? t("Copy the left picture") : t("Copy the right picture"), copy],
      [t("Save"), which === "left" ? t("Save the left picture") : t("Save the right picture"), save],
      [t("Open"), which === "left" ? t("Open the left picture") : t("Open the right picture"), open],
    ].map(([name, title, act]) =>
      el("button", {
        textContent: name, type: "button", title, ariaLabel: title,
        onclick: async () => {
          try {
            this.say((await act(this.sideOf(which))) ?? "");
          } catch (error) {
            this.say(t("{what} failed: {reason}", { what: name, reason: error.message }));
          }
        },
      }),
    );
    image.onload = () => this.loaded();
    image.onerror = () => this.loaded(layer);
    const layer = { which, image, placeholder, label, box, select, buttons, failed: false };
    layer.tools = el("div", { className: "pairlora-tools" }, select, ...buttons);
    return layer;
  }

  /** Zoom and pan stay as they are, so that the same place of another sample is seen. */
  show(sides, { left, right, mode, position } = {}) {
    this.sides = sides;
    const has = (label) => sides.some((side) => side.label === label);
    const first = [left, this.chosen.left, "before", "input", sides[0]?.label].find(has);
    const second = [right, this.chosen.right, "after", "now", "target", sides.at(-1)?.label].find(has);
    Object.assign(this.chosen, { left: first ?? "", right: second ?? "" });
    if (mode in modes()) this.chosen.mode = mode;
    if (Number.isFinite(position)) this.chosen.position = Math.min(100, Math.max(0, position));
    for (const { select } of this.layers) {
      select.replaceChildren(...sides.map(({ label }) => el("option", { value: label, textContent: sideText(label) })));
    }
    this.draw();
  }

  choose(changes) {
    Object.assign(this.chosen, changes);
    this.draw();
    this.onChange(this.chosen);
  }

  sideOf(which) {
    return this.sides.find(({ label }) => label === this.chosen[which]);
  }

  draw() {
    for (const layer of this.layers) {
      const side = this.sideOf(layer.which), { image } = layer;
      layer.select.value = side?.label ?? "";
      layer.label.textContent = sideText(side?.label ?? "");
      image.alt = side?.alt ?? sideText(side?.label ?? "");
      for (const button of layer.buttons) button.disabled = !side?.url;
      if (image.getAttribute("src") === (side?.url ?? null)) continue;
      layer.failed = !side?.url;
      side?.url ? image.setAttribute("src", side.url) : image.removeAttribute("src");
    }
    this.mode.value = this.chosen.mode;
    this.loaded();
  }

  /** After a picture has come, or the one of `failed` has not. */
  loaded(failed) {
    if (failed) failed.failed = true;
    for (const layer of this.layers) {
      const { image, placeholder, which } = layer, side = this.sideOf(which);
      if (image.complete && image.naturalWidth) layer.failed = false;
      image.hidden = layer.failed;
      placeholder.hidden = !layer.failed;
      placeholder.textContent = side ? `${t("There is no picture “{side}” on this machine.", { side: sideText(side.label) })} ${this.missing}` : this.missing;
    }
    this.difference = null;
    this.place();
    this.say();
  }

  get whole() {
    return this.layers.every(({ image, failed }) => !failed && image.complete && image.naturalWidth);
  }

  /** What the pictures are, where they are not of one size, or their difference; or a `message` instead. */
  say(message) {
    const [a, b] = this.layers.map(({ image }) => image), sizes = [a, b].map((i) => `${i.naturalWidth} × ${i.naturalHeight}`);
    const parts = [];
    if (this.whole && this.chosen.mode === "difference") parts.push(this.measure());
    if (this.whole && sizes[0] !== sizes[1]) {
      const about = { left: sideText(this.chosen.left), right: sideText(this.chosen.right), size: sizes[0], other: sizes[1] };
      parts.push(t("{left} is {size}, {right} {other}: fitted to each other.", about));
    }
    this.note.textContent = message || parts.join(" ");
  }

  /** Put the pictures, equally large, where zoom and pan want them. */
  place() {
    const { mode, left, right, position } = this.chosen, { stage } = this;
    const [a, b] = this.layers;
    const width = stage.clientWidth / (mode === "side" ? 2 : 1), height = stage.clientHeight;
    const model = [a, b].map(({ image }) => image).find(({ naturalWidth }) => naturalWidth);
    stage.dataset.mode = mode;
    if (!model || !width || !height) return;
    const scale = Math.min(width / model.naturalWidth, height / model.naturalHeight) * this.zoom;
    this.frame = { width: model.naturalWidth * scale, height: model.naturalHeight * scale };
    for (const side of ["x", "y"]) { // what is smaller than the stage stays in the middle, what is larger leaves no gap
      const spare = (side === "x" ? width / this.frame.width : height / this.frame.height) / 2;
      this.centre[side] = spare >= 0.5 ? 0.5 : Math.min(1 - spare, Math.max(spare, this.centre[side]));
    }
    const at = {
      left: `${Math.round(width / 2 - this.centre.x * this.frame.width)}px`,
      top: `${Math.round(height / 2 - this.centre.y * this.frame.height)}px`,
      width: `${Math.round(this.frame.width)}px`,
      height: `${Math.round(this.frame.height)}px`,
    };
    for (const { image } of this.layers) {
      Object.assign(image.style, at, { imageRendering: scale >= 2 ? "pixelated" : "auto" });
    }
    Object.assign(this.heat.style, at, { imageRendering: scale >= 2 ? "pixelated" : "auto" });
    const line = Math.round((stage.clientWidth * position) / 100);
    const flipped = this.flipping ? "right" : "left";
    b.box.style.clipPath = mode === "slider" && !this.flipping ? `inset(0 0 0 ${line}px)` : "";
    b.box.style.visibility = mode === "flip" && !this.flipping ? "hidden" : "";
    a.box.style.visibility = this.flipping && mode !== "side" ? "hidden" : "";
    this.line.hidden = mode !== "slider" || Boolean(this.flipping);
    this.line.style.left = `${line}px`;
    const slider = mode === "slider", names = { left: sideText(left), right: sideText(right) };
    stage.setAttribute("role", slider ? "slider" : "group");
    stage.ariaValueNow = slider ? String(Math.round(position)) : null;
    stage.ariaValueText = slider ? t("{part} % {left}, the rest {right}", { part: Math.round(position), ...names }) : null;
    stage.ariaLabel = {
      slider: t("{left} left of the slider, {right} right of it; arrow keys move it, Space flips", names),
      flip: t("{shown}; hold Space to see {right}", { shown: names[flipped], ...names }),
      side: t("{left} and {right} side by side; + and - zoom, arrow keys pan", names),
      difference: t("Difference between {left} and {right}", names),
    }[mode];
  }

  reset() {
    this.zoom = 1;
    this.centre = { x: 0.5, y: 0.5 }; // of the picture, 0..1: what is in the middle
  }

  /** Enlarge by `factor`; what is under the point (x, y), px from the middle of the picture's room, stays there. */
  enlarge(factor, x = 0, y = 0) {
    const zoom = Math.min(MOST, Math.max(1, this.zoom * factor)), grown = zoom / this.zoom;
    if (this.frame) {
      this.centre.x += (x / this.frame.width) * (1 - 1 / grown);
      this.centre.y += (y / this.frame.height) * (1 - 1 / grown);
    }
    this.zoom = zoom;
    this.place();
  }

  pan(x, y) {
    if (!this.frame) return;
    this.centre.x -= x / this.frame.width;
    this.centre.y -= y / this.frame.height;
    this.place();
  }

  /** Of two of them how far apart they are, what is between, from the middle, and what is seen. */
  fingers() {
    const [a, b] = this.pointers.values();
    const middle = this.fromMiddle({ x: (a.x + b.x) / 2, y: (a.y + b.y) / 2 });
    return { apart: Math.hypot(a.x - b.x, a.y - b.y) || 1, middle, zoom: this.zoom, centre: { ...this.centre } };
  }

  /** What was between two fingers at first is between them now, and as much larger as they are further apart. */
  pinch(first, now) {
    if (!this.frame) return;
    const zoom = Math.min(MOST, Math.max(1, (first.zoom * now.apart) / first.apart));
    for (const [i, [side, length]] of [["x", "width"], ["y", "height"]].entries()) {
      const whole = this.frame[length] / this.zoom;
      this.centre[side] = first.centre[side] + first.middle[i] / (whole * first.zoom) - now.middle[i] / (whole * zoom);
    }
    this.zoom = zoom;
    this.place();
  }

  flip(held) {
    this.flipping = held;
    this.place();
  }

  /** Where an event is, in the stage's own px, though the canvas scales it. */
  point({ clientX, clientY }) {
    const { left, top, width } = this.stage.getBoundingClientRect(), scale = width / this.stage.offsetWidth || 1;
    return { x: (clientX - left) / scale, y: (clientY - top) / scale };
  }

  /** From the middle of the stage or, side by side, of the half that the point is in. */
  fromMiddle({ x, y }) {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const room = this.chosen.mode === "side" ? width / 2 : width;
    return [(x % room) - room / 2, y - height / 2];
  }

  slide(position) {
    this.chosen.position = Math.min(100, Math.max(0, position));
    this.place();
    this.onChange(this.chosen);
  }

  listen() {
    const { stage, pointers } = this;
    let sliding = false, begun = null; // how two fingers have begun
    const count = () => (begun = pointers.size === 2 ? this.fingers() : null);
    stage.addEventListener("wheel", (event) => {
      event.preventDefault(); // the canvas and the page would take it
      event.stopPropagation();
      this.enlarge(WHEEL ** -(event.deltaY * (event.deltaMode ? 16 : 1)), ...this.fromMiddle(this.point(event)));
    }, { passive: false });
    stage.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      event.stopPropagation(); // the node would be dragged
      const at = this.point(event);
      stage.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, at);
      count();
      const { mode, position } = this.chosen, line = (stage.clientWidth * position) / 100;
      sliding = mode === "slider" && pointers.size === 1 && (this.zoom === 1 || Math.abs(at.x - line) <= GRIP);
      if (sliding) this.slide((100 * at.x) / stage.clientWidth);
      this.flip(mode === "flip" && pointers.size === 1);
    });
    stage.addEventListener("pointermove", (event) => {
      const before = pointers.get(event.pointerId);
      if (!before) return;
      event.stopPropagation();
      const at = this.point(event);
      pointers.set(event.pointerId, at);
      if (begun) this.pinch(begun, this.fingers());
      else if (sliding) this.slide((100 * at.x) / stage.clientWidth);
      else this.pan(at.x - before.x, at.y - before.y);
    });
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
      stage.addEventListener(end, (event) => {
        if (pointers.delete(event.pointerId)) count();
        if (this.flipping) this.flip(false);
      });
    }
    stage.addEventListener("dblclick", (event) => {
      event.stopPropagation();
      this.reset();
      this.place();
    });
    stage.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.pressed(event)) return;
      event.preventDefault();
      event.stopPropagation(); // the canvas has shortcuts of its own
    });
    stage.addEventListener("keyup", ({ key }) => key === " " && this.flip(false));
    stage.addEventListener("blur", () => this.flipping && this.flip(false));
  }

  /** Do what a key means; whether it means anything. */
  pressed({ key, shiftKey }) {
    const { mode, position } = this.chosen, step = shiftKey ? LEAP : STEP, slider = mode === "slider";
    const away = this.stage.clientWidth * 0.1;
    const acts = {
      ArrowLeft: () => (slider ? this.slide(position - step) : this.pan(away, 0)),
      ArrowRight: () => (slider ? this.slide(position + step) : this.pan(-away, 0)),
      ArrowUp: () => this.pan(0, away),
      ArrowDown: () => this.pan(0, -away),
      Home: () => slider && this.slide(0),
      End: () => slider && this.slide(100),
      " ": () => this.flip(true),
      "+": () => this.enlarge(1.25),
      "=": () => this.enlarge(1.25),
      "-": () => this.enlarge(0.8),
      0: () => (this.reset(), this.place()),
    };
    acts[key]?.();
    return key in acts;
  }

  /** Draw the heat map, once for the pictures shown; the mean difference in words. */
  measure() {
    if (this.difference) return this.difference;
    const [a, b] = this.layers.map(({ image }) => image);
    const scale = Math.min(1, LARGEST / Math.max(a.naturalWidth, a.naturalHeight));
    const width = Math.max(1, Math.round(a.naturalWidth * scale)), height = Math.max(1, Math.round(a.naturalHeight * scale));
    const [first, second] = [a, b].map((image) => pixels(image, width, height));
    Object.assign(this.heat, { width, height });
    const context = this.heat.getContext("2d"), map = context.createImageData(width, height);
    let sum = 0;
    for (let i = 0; i < map.data.length; i += 4) {
      let apart = 0;
      for (let c = 0; c < 3; c++) apart += Math.abs(first[i + c] - second[i + c]);
      sum += apart / 3;
      const heat = Math.sqrt(apart / 765) * (HEAT.length - 1); // the root, so that small ones are seen
      const low = Math.min(HEAT.length - 2, Math.floor(heat)), part = heat - low;
      for (let c = 0; c < 3; c++) map.data[i + c] = HEAT[low][c] + (HEAT[low + 1][c] - HEAT[low][c]) * part;
      map.data[i + 3] = 255;
    }
    context.putImageData(map, 0, 0);
    this.layers[1].box.append(this.heat);
    const mean = sum / (width * height);
    const about = { mean: mean.toFixed(2), percent: ((100 * mean) / 255).toFixed(2) };
    return (this.difference = t("Mean difference {mean} of 255 ({percent} %).", about));
  }
}

/** The RGBA bytes of an image drawn into so many pixels, whole, as the stage draws it. */
function pixels(image, width, height) {
  const canvas = el("canvas", { width, height }), context = canvas.getContext("2d", { willReadFrequently: true });
  const scale = Math.min(width / image.naturalWidth, height / image.naturalHeight);
  const w = image.naturalWidth * scale, h = image.naturalHeight * scale;
  context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
  return context.getImageData(0, 0, width, height).data;
}

async function blobOf({ url }) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(t("the server answered {status}", { status: response.status }));
  return response.blob();
}

async function copy(side) {
  if (!navigator.clipboard?.write) throw new Error(t("the browser allows it on https or localhost only"));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": asPNG(side) })]);
  return t("Copied {side}.", { side: sideText(side.label) });
}

async function asPNG(side) { // all that a clipboard takes
  const bitmap = await createImageBitmap(await blobOf(side));
  const canvas = el("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function save({ url, label }) {
  const name = new URL(url, location.href).searchParams.get("filename") ?? `${label}.png`;
  el("a", { href: url, download: name }).click();
}

function open({ url }) {
  window.open(url, "_blank", "noopener");
}

/** The sides large, in a dialog over the page; Esc and its button close it. */
export function openLarge(sides, { title = t("Compare"), left, right, ...options } = {}) {
  const comparison = new Comparison(options);
  const close = el("button", { textContent: t("Close"), type: "button", onclick: () => dialog.close() });
  const head = el("header", {}, el("h2", { textContent: title }), close);
  const dialog = el("dialog", { className: "pairlora-large", ariaLabel: title }, head, comparison.element);
  const opener = document.activeElement;
  dialog.addEventListener("keydown", (event) => event.stopPropagation()); // the canvas behind has shortcuts
  dialog.addEventListener("close", () => {
    dialog.remove();
    opener?.focus?.();
  });
  document.body.append(dialog);
  dialog.showModal();
  comparison.show(sides, { left, right });
  comparison.stage.focus();
  return dialog;
}
