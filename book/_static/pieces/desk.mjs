// Chapter 9: the caster's desk. A net scores generated moulds, on which the reader paints faults; a threshold decides, and
// what it costs is counted on the scores of the real test images.

import { drag, make, newest, normalized, paint } from "./pieces.mjs";

const [WIDTH, HEIGHT] = [48, 32];
const SIZE = WIDTH * HEIGHT;
const MOST = 80; // dabs of the brush

/** An image with dabs of 3 x 3 pixels: glitter like spilled metal, which is bright and dark by turns. */
function painted(image, dabs) {
  const pixels = Float32Array.from(image);
  for (const dab of dabs)
    for (let y = Math.max(0, Math.floor(dab / WIDTH) - 1); y <= Math.min(HEIGHT - 1, Math.floor(dab / WIDTH) + 1); y++)
      for (let x = Math.max(0, (dab % WIDTH) - 1); x <= Math.min(WIDTH - 1, (dab % WIDTH) + 1); x++)
        for (let c = 0; c < 3; c++) pixels[c * SIZE + y * WIDTH + x] = (5 * x + 3 * y) % 4 < 2 ? 250 : 110;
  return pixels;
}

export const hasNet = true;

export async function start(piece, ask) {
  const { scores, labels, threshold } = piece.data;
  const images = piece.data.images.map((pixels) => Uint8Array.from(pixels));
  const kinds = images.map((_, i) => (i < 6 ? "normal" : i < 9 ? "painted spill" : "painted empty mould"));
  const dabs = () => piece.state.dabs.split(".").filter(Boolean).map((dab) => parseInt(dab, 36)).filter((dab) => dab < SIZE).slice(0, MOST);
  piece.slider("image", "Image", { min: 1, max: images.length, value: 1, tell: (number) => `${number}: ${kinds[number - 1]}` });
  piece.slider("threshold", "Threshold", { min: -8, max: 12, step: 0.1, value: Math.round(10 * threshold) / 10, tell: (value) => value.toFixed(1) });
  piece.slider("cost", "A missed fault costs as much as", { min: 1, max: 200, value: 50, tell: (value) => `${value} false alarms` });
  piece.keep("dabs", "");
  piece.button("Wipe the paint off", () => piece.set({ dabs: "" }));

  const row = make("div", { class: "piece-row" });
  const [canvas, map] = ["The image; paint on it with the pointer, or with arrow keys and Space", "Where the net sees a fault, brighter for more"]
    .map((label, i) => {
      const element = make("canvas", i ? { class: "pixels", role: "img", "aria-label": label }
        : { class: "pixels", role: "application", tabindex: "0", "aria-label": label, "aria-roledescription": "painting" });
      row.append(make("div", {}, make("div", { class: "piece-title" }, label), element));
      return element;
    });
  piece.body.append(row);
  const counted = make("p", { class: "piece-counts", role: "status" });
  piece.body.append(counted);

  const add = (x, y) => {
    const dab = (y * WIDTH + x).toString(36);
    const now = piece.state.dabs.split(".").filter(Boolean);
    if (!now.includes(dab) && now.length < MOST) piece.set({ dabs: [...now, dab].join(".") });
  };
  const cursor = { x: WIDTH / 2, y: HEIGHT / 2, shown: false };
  const show = (pixels) => {
    paint(canvas, pixels, WIDTH, HEIGHT);
    if (!cursor.shown) return;
    const brush = canvas.getContext("2d");
    brush.strokeStyle = "#ff00ff";
    brush.strokeRect(cursor.x - 1.5, cursor.y - 1.5, 4, 4);
  };
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    cursor.x = Math.min(WIDTH - 1, Math.max(0, cursor.x + step[0]));
    cursor.y = Math.min(HEIGHT - 1, Math.max(0, cursor.y + step[1]));
    if (event.key === " ") add(cursor.x, cursor.y);
    show(painted(images[piece.state.image - 1], dabs()));
  });
  for (const [kind, shown] of [["focus", true], ["blur", false]])
    canvas.addEventListener(kind, () => {
      cursor.shown = shown;
      show(painted(images[piece.state.image - 1], dabs()));
    });
  drag(canvas, (x, y, box) => {
    const [column, line] = [Math.floor((x / box.width) * WIDTH), Math.floor((y / box.height) * HEIGHT)];
    if (column >= 0 && column < WIDTH && line >= 0 && line < HEIGHT) add(column, line);
  });

  await piece.follow(newest(async (state) => {
    const pixels = painted(images[state.image - 1], dabs());
    show(pixels);
    const mirrored = pixels.map((_, place) => pixels[place - (place % WIDTH) + WIDTH - 1 - (place % WIDTH)]);
    const { maps } = await ask({ images: [normalized([...pixels, ...mirrored], SIZE, piece.data), [2, 3, HEIGHT, WIDTH]] });
    const score = maps.reduce((a, b) => a + b) / maps.length;
    const heat = Array.from({ length: SIZE }, (_, place) => {
      const [x, y] = [Math.floor((place % WIDTH) / 4), Math.floor(place / WIDTH / 4)]; // a place of the map is 4 x 4 pixels
      const logit = (maps[y * (WIDTH / 4) + x] + maps[maps.length / 2 + y * (WIDTH / 4) + WIDTH / 4 - 1 - x]) / 2;
      return 255 / (1 + Math.exp(-logit / 4));
    });
    paint(map, [...heat, ...heat.map((value) => 0.6 * value), ...heat.map(() => 40)], WIDTH, HEIGHT);
    const flagged = scores.map((each) => each > state.threshold);
    const count = (label, found) => labels.filter((each, i) => each === label && flagged[i] === found).length;
    const [hits, missed, alarms, left] = [count(1, true), count(1, false), count(0, true), count(0, false)];
    const [tpr, tnr] = [hits / (hits + missed), left / (left + alarms)];
    const cost = state.cost * missed + alarms;
    piece.say(
      `This image (${kinds[state.image - 1]}${dabs().length ? ", with your paint" : ""}): score ${score.toFixed(2)}, ` +
        `${score > state.threshold ? "an alarm" : "no alarm"}.`,
      { score, tpr, tnr, alerts: hits + alarms, cost },
    );
    counted.textContent =
      `On the ${labels.length} test images: TPR ${(100 * tpr).toFixed(1)} %, TNR ${(100 * tnr).toFixed(1)} %, ` +
      `${hits + alarms} alerts, of which ${alarms} are false; ${missed} faults missed; cost ${cost} false alarms.`;
  }));
}
