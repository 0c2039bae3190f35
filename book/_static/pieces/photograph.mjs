// Chapter 4: the recorded classifier looks at a sample or at a photograph of the reader's own, changed as the reader likes.
// A photograph is decoded and looked at in the browser; it is sent nowhere.

import { make, net, newest, normalized, paint } from "./pieces.mjs";

const SIDE = 32;
const SIZE = SIDE * SIDE;
const PATCH = 8; // side of the square that is covered, and STEP of its way
const STEP = 4;

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

export async function start(piece) {
  const { names, temperature } = piece.data;
  const images = piece.data.samples.map((pixels) => Uint8Array.from(pixels));
  piece.slider("sample", "Sample", { min: 1, max: images.length, value: 4 });
  piece.slider("shift", "Shift to the right", { min: -12, max: 12, value: 0, tell: (value) => `${value} pixels` });
  piece.slider("blur", "Blur", { min: 0, max: 3, step: 0.25, value: 0, tell: (value) => `${value} pixels` });
  piece.slider("noise", "Noise", { min: 0, max: 60, value: 0, tell: (value) => `${value} grey levels` });

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
  piece.controls.append(make("div", {}, make("label", { for: file.id }, "A photograph of yours"), file));
  piece.button("Use the camera", async () => {
    try {
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
  const [canvas, map] = ["What the net gets", "How much of the answer's share is lost where a square is covered"].map((label) => {
    const element = make("canvas", { class: "pixels", role: "img", "aria-label": label });
    row.append(make("div", {}, make("div", { class: "piece-title", "aria-hidden": "true" }, label), element));
    return element;
  });
  const list = make("ol", { class: "piece-shares", "aria-label": "The most likely classes" });
  piece.body.append(row, list, told);
  const ask = await net("photograph");
  /** Calibrated shares of the classes, one row of them after the other. */
  const shared = async (pixels, count) => {
    const images = [normalized(pixels, SIZE, piece.data), [count, 3, SIDE, SIDE]];
    const { logits } = await ask({ images });
    return Array.from({ length: count }, (_, n) => {
      const row = Array.from(logits.slice(n * names.length, (n + 1) * names.length), (logit) => logit / temperature);
      const powers = row.map((logit) => Math.exp(logit - Math.max(...row)));
      return powers.map((power) => power / powers.reduce((a, b) => a + b));
    });
  };

  let round = 0;
  /** The share that the answer loses when a grey square covers each place; row by row, so that sliders stay quick. */
  const occlude = async (pixels, best, share, mine) => {
    const places = Array.from({ length: (SIDE - PATCH) / STEP + 1 }, (_, i) => i * STEP);
    const lost = new Float64Array(SIZE), seen = new Float64Array(SIZE);
    const drawn = new Float64Array(3 * SIZE);
    for (const top of places) {
      const covered = new Float32Array(places.length * 3 * SIZE);
      const inside = (place, left) => {
        const [x, y] = [place % SIDE, Math.floor((place % SIZE) / SIDE)];
        return x >= left && x < left + PATCH && y >= top && y < top + PATCH;
      };
      places.forEach((left, n) => pixels.forEach((value, place) => (covered[n * 3 * SIZE + place] = inside(place, left) ? 127 : value)));
      const shares = await shared(covered, places.length);
      if (mine !== round) return;
      places.forEach((left, n) => {
        for (let place = 0; place < SIZE; place++)
          if (inside(place, left)) {
            lost[place] += share - shares[n][best];
            seen[place] += 1;
          }
      });
    }
    const mean = lost.map((value, place) => value / Math.max(1, seen[place]));
    for (let place = 0; place < SIZE; place++) {
      const heat = Math.max(0, mean[place]) / Math.max(0.05, ...mean);
      [255, 160, 40].forEach((most, c) => (drawn[c * SIZE + place] = most * heat));
    }
    paint(map, drawn, SIDE, SIDE);
    piece.root.dataset.map = JSON.stringify(Array.from(mean));
  };

  await piece.follow(newest(async (state) => {
    const mine = ++round;
    const pixels = changed(own ?? images[state.sample - 1], state);
    paint(canvas, pixels, SIDE, SIDE);
    const [shares] = await shared(pixels, 1);
    const order = names.map((_, i) => i).sort((a, b) => shares[b] - shares[a]);
    const part = (i) => `${names[i]} ${(100 * shares[i]).toFixed(1)} %`;
    list.replaceChildren(...order.slice(0, 3).map((i) => make("li", { style: `--share: ${shares[i]}` }, part(i))));
    piece.say(`The net says: ${part(order[0])}.`, { shares });
    delete piece.root.dataset.map;
    occlude(pixels, order[0], shares[order[0]], mine);
  }));
}
