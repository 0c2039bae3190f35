// Chapter 4: the recorded classifier looks at a sample or at a photograph of the reader's own, changed as the reader likes.
// A photograph is decoded and looked at in the browser; it is sent nowhere.

import { make, newest, normalized, paint } from "./pieces.mjs";

const SIDE = 32;
const SIZE = SIDE * SIDE;
const PATCH = 8; // side of the square that is covered, and STEP of its way
const STEP = 4;
const REST = 200; // milliseconds without a change, after which the map is made
const BLOCKS = ["first", "second"]; // those with a shortcut
const LOST = "How much probability the prediction loses where a square is covered";

/** Normally distributed numbers that are the same each time (Box and Muller, from a generator of 32 bits). */
function* normals(seed) {
  const uniform = () => {
    seed = (seed + 0x6d2b79f5) | 0; // mulberry32
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  for (;;) yield Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
}

/** A Gaussian blur of a width in pixels along one axis; what lies outside is as the edge. */
function blurred(pixels, width, along) {
  if (!width) return pixels;
  const reach = Math.ceil(3 * width);
  const weights = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-0.5 * ((i - reach) / width) ** 2));
  const total = weights.reduce((a, b) => a + b);
  return pixels.map((_, place) => {
    const at = Math.floor(place / along) % SIDE;
    return weights.reduce((sum, weight, i) => sum + weight * pixels[place + (Math.min(SIDE - 1, Math.max(0, at + i - reach)) - at) * along], 0) / total;
  });
}

/** An image after a shift to the right (black moves in), a blur, and noise; rounded to whole numbers from 0 to 255. */
function changed(image, { shift, blur, noise }) {
  const moved = Float64Array.from(image, (_, place) => {
    const x = (place % SIDE) - shift;
    return x >= 0 && x < SIDE ? image[place - shift] : 0;
  });
  const random = normals(1);
  return blurred(blurred(moved, blur, 1), blur, SIDE).map((value) =>
    Math.min(255, Math.max(0, Math.round(value + (noise ? noise * random.next().value : 0)))));
}

/** The middle square of a picture, at the net's size. */
function square(source, width, height) {
  const side = Math.min(width, height);
  const canvas = make("canvas", { width: SIDE, height: SIDE });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(source, (width - side) / 2, (height - side) / 2, side, side, 0, 0, SIDE, SIDE);
  const { data } = context.getImageData(0, 0, SIDE, SIDE);
  return Float64Array.from({ length: 3 * SIZE }, (_, place) => data[4 * (place % SIZE) + Math.floor(place / SIZE)]);
}

export const hasNet = true;

export async function start(piece, ask) {
  const { names, temperature } = piece.data;
  const images = piece.data.samples.map((pixels) => Uint8Array.from(pixels));
  piece.slider("sample", "Sample", { min: 1, max: images.length, value: 4 });
  piece.slider("shift", "Shift to the right", { min: -12, max: 12, value: 0, tell: (value) => `${value} pixels` });
  piece.slider("blur", "Blur", { min: 0, max: 3, step: 0.25, value: 0, tell: (value) => `${value} pixels` });
  piece.slider("noise", "Noise", { min: 0, max: 60, value: 0, tell: (value) => `${value} grey levels` });
  for (const which of BLOCKS) piece.toggle(which, `The ${which} residual block is on`, true);

  let own; // a photograph, which is not part of the address
  const take = (source, width, height) => {
    own = square(source, width, height);
    piece.set({});
  };
  const told = make("p", { role: "status" });
  const file = make("input", { type: "file", accept: "image/*", id: `${piece.root.id}-file` });
  file.addEventListener("change", async () => {
    try {
      const picture = await createImageBitmap(file.files[0]);
      take(picture, picture.width, picture.height);
      told.textContent = "";
    } catch {
      told.textContent = "That file cannot be read as an image.";
    }
  });
  piece.controls.append(make("div", {}, make("label", { for: file.id }, "A photograph of your own"), file));
  piece.button("Use the camera", async () => {
    try {
      if (!navigator.mediaDevices) throw new Error("browsers lend it only to pages that come by https");
      const stream = await navigator.mediaDevices.getUserMedia({ video: true });
      const video = make("video", { muted: true, playsinline: true });
      video.srcObject = stream;
      await video.play();
      take(video, video.videoWidth, video.videoHeight);
      stream.getTracks().forEach((track) => track.stop());
      told.textContent = "";
    } catch (error) {
      told.textContent = `There is no picture from a camera (${error.message}).`;
    }
  });
  piece.button("Back to the samples", () => {
    own = undefined;
    file.value = "";
    piece.set({});
  });
  piece.controls.querySelector('[name="sample"]').addEventListener("input", () => (own = undefined));

  const row = make("div", { class: "piece-row" });
  const [canvas, map] = ["What the net sees", LOST].map((label) => {
    const element = make("canvas", { class: "pixels", role: "img", "aria-label": label, width: SIDE, height: SIDE });
    row.append(make("div", {}, make("div", { class: "piece-title", "aria-hidden": "true" }, label), element));
    return element;
  });
  const list = make("ol", { class: "piece-shares", "aria-label": "The most likely classes" });
  piece.body.append(row, list, told);
  /** Calibrated shares of the classes, by a net whose residual blocks are on, 1, or off, 0. */
  const shared = async (pixels, switches) => {
    const images = [normalized(pixels, SIZE, piece.data), [1, 3, SIDE, SIDE]];
    const { logits } = await ask({ images, switches: [switches, [1, BLOCKS.length]] });
    const powers = Array.from(logits, (logit) => Math.exp((logit - Math.max(...logits)) / temperature));
    return powers.map((power) => power / powers.reduce((a, b) => a + b));
  };

  let round = 0;
  /** The share that the answer loses when a grey square covers each place; one by one, so that sliders stay quick. */
  const occlude = async (pixels, switches, best, share) => {
    const mine = ++round;
    delete piece.root.dataset.map;
    map.setAttribute("aria-busy", "true");
    await new Promise((done) => setTimeout(done, REST));
    const lost = new Float64Array(SIZE), seen = new Float64Array(SIZE);
    const drawn = new Float64Array(3 * SIZE);
    for (let top = 0; top <= SIDE - PATCH; top += STEP)
      for (let left = 0; left <= SIDE - PATCH; left += STEP) {
        if (mine !== round) return;
        const [x, y] = [(place) => (place % SIDE) - left, (place) => Math.floor((place % SIZE) / SIDE) - top];
        const covers = (place) => x(place) >= 0 && x(place) < PATCH && y(place) >= 0 && y(place) < PATCH;
        const shares = await shared(pixels.map((value, place) => (covers(place) ? 127 : value)), switches);
        for (let place = 0; place < SIZE; place++)
          if (covers(place)) {
            lost[place] += share - shares[best];
            seen[place] += 1;
          }
      }
    if (mine !== round) return;
    const mean = lost.map((value, place) => value / Math.max(1, seen[place]));
    const most = Math.max(1e-6, ...mean);
    const told = `${LOST}: at most ${(100 * most).toFixed(1)} points`;
    map.previousSibling.textContent = told;
    map.setAttribute("aria-label", told);
    for (let place = 0; place < SIZE; place++) {
      const heat = Math.max(0, mean[place]) / most;
      [255, 160, 40].forEach((bright, c) => (drawn[c * SIZE + place] = bright * heat));
    }
    paint(map, drawn, SIDE, SIDE);
    map.removeAttribute("aria-busy");
    piece.root.dataset.map = JSON.stringify(Array.from(mean));
  };

  await piece.follow(newest(async (state) => {
    round += 1; // what an older map still had to ask is dropped
    const pixels = changed(own ?? images[state.sample - 1], state);
    const switches = BLOCKS.map((which) => Number(state[which]));
    paint(canvas, pixels, SIDE, SIDE);
    const shares = await shared(pixels, switches);
    const order = names.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
    const part = (i) => `${names[i]} ${(100 * shares[i]).toFixed(1)} %`;
    list.replaceChildren(...order.slice(0, 3).map((i) => make("li", { style: `--share: ${shares[i]}` }, part(i))));
    const off = BLOCKS.filter((_, i) => !switches[i]).join(" and its ");
    piece.say(`${off ? `Without its ${off} residual block the` : "The"} net predicts: ${part(order[0])}.`, { shares });
    occlude(pixels, switches, order[0], shares[order[0]]);
  }));
}
