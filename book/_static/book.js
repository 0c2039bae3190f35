// Boxes that scroll sideways can be reached by keyboard; the others are no stops on the way.
const boxes = "pre, table.table, mjx-container, .cell_output .output";
window.mark = () => {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
};
for (const event of ["load", "resize", "toggle"]) addEventListener(event, mark, true);

// Formulas and diagrams need large scripts. They are fetched when a quarter of one of them is seen, or else as soon
// as the reader does anything, and so do not delay the first view of a page. Who listens to it or prints it may do
// nothing of the kind: for them, they come a little later.
window.wanted = (selector) =>
  new Promise((resolve) => {
    const watch = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && resolve(), { threshold: 0.25 });
    for (const one of document.querySelectorAll(selector)) watch.observe(one);
    for (const event of ["scroll", "pointermove", "pointerdown", "keydown", "beforeprint"])
      addEventListener(event, resolve, { once: true, passive: true });
    addEventListener("load", () => setTimeout(resolve, 5000), { once: true });
  });

// Pieces to play with: a button each, before which nothing of them is fetched. See pieces/pieces.mjs.
addEventListener("DOMContentLoaded", () => {
  for (const root of document.querySelectorAll("[data-piece]")) {
    const [button, told] = ["button", "p"].map((tag) => document.createElement(tag));
    const label = `${root.dataset.title} (${root.dataset.megabytes} MB)`;
    Object.assign(button, { type: "button", className: "piece-button", textContent: label });
    told.role = "status";
    button.addEventListener("click", async () => {
      told.textContent = "Fetching, and starting …";
      try {
        const { open } = await import("./pieces/pieces.mjs");
        await open(root);
        button.remove();
        told.remove();
      } catch (error) {
        root.querySelector(".piece-body")?.remove();
        told.textContent = `It could not be started (${error.message}). From a file, browsers load no such scripts: use a web server.`;
      }
    });
    root.append(button, told);
  }
});
