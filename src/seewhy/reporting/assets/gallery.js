// The gallery of errors: filters, order and heat maps.

const gallery = document.getElementById("gallery"); // null if there are no errors
const cards = gallery === null ? [] : /** @type {HTMLElement[]} */ ([...gallery.children]);
const rowOf = new Map(cards.map((card, row) => [card, row])); // row of the errors, independent of the order of the cards
const CARD_PIXELS = 64; // of a heat map

/** @type {number[]} rows of the errors that pass the filter, in order */
let order = cards.map((_, row) => row);

const BATCH = 200; // cards shown at first, and added by each click
let limit = BATCH;
let lastFilter = "";

/** @type {Set<HTMLElement>} cards in or near the viewport */
const visibleCards = new Set();

const cardObserver = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const card = /** @type {HTMLElement} */ (entry.target);
      if (entry.isIntersecting) {
        visibleCards.add(card);
        paintCard(card);
      } else visibleCards.delete(card);
    }
  },
  { rootMargin: "300px" },
);

/** @param {HTMLElement} card */
function paintCard(card) {
  const link = card.querySelector("a");
  if (link === null) return;
  let canvas = link.querySelector("canvas");
  if (canvas === null) {
    canvas = document.createElement("canvas");
    canvas.className = "heat";
    link.append(canvas);
  }
  const row = rowOf.get(card) ?? 0;
  const map = state.overlay ? getMap(row, state.layer, state.method, state.target) : null;
  paint(canvas, map, state.target, state.opacity, CARD_PIXELS, CARD_PIXELS);
}

// paper has all cards, not only those on the screen
addEventListener("beforeprint", () => cards.forEach(paintCard));

/** Filter, sort and paint the cards. */
function showGallery() {
  if (gallery === null) return;
  const [trueClass, predicted] = state.confusion;
  const { confusions, loss, classes } = errors;
  const counts = new Map(); // by confusion
  for (const [t, p] of confusions) counts.set(`${t},${p}`, (counts.get(`${t},${p}`) ?? 0) + 1);
  const rank = (/** @type {number} */ row) =>
    counts.get(confusions[row].join(",")) * 1e6 - (confusions[row][0] * classes.length + confusions[row][1]);
  order = confusions
    .map((_, row) => row)
    .filter((row) => trueClass === null || confusions[row][0] === trueClass)
    .filter((row) => predicted === null || confusions[row][1] === predicted);
  if (state.sort === "loss") order.sort((a, b) => loss[b] - loss[a]);
  if (state.sort === "confusion") order.sort((a, b) => rank(b) - rank(a) || a - b);
  const filter = [...state.confusion, state.sort].join();
  if (filter !== lastFilter) limit = BATCH;
  lastFilter = filter;
  const positions = new Map(order.map((row, position) => [row, position]));
  for (const [row, card] of cards.entries()) card.hidden = (positions.get(row) ?? Infinity) >= limit;
  element("gallery-more", HTMLButtonElement).hidden = order.length <= limit;
  const arranged = [...order.map((row) => cards[row]), ...cards.filter((_, row) => !positions.has(row))];
  if (arranged.some((card, index) => card !== gallery.children[index])) gallery.append(...arranged); // a moved card loses the focus
  for (const card of visibleCards) paintCard(card);
  element("gallery-count", HTMLOutputElement).textContent = describeGallery();
  updateCsv();
}

/** @returns {string} the number of images, and the filter */
function describeGallery() {
  const [trueClass, predicted] = state.confusion;
  const images = `${order.length} image${order.length === 1 ? "" : "s"}`;
  const omitted = order.length === 0 && document.querySelector("#errors .notice") ? " (some are not shown)" : "";
  const words = [];
  if (trueClass !== null) words.push(`true ${errors.classes[trueClass]}`);
  if (predicted !== null) words.push(`predicted ${errors.classes[predicted]}`);
  return (words.length ? `${images}: ${words.join(", ")}` : images) + omitted;
}

/** Wire the controls above the gallery. */
function wireControls() {
  const form = document.querySelector("form.controls");
  if (!(form instanceof HTMLFormElement)) return;
  const control = (/** @type {string} */ name) => /** @type {HTMLInputElement | HTMLSelectElement} */ (form.elements.namedItem(name));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    const changed = /** @type {HTMLInputElement | HTMLSelectElement} */ (event.target);
    const chosenClass = (/** @type {string} */ name) => (control(name).value === "" ? null : Number(control(name).value));
    if (changed.name === "true" || changed.name === "predicted") setState({ confusion: [chosenClass("true"), chosenClass("predicted")] }, true);
    else if (changed.name === "overlay") setState({ overlay: /** @type {HTMLInputElement} */ (changed).checked });
    else if (changed.name === "layer" || changed.name === "opacity") setState({ [changed.name]: Number(changed.value) });
    else setState({ [changed.name]: changed.value });
  });
  element("gallery-more", HTMLButtonElement).addEventListener("click", () => {
    limit += BATCH;
    showGallery();
  });
  control("reset").addEventListener("click", () => setState(DEFAULT_STATE, true));
}

/** Update the CSV link: it holds the images that pass the filter. */
function updateCsv() {
  const link = element("errors-csv", HTMLAnchorElement);
  const cell = (/** @type {string | number} */ value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value); // not a formula
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = order.map((row) => {
    const [trueName, predictedName] = errors.confusions[row].map((index) => errors.classes[index]);
    return [errors.index[row], errors.names[row], trueName, predictedName, errors.probabilities[row][0], errors.loss[row]];
  });
  const text = [["index", "name", "true", "predicted", "confidence", "loss"], ...lines].map((line) => line.map(cell).join(",")).join("\r\n");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([text + "\r\n"], { type: "text/csv" }));
}

/** Set the controls to the state. */
function showControls() {
  const form = document.querySelector("form.controls");
  if (!(form instanceof HTMLFormElement)) return;
  const values = {
    sort: state.sort,
    true: state.confusion[0] ?? "",
    predicted: state.confusion[1] ?? "",
    layer: state.layer,
    method: state.method,
    target: state.target,
    opacity: state.opacity,
  };
  for (const [name, value] of Object.entries(values)) {
    const control = form.elements.namedItem(name); // null if there are no heat maps
    if (control instanceof HTMLInputElement || control instanceof HTMLSelectElement) control.value = String(value);
    if (name === "layer" && control instanceof HTMLSelectElement) control.disabled = !needsLayer(state.method);
  }
  const overlay = form.elements.namedItem("overlay");
  if (overlay instanceof HTMLInputElement) overlay.checked = state.overlay;
}
