// The nearest training images of an error, in the viewer.

const neighborSheet = new Image();

/** @returns {Promise<void>} */
async function decodeNeighbors() {
  if (errors.neighbors === null) return;
  neighborSheet.src = errors.neighbors.sheet;
  await neighborSheet.decode();
}

/**
 * Show the nearest training images of an error, or hide their place if they were not searched.
 * @param {number} row
 */
function showNeighbors(row) {
  const data = errors.neighbors;
  const box = element("viewer-neighbors", HTMLElement);
  box.hidden = data === null || row >= data.tiles.length;
  if (data === null || box.hidden) return;
  const last = data.tiles[row].length - 1;
  const figures = data.tiles[row].map((tile, rank) => (tile < 0 ? null : neighborFigure(data, tile, data.similarity[row][rank], rank === last)));
  element("viewer-nearest", HTMLElement).replaceChildren(...figures.filter((figure) => figure !== null));
  element("viewer-searched", HTMLElement).textContent = `Cosine similarity of the model's features; searched: ${data.searched}.`;
}

/**
 * @param {NeighborsData} data
 * @param {number} tile
 * @param {number} similarity
 * @param {boolean} ofTrueClass whether it is the nearest of the true class
 */
function neighborFigure(data, tile, similarity, ofTrueClass) {
  const { width, height, columns } = data;
  const figure = document.createElement("figure");
  const canvas = document.createElement("canvas");
  const caption = document.createElement("figcaption");
  canvas.className = "tile";
  canvas.width = width;
  canvas.height = height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `training image ${data.indices[tile]}`);
  if (neighborSheet.complete && neighborSheet.naturalWidth) {
    canvas.getContext("2d")?.drawImage(neighborSheet, (tile % columns) * width, Math.floor(tile / columns) * height, width, height, 0, 0, width, height);
  }
  caption.textContent = `${ofTrueClass ? "nearest of the true class: " : ""}${errors.classes[data.labels[tile]]}, ${similarity.toFixed(2)}`;
  figure.append(canvas, caption);
  return figure;
}
