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
