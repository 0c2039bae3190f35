// Boxes that scroll sideways can be reached by keyboard; the others are no stops on the way.
const boxes = "pre, table.table, mjx-container, .cell_output .output";
const mark = () => {
  for (const box of document.querySelectorAll(boxes)) {
    if (box.scrollWidth > box.clientWidth + 1 && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
    else if (box.tagName !== "MJX-CONTAINER") box.removeAttribute("tabindex");
  }
};
for (const event of ["load", "resize", "toggle"]) addEventListener(event, mark, true);
