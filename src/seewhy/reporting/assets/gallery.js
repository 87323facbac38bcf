// The gallery of mistakes: which are shown, in which order, with which heat.

const gallery = document.getElementById("gallery"); // there is none where there are no mistakes
const cards = gallery === null ? [] : /** @type {HTMLElement[]} */ ([...gallery.children]);
const rowOf = new Map(cards.map((card, row) => [card, row])); // rows of the mistakes, in whatever order the cards are
const PIXELS = 64; // of the heat on a card

/** @type {number[]} rows of the mistakes that are shown, in their order */
let order = cards.map((_, row) => row);

const MANY = 200; // cards that are shown at first, and more each time: on a phone these are a few screens
let most = MANY;
let filtered = "";

/** @type {Set<HTMLElement>} cards in or near the window */
const near = new Set();

const nearness = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const card = /** @type {HTMLElement} */ (entry.target);
      if (entry.isIntersecting) {
        near.add(card);
        heatCard(card);
      } else near.delete(card);
    }
  },
  { rootMargin: "300px" },
);

/** @param {HTMLElement} card */
function heatCard(card) {
  const link = card.querySelector("a");
  if (link === null) return;
  let canvas = link.querySelector("canvas");
  if (canvas === null) {
    canvas = document.createElement("canvas");
    canvas.className = "heat";
    link.append(canvas);
  }
  const row = rowOf.get(card) ?? 0;
  const map = state.overlay ? mapOf(row, state.layer, state.method, state.target) : null;
  paint(canvas, map, state.target, state.opacity, PIXELS, PIXELS);
}

/** Show what the state asks for. */
function showGallery() {
  if (gallery === null) return;
  const [actual, predicted] = state.confusion;
  const { kinds, loss } = mistakes;
  const rank = new Map(); // of each confusion: how many there are
  for (const [t, p] of kinds) rank.set(`${t},${p}`, (rank.get(`${t},${p}`) ?? 0) + 1);
  const size = (/** @type {number} */ row) => rank.get(kinds[row].join(",")) * 1e6 - (kinds[row][0] * mistakes.classes.length + kinds[row][1]);
  order = kinds
    .map((_, row) => row)
    .filter((row) => (actual === null || kinds[row][0] === actual) && (predicted === null || kinds[row][1] === predicted));
  if (state.sort === "loss") order.sort((a, b) => loss[b] - loss[a]);
  if (state.sort === "confusion") order.sort((a, b) => size(b) - size(a) || a - b);
  const filter = [...state.confusion, state.sort].join();
  if (filter !== filtered) most = MANY;
  filtered = filter;
  const ranks = new Map(order.map((row, rank) => [row, rank]));
  for (const [row, card] of cards.entries()) card.hidden = (ranks.get(row) ?? Infinity) >= most;
  element("gallery-more", HTMLButtonElement).hidden = order.length <= most;
  const arranged = [...order.map((row) => cards[row]), ...cards.filter((_, row) => !ranks.has(row))];
  if (arranged.some((card, place) => card !== gallery.children[place])) gallery.append(...arranged); // what is moved loses the focus
  for (const card of near) heatCard(card);
  element("gallery-count", HTMLOutputElement).textContent = described();
  showTable();
}

/** @returns {string} how many are shown, and of what */
function described() {
  const [actual, predicted] = state.confusion;
  const images = `${order.length} image${order.length === 1 ? "" : "s"}`;
  const none = order.length === 0 && document.querySelector("#mistakes .notice") ? ", or none that this file has room for" : "";
  const words = [];
  if (actual !== null) words.push(`true ${mistakes.classes[actual]}`);
  if (predicted !== null) words.push(`predicted ${mistakes.classes[predicted]}`);
  return (words.length ? `${images}: ${words.join(", ")}` : images) + none;
}

/** Wire the controls above the gallery. */
function wireControls() {
  const form = document.querySelector("form.controls");
  if (!(form instanceof HTMLFormElement)) return;
  const control = (/** @type {string} */ name) => /** @type {HTMLInputElement | HTMLSelectElement} */ (form.elements.namedItem(name));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    const changed = /** @type {HTMLInputElement | HTMLSelectElement} */ (event.target);
    const place = (/** @type {string} */ name) => (control(name).value === "" ? null : Number(control(name).value));
    if (changed.name === "true" || changed.name === "predicted") look({ confusion: [place("true"), place("predicted")] }, true);
    else if (changed.name === "overlay") look({ overlay: /** @type {HTMLInputElement} */ (changed).checked });
    else if (changed.name === "layer" || changed.name === "opacity") look({ [changed.name]: Number(changed.value) });
    else look({ [changed.name]: changed.value });
  });
  element("gallery-more", HTMLButtonElement).addEventListener("click", () => {
    most += MANY;
    showGallery();
  });
  control("reset").addEventListener("click", () => look(START, true));
}

/** Let the link above the gallery hold what the gallery shows. */
function showTable() {
  const link = element("mistakes-csv", HTMLAnchorElement);
  const cell = (/** @type {string | number} */ value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value); // no formula
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const lines = order.map((row) => {
    const [actual, predicted] = mistakes.kinds[row].map((place) => mistakes.classes[place]);
    return [mistakes.index[row], mistakes.names[row], actual, predicted, mistakes.probabilities[row][0], mistakes.loss[row]];
  });
  const text = [["index", "name", "true", "predicted", "confidence", "loss"], ...lines].map((line) => line.map(cell).join(",")).join("\r\n");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(new Blob([text + "\r\n"], { type: "text/csv" }));
}

/** Let the controls say what the state is. */
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
    const control = form.elements.namedItem(name); // a network that cannot be explained has none for heat
    if (control instanceof HTMLInputElement || control instanceof HTMLSelectElement) control.value = String(value);
  }
  const overlay = form.elements.namedItem("overlay");
  if (overlay instanceof HTMLInputElement) overlay.checked = state.overlay;
}
