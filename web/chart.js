// The chart of a training: losses, held-out loss and learning rate by step, with what happened at which.
import { el } from "./dom.js";
import { t } from "./texts.js";
import uPlot from "./vendor/uPlot.esm.js";

const MOST = 10_000; // points; of a longer training, each is the mean of several steps
const PAUSE = 350; // ms between two repaints
const HEIGHT = 110; // px
const CLIPPED = 0.01; // of the losses at either end, when outliers are clipped
const SMOOTHED = 50; // the smoothed loss looks back about one part in so many of all steps
const COLOURS = { loss: "#4a9eff", held: "#ff9f0a", rate: "#8e8e93", best: "#30d158" };

document.head.append(el("link", { rel: "stylesheet", href: new URL("vendor/uPlot.min.css", import.meta.url).href }));

const short = (value) => (value == null ? "–" : String(Number(value.toPrecision(4))));

/** The metrics of one training, in bounded room: `stride` steps make one point. */
export class Metrics {
  constructor() {
    Object.assign(this, { stride: 1, last: 0, seconds: [] });
    this.columns = Object.fromEntries(["loss", "rate", "held_out"].map((name) => [name, { sum: [], count: [] }]));
  }

  /** Take a line of metrics.jsonl. A step that is told again, after a training went on, counts as told twice. */
  add({ step, seconds, ...values }) {
    if (!Number.isInteger(step) || step < 0) return;
    while (Math.floor(step / this.stride) >= MOST) this.halve();
    const at = Math.floor(step / this.stride);
    for (const [name, { sum, count }] of Object.entries(this.columns)) {
      if (!Number.isFinite(values[name])) continue;
      while (sum.length <= at) (sum.push(0), count.push(0));
      sum[at] += values[name];
      count[at]++;
    }
    this.last = Math.max(this.last, step);
    if (Number.isFinite(seconds)) this.seconds = [...this.seconds.slice(-50), [step, seconds]];
  }

  halve() {
    this.stride *= 2;
    for (const column of Object.values(this.columns)) {
      for (const part of ["sum", "count"]) {
        const all = column[part];
        column[part] = all.filter((_, i) => i % 2 === 0).map((value, i) => value + (all[2 * i + 1] ?? 0));
      }
    }
  }

  /** Seconds a step, of the last ones; null where that is not known. */
  get pace() {
    const [[first, begun], [last, ended]] = [this.seconds[0] ?? [0, 0], this.seconds.at(-1) ?? [0, 0]];
    return last > first && ended > begun ? (ended - begun) / (last - first) : null;
  }

  /** [steps, loss, smoothed, held-out, rate], as uPlot takes them. */
  get data() {
    const length = Math.floor(this.last / this.stride) + 1;
    const means = ({ sum, count }) => Array.from({ length }, (_, i) => (count[i] ? sum[i] / count[i] : null));
    const [loss, rate, held] = ["loss", "rate", "held_out"].map((name) => means(this.columns[name]));
    const keep = 1 - 1 / Math.max(1, length / SMOOTHED);
    let mean = 0, weight = 0;
    const smooth = loss.map((value) => {
      if (value == null) return null;
      mean = keep * mean + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
      return mean / weight;
    });
    return [Array.from({ length }, (_, i) => i * this.stride), loss, smooth, held, rate];
  }
}

/** Draws the `metrics`, with `marks` of {checkpoints, previews: steps, best: a step}. */
export class Chart {
  constructor() {
    Object.assign(this, { metrics: new Metrics(), marks: {}, log: false, clip: false, rate: false, painted: 0, stale: false });
    this.box = el("div", { className: "pairlora-plot", role: "img", ariaLabel: t("Chart of the loss by step") });
    this.reading = el("output");
    this.switches = [
      ["log", t("Log"), t("Logarithmic scale")],
      ["clip", t("Clip"), t("Leave out the highest and lowest losses")],
      ["rate", t("Rate"), t("Show the learning rate")],
    ].map(([name, text, title]) => {
      const button = el("button", { textContent: text, title, type: "button", ariaPressed: "false" });
      button.onclick = () => {
        this[name] = !this[name];
        button.ariaPressed = String(this[name]);
        this.build();
      };
      return button;
    });
    const bar = el("div", { className: "pairlora-chart-bar" }, this.reading, ...this.switches);
    this.element = el("div", { className: "pairlora-chart" }, bar, this.box);
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.box);
    this.read(null);
  }

  /** Paint soon, a few times a second at most; what is hidden is painted when it is seen again, by another call. */
  draw() {
    this.stale = true;
    if (this.waiting) return;
    this.waiting = setTimeout(() => requestAnimationFrame(() => {
      this.waiting = null;
      if (!this.box.isConnected || document.hidden || !this.box.checkVisibility() || !this.box.clientWidth) return;
      this.painted = performance.now();
      this.stale = false;
      const themed = this.colour === getComputedStyle(this.box).color; // else the theme has changed
      this.plot && themed ? this.plot.setData(this.metrics.data) : this.build();
    }), Math.max(0, this.painted + PAUSE - performance.now()));
  }

  resize() {
    if (this.plot && this.box.clientWidth) this.plot.setSize({ width: this.box.clientWidth, height: HEIGHT });
    if (this.stale || !this.plot) this.draw();
  }

  build() {
    this.plot?.destroy();
    this.plot = null;
    if (!this.box.clientWidth) return;
    const colour = (this.colour = getComputedStyle(this.box).color), thin = { stroke: `color-mix(in srgb, ${colour} 15%, transparent)`, width: 1 };
    const axis = { stroke: colour, font: "10px sans-serif", grid: thin, ticks: thin };
    const line = { points: { show: false }, spanGaps: true };
    const small = (_, values) => values.map((value) => (value == null ? "" : value.toPrecision(2).replace(/\.?0+(e|$)/, "$1")));
    this.plot = new uPlot({
      width: this.box.clientWidth, height: HEIGHT, legend: { show: false }, padding: [6, 6, 0, 0],
      scales: {
        x: { time: false },
        y: { distr: this.log ? 3 : 1, range: (u, low, high) => this.range(u, low, high) },
        rate: { range: (_, low, high) => [0, (high || 1) * 1.1] },
      },
      axes: [
        { ...axis, size: 22, gap: 2 },
        { ...axis, size: 46, gap: 2, values: small },
        { ...axis, scale: "rate", side: 1, size: 46, gap: 2, show: this.rate, grid: { show: false }, values: small },
      ],
      series: [
        {},
        { ...line, stroke: `${COLOURS.loss}66`, width: 1 },
        { ...line, stroke: COLOURS.loss, width: 2 },
        { spanGaps: true, stroke: COLOURS.held, width: 1.5, points: { show: true, size: 5, fill: COLOURS.held } },
        { ...line, scale: "rate", stroke: COLOURS.rate, width: 1, show: this.rate },
      ],
      cursor: {
        y: false, drag: { x: false, y: false }, points: { size: 6 },
        move: (u, left, top) => { // the canvas scales its nodes
          const scale = u.over.getBoundingClientRect().width / u.over.offsetWidth || 1;
          return [left / scale, top / scale];
        },
      },
      hooks: { setCursor: [(u) => this.read(u.cursor.idx)], draw: [(u) => this.mark(u)] },
    }, this.metrics.data, this.box);
  }

  range(u, low, high) {
    if (low == null) return this.log ? [0.1, 1] : [0, 1];
    if (this.clip) {
      const losses = u.data[1].filter((value) => value != null).sort((a, b) => a - b);
      const at = (part) => losses[Math.floor(part * (losses.length - 1))];
      if (losses.length) [low, high] = [at(CLIPPED), at(1 - CLIPPED)];
    }
    if (this.log) return [Math.max(low, 1e-12) / 1.1, Math.max(high, 1e-12) * 1.1];
    const spare = (high - low || high || 1) * 0.05;
    return [Math.max(0, low - spare), high + spare];
  }

  /** Say what was at a point, or what the lines are. */
  read(at) {
    const [steps, loss, smooth, held, rate] = at == null || !this.plot ? [] : this.plot.data;
    if (!steps) {
      const key = (colour, text) => el("span", {}, el("i", { style: `background: ${colour}` }), text);
      this.reading.replaceChildren(
        key(COLOURS.loss, t("loss")), key(COLOURS.held, t("held-out loss")), key(COLOURS.best, t("best")), `▲ ${t("checkpoint")}  ● ${t("preview")}`,
      );
      return;
    }
    const { checkpoints = [], previews = [], best } = this.marks, step = steps[at];
    const here = (of) => of.some((mark) => mark >= step && mark < step + this.metrics.stride);
    const parts = [t("step {step}", { step }), t("loss {loss}", { loss: short(loss[at]) }), t("smoothed {loss}", { loss: short(smooth[at]) })];
    if (held[at] != null) parts.push(t("held-out {loss}", { loss: short(held[at]) }));
    if (rate[at] != null) parts.push(t("rate {rate}", { rate: short(rate[at]) }));
    if (here(checkpoints)) parts.push(t("checkpoint"));
    if (here(previews)) parts.push(t("preview"));
    if (best != null && here([best])) parts.push(t("best"));
    this.reading.textContent = parts.join(" · ");
  }

  mark(u) {
    const { ctx } = u, { left, top, width, height } = u.bbox, { checkpoints = [], previews = [], best } = this.marks;
    const ratio = devicePixelRatio, size = 4 * ratio, bottom = top + height;
    const x = (step) => u.valToPos(step, "x", true);
    const seen = (steps) => steps.map(x).filter((at) => at >= left && at <= left + width);
    ctx.save();
    ctx.fillStyle = getComputedStyle(this.box).color;
    for (const at of seen(checkpoints)) {
      ctx.beginPath();
      ctx.moveTo(at, bottom - 2 * size);
      ctx.lineTo(at + size, bottom);
      ctx.lineTo(at - size, bottom);
      ctx.fill();
    }
    for (const at of seen(previews)) {
      ctx.beginPath();
      ctx.arc(at, top + size, size * 0.7, 0, 2 * Math.PI);
      ctx.fill();
    }
    ctx.fillStyle = COLOURS.best;
    for (const at of best == null ? [] : seen([best])) ctx.fillRect(at - ratio, top, 2 * ratio, height);
    ctx.restore();
  }

  /** Begin anew, with another training. */
  clear() {
    this.metrics = new Metrics();
    this.marks = {};
    this.draw();
  }

  remove() {
    clearTimeout(this.waiting);
    this.sizes.disconnect();
    this.plot?.destroy();
    this.plot = null;
  }
}
