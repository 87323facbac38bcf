// The nearest and the most influential training images of an error, in the viewer.

const neighborSheet = new Image();

/** @returns {Promise<void>} */
async function decodeNeighbors() {
  if (errors.neighbors === null) return;
  neighborSheet.src = errors.neighbors.sheet;
  await neighborSheet.decode();
}

/**
 * Show the nearest and the most influential training images of an error, or hide their place.
 * @param {number} row
 */
function showNeighbors(row) {
  const data = errors.neighbors;
  const box = element("viewer-neighbors", HTMLElement);
  box.hidden = data === null || row >= data.nearest.tiles.length;
  if (data === null || box.hidden) return;
  const similarity = (/** @type {number} */ value) => value.toFixed(2);
  const share = (/** @type {number} */ value) => `${Math.round(100 * value)}%`;
  showTrainingImages("viewer-nearest", data, data.nearest, row, "nearest of the true class: ", similarity);
  element("viewer-searched", HTMLElement).textContent = `Cosine similarity of the model's features; searched: ${data.searched}.`;
  element("viewer-influence", HTMLElement).hidden = data.influential === null;
  if (data.influential === null) return;
  showTrainingImages("viewer-influential", data, data.influential, row, "against: ", share);
  const predicted = errors.classes[errors.confusions[row][1]];
  element("viewer-influence-hint", HTMLElement).textContent = `The training images that raise the probability of ${predicted} most, and the one that lowers it most. Estimated from the gradients of the last layer; percentages are shares of all influence for ${predicted}, or against it; searched: ${data.searched}.`;
}

/**
 * @param {string} id of the place
 * @param {NeighborsData} data
 * @param {TrainingImages} images
 * @param {number} row of the error
 * @param {string} last what the last image is
 * @param {(value: number) => string} format
 */
function showTrainingImages(id, data, images, row, last, format) {
  const values = images.values[row];
  const figures = images.tiles[row].map((tile, rank) => {
    const caption = `${rank === values.length - 1 ? last : ""}${errors.classes[data.labels[tile]]}, ${format(values[rank])}`;
    return tile < 0 ? null : trainingImage(data, tile, caption);
  });
  element(id, HTMLElement).replaceChildren(...figures.filter((figure) => figure !== null));
}

/**
 * @param {NeighborsData} data
 * @param {number} tile
 * @param {string} text of the caption
 */
function trainingImage(data, tile, text) {
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
  caption.textContent = text;
  figure.append(canvas, caption);
  return figure;
}
