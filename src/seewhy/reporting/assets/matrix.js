// The confusion matrix: a cell links to its images, arrow keys move between cells.

/** Wire the cells; only one is in the tab order, as in other grids. */
function wireMatrix() {
  for (const link of document.querySelectorAll("[data-cell]")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const [trueClass, predicted] = (link.getAttribute("data-cell") ?? "").split(",").map(Number);
      setState({ confusion: [trueClass, predicted], image: null }, true);
      element("errors", HTMLElement).scrollIntoView();
    });
  }
  const table = document.querySelector("table.matrix");
  if (!(table instanceof HTMLTableElement)) return;
  const links = [...table.querySelectorAll("a")];
  for (const [index, link] of links.entries()) link.tabIndex = index === 0 ? 0 : -1;
  table.addEventListener("keydown", (event) => {
    const steps = /** @type {Record<string, [number, number]>} */ ({ ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] });
    const step = steps[event.key];
    const from = document.activeElement?.closest("td");
    if (!step || !from) return;
    event.preventDefault();
    event.stopPropagation();
    const to = neighbor(table, from, step);
    if (to === null) return;
    for (const link of links) link.tabIndex = link === to ? 0 : -1;
    to.focus();
  });
}

/**
 * The link of the next cell in a direction that has a count.
 * @param {HTMLTableElement} table
 * @param {HTMLTableCellElement} from
 * @param {[number, number]} step rows and columns
 * @returns {HTMLAnchorElement | null}
 */
function neighbor(table, from, [down, right]) {
  let row = /** @type {HTMLTableRowElement} */ (from.parentElement).rowIndex;
  let column = from.cellIndex;
  for (;;) {
    row += down;
    column += right;
    const cell = table.rows[row]?.cells[column];
    if (cell === undefined) return null;
    const link = cell.querySelector("a");
    if (link !== null) return link;
  }
}
