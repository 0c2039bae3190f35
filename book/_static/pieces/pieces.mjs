// What the interactive pieces of the pages share: controls whose state stands in the address, charts, nets, and
// results that are read out. It is fetched when a reader opens a piece, and asks no other host for anything.

const HERE = new URL("./", import.meta.url).href;
const VENDOR = new URL("../vendor/", import.meta.url).href;

/** An element with attributes, listeners (`onclick`) and children, which may be texts. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The colour of a name such as `--pst-color-text-base` in the page's present scheme. */
const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** Okabe and Ito's colours, those of the figures, made lighter where the ground is dark. */
const COLOURS = {
  blue: ["#0072b2", "#56b4e9"], vermillion: ["#d55e00", "#f0833a"], green: ["#00795a", "#2fbf8f"], gray: ["#666666", "#aaaaaa"],
};
const isDark = () => document.documentElement.dataset.theme === "dark";
export const colour = (name) => COLOURS[name][Number(isDark())];

/** Calls `work` with the newest arguments only: while it runs, later calls wait, and of these the last one counts. */
export function newest(work) {
  let running, next;
  return (...args) => {
    next = args;
    running ??= (async () => {
      try {
        while (next) {
          const now = next;
          next = undefined;
          await work(...now);
        }
      } finally {
        running = undefined;
      }
    })();
    return running;
  };
}

/**
 * The net of `NAME.onnx`: a function from {input: [numbers, sides]} to {output: numbers}, all float32. It can be asked
 * before it is there. It runs beside the page, which stays quick meanwhile.
 */
function net(name) {
  const started = import(`${VENDOR}onnxruntime-web/ort.wasm.bundle.min.mjs`).then(async ({ InferenceSession, Tensor, env }) => {
    env.wasm.proxy = true; // in a worker, with one thread: more would need headers that a plain static server does not send
    env.wasm.numThreads = 1;
    return [await InferenceSession.create(`${HERE}${name}.onnx`), Tensor];
  });
  let last = started; // a session answers one question after the other
  last.catch(() => {}); // whoever asks is told
  return async (inputs) => {
    const answer = last.then(async () => {
      const [session, Tensor] = await started;
      const tensors = Object.entries(inputs).map(([key, [numbers, sides]]) => [
        key, new Tensor("float32", Float32Array.from(numbers), sides),
      ]);
      const start = performance.now();
      const outputs = await session.run(Object.fromEntries(tensors));
      performance.measure(name, { start });
      return Object.entries(outputs).map(([key, { data }]) => [key, data]);
    });
    last = answer.catch(() => {});
    return Object.fromEntries(await answer);
  };
}

/** Pixels (images, 3, height, width) from 0 to 255 as a net was trained on them, by the mean and deviation of each colour. */
export const normalized = (pixels, size, { mean, std }) =>
  Float32Array.from(pixels, (value, place) => (value / 255 - mean[Math.floor(place / size) % 3]) / std[Math.floor(place / size) % 3]);

/** Draws numbers from 0 to 255, (3, height, width), into a canvas of that size. */
export function paint(canvas, pixels, width, height) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = pixels[c * width * height + i];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

/** Has `act(x, y)` called while a pointer is drawn over an element; x and y are pixels in `inside()`, or in it. */
export function drag(element, act, inside = () => element) {
  const follow = (event) => {
    const box = inside().getBoundingClientRect();
    act(event.clientX - box.left, event.clientY - box.top, box);
    event.preventDefault();
  };
  element.style.touchAction = "none";
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    follow(event);
  });
  element.addEventListener("pointermove", (event) => event.buttons && follow(event));
}

/** An open piece: it has its data, its state, and adds what the reader sees to its own part of the page. */
export class Piece {
  constructor(root, data) {
    this.root = root;
    this.name = root.dataset.piece;
    this.data = data;
    this.body = make("div", { class: "piece-body", role: "group", "aria-label": root.dataset.title, tabindex: "-1" });
    this.controls = make("div", { class: "piece-controls" });
    this.result = make("p", { class: "piece-result", role: "status", "aria-live": "polite" });
    this.body.append(this.controls, this.result);
    const asked = new URLSearchParams(location.search);
    this.asked = asked.get("piece") === this.name ? asked : new URLSearchParams();
    this.state = {};
    this.usual = {};
    this.listeners = [];
    this.redraw = [];
    new MutationObserver(() => this.redraw.forEach((draw) => draw())).observe(document.documentElement, {
      attributeFilter: ["data-theme"],
    });
  }

  /** Have `act(state)` called now and whenever the state changes; until it has ended the piece is busy. */
  follow(act) {
    const listen = async (state) => {
      this.waiting = (this.waiting ?? 0) + 1;
      this.body.setAttribute("aria-busy", "true");
      try {
        await act(state);
      } finally {
        this.waiting -= 1;
        if (!this.waiting) this.body.removeAttribute("aria-busy");
      }
    };
    this.listeners.push(listen);
    return listen(this.state);
  }

  /** Change the state, as a control would; `still` leaves the listeners alone. */
  set(changes, still = false) {
    Object.assign(this.state, changes);
    for (const name of Object.keys(changes)) this.controls.querySelector(`[name="${name}"]`)?.refresh?.();
    const changed = Object.entries(this.state).filter(([name, value]) => value !== this.usual[name]);
    const query = new URLSearchParams([["piece", this.name], ...changed]);
    history.replaceState(history.state, "", `?${query}#${this.root.id}`);
    if (!still) this.listeners.forEach((act) => act(this.state));
  }

  /** A part of the state without a control: what the address says of it, or else `usual`. */
  keep(name, usual) {
    this.usual[name] = usual;
    const said = this.asked.get(name);
    const number = typeof usual === "number" && said !== null && Number.isFinite(Number(said));
    this.state[name] = said === null ? usual : typeof usual === "number" ? (number ? Number(said) : usual)
      : typeof usual === "boolean" ? said === "true" : said;
    return this.state[name];
  }

  /** A labelled slider for a number; `tell` writes its value for readers. */
  slider(name, label, { min, max, step = 1, value, tell = String }) {
    const kept = this.keep(name, value);
    this.state[name] = Math.min(max, Math.max(min, kept));
    const id = `${this.root.id}-${name}`;
    const shown = make("output", { for: id });
    const input = make("input", { type: "range", id, name, min, max, step });
    input.refresh = () => {
      input.value = this.state[name];
      shown.textContent = tell(this.state[name]);
      input.setAttribute("aria-valuetext", shown.textContent);
    };
    input.addEventListener("input", () => this.set({ [name]: Number(input.value) }));
    input.refresh();
    this.controls.append(make("div", {}, make("label", { for: id }, label), shown, input));
    return input;
  }

  /** A labelled switch. */
  toggle(name, label, value) {
    this.keep(name, value);
    const input = make("input", { type: "checkbox", name, id: `${this.root.id}-${name}` });
    input.refresh = () => (input.checked = this.state[name]);
    input.addEventListener("change", () => this.set({ [name]: input.checked }));
    input.refresh();
    this.controls.append(make("div", {}, input, make("label", { for: input.id }, label)));
    return input;
  }

  /** A labelled choice among {value: text}. */
  choice(name, label, options, value) {
    if (!(this.keep(name, value) in options)) this.state[name] = value;
    const input = make("select", { name, id: `${this.root.id}-${name}` });
    input.append(...Object.entries(options).map(([key, text]) => make("option", { value: key }, text)));
    input.refresh = () => (input.value = this.state[name]);
    input.addEventListener("change", () => this.set({ [name]: input.value }));
    input.refresh();
    this.controls.append(make("div", {}, make("label", { for: input.id }, label), input));
    return input;
  }

  /** A button that does something. */
  button(label, act) {
    const button = make("button", { type: "button", class: "piece-button", onclick: act }, label);
    this.controls.append(button);
    return button;
  }

  /** Say a result; its numbers are kept in full, where checks read them. */
  say(text, numbers = {}) {
    this.result.textContent = text;
    this.result.dataset.numbers = JSON.stringify(numbers);
  }

  /** A box for a chart or a picture, with a name. */
  box(label, tag = "div", more = {}) {
    const element = make(tag, { role: "img", "aria-label": label, ...more });
    this.body.append(make("div", { class: "piece-box" }, make("div", { class: "piece-title", "aria-hidden": "true" }, label), element));
    return element;
  }

  /**
   * A chart of lines: `lines()` gives [{label, values, colour, dash, width}] over `x()`; call what is returned to draw anew.
   * `range()` gives the ends of the vertical axis; `log` makes it logarithmic.
   */
  chart(label, { x, lines, xlabel, range, log = false, height = 220 }) {
    const box = this.box(label);
    let plot;
    const draw = async () => {
      const { default: UPlot } = await import(`${VENDOR}uplot/uPlot.esm.js`);
      const axis = { stroke: ink("--pst-color-text-base"), grid: { stroke: ink("--pst-color-border"), width: 1 }, ticks: { show: false } };
      const shown = lines();
      plot?.destroy();
      plot = new UPlot(
        {
          width: Math.max(240, box.clientWidth), height,
          cursor: { show: false }, legend: { show: false },
          scales: { x: { time: false }, y: { distr: log ? 3 : 1, ...(range ? { range } : {}) } },
          axes: [{ ...axis, label: xlabel, labelSize: 20, size: 34 }, { ...axis, size: 56 }],
          series: [{}, ...shown.map((line) => ({
            stroke: colour(line.colour), width: line.width ?? 2, dash: line.dash, points: { show: Boolean(line.dots), size: 8 }, spanGaps: true,
          }))],
        },
        [x(), ...shown.map((line) => line.values)],
        box,
      );
      box.plot = plot;
      box.key?.remove();
      box.key = make("ul", { class: "piece-key" }, ...shown.filter((line) => line.label).map((line) =>
        make("li", { style: `--line: ${colour(line.colour)}; --kind: ${line.dash ? "dashed" : "solid"}` }, line.label)));
      box.after(box.key);
    };
    const again = newest(draw);
    this.redraw.push(again);
    addEventListener("resize", again);
    return again;
  }
}

/** Put a piece in the place of its button; what it needs is fetched at the same time. */
export async function open(root) {
  const name = root.dataset.piece;
  const data = fetch(`${HERE}${name}.json`).then((answer) =>
    answer.ok ? answer.json() : Promise.reject(new Error(`status ${answer.status}`)));
  const { start, hasNet } = await import(`./${name}.mjs`);
  const ask = hasNet && net(name);
  if (!document.querySelector("link[data-uplot]"))
    document.head.append(make("link", { rel: "stylesheet", href: `${VENDOR}uplot/uPlot.min.css`, "data-uplot": "" }));
  const piece = new Piece(root, await data);
  root.append(piece.body); // boxes have a width from now on
  await start(piece, ask);
  piece.body.focus({ preventScroll: true });
  root.dataset.open = "true";
}
