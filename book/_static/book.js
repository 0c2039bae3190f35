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

// Questions: a numbered list of choices in front of a folded answer, which begins with the number of the right one.
// Each choice becomes a button that says whether it is right, and opens the answer if it is.
addEventListener("DOMContentLoaded", () => {
  for (const answer of document.querySelectorAll("ol + details.sd-dropdown")) {
    const choices = [...answer.previousElementSibling.children];
    const right = choices[parseInt(answer.querySelector("strong").textContent) - 1];
    const told = document.createElement("p");
    Object.assign(told, { className: "question-told", role: "status" });
    const buttons = choices.map((choice) => {
      const button = document.createElement("button");
      Object.assign(button, { type: "button", className: "question-choice", ariaPressed: "false" });
      button.append(...(choice.querySelector("p") ?? choice).childNodes);
      button.addEventListener("click", () => {
        for (const each of buttons) each.ariaPressed = String(each === button);
        told.textContent = choice === right ? "Right. The reason is below." : "No. Choose again, or open the answer.";
        answer.open ||= choice === right;
      });
      choice.replaceChildren(button);
      return button;
    });
    answer.before(told);
  }
});

// From a file, browsers load no modules, and so draw no diagrams. Then each says in words what it shows.
if (location.protocol === "file:")
  addEventListener("DOMContentLoaded", () => {
    for (const diagram of document.querySelectorAll("pre.mermaid")) {
      const [title, told] = ["accTitle", "accDescr"].map((name) => diagram.textContent.match(`${name}: *(.*)`)?.[1] ?? "");
      diagram.textContent = `${title}. ${told} (The diagram is drawn by \`make serve\`, or any other web server.)`;
      diagram.style.whiteSpace = "normal";
    }
  });
