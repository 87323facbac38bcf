// The map of images: a point for each, and thumbnails of those around the selected one.

const AROUND = 25; // images around the selected one
const MAP_COLORS = ["#0072b2", "#d55e00"]; // right, wrong

/** @param {MapOfImages} data */
function wireMap(data) {
  const canvas = element("map", HTMLCanvasElement);
  const color = element("map-color", HTMLSelectElement);
  const shown = element("map-shown", HTMLSelectElement);
  const bytes = decodeBase64(data.positions);
  const positions = Array.from(new Uint16Array(bytes.buffer), (value) => value / 65535);
  const labels = decodeClasses(data.labels, data.bytes);
  const predicted = decodeClasses(data.predicted, data.bytes);
  const confidence = decodeBase64(data.confidence);
  const sheet = new Image();
  let selected = -1;

  const visible = (/** @type {number} */ row) => shown.value === "all" || labels[row] !== predicted[row];
  const fill = (/** @type {number} */ row) =>
    color.value === "class" ? classColor(labels[row]) : color.value === "correct" ? MAP_COLORS[Number(labels[row] !== predicted[row])] : confidenceColor(confidence[row]);

  const draw = () => {
    const side = Math.max(200, Math.min(640, canvas.parentElement?.clientWidth ?? 640));
    const scale = devicePixelRatio || 1;
    canvas.width = canvas.height = side * scale;
    canvas.style.setProperty("width", `${side}px`);
    const context = canvas.getContext("2d");
    if (context === null) return;
    context.scale(scale, scale);
    const radius = labels.length > 3000 ? 1.6 : 2.6;
    for (let row = 0; row < labels.length; row++) {
      if (!visible(row)) continue;
      context.fillStyle = fill(row);
      context.beginPath();
      context.arc(8 + positions[2 * row] * (side - 16), 8 + positions[2 * row + 1] * (side - 16), radius, 0, 7);
      context.fill();
    }
    if (selected < 0) return;
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2;
    context.beginPath();
    context.arc(8 + positions[2 * selected] * (side - 16), 8 + positions[2 * selected + 1] * (side - 16), 7, 0, 7);
    context.stroke();
  };

  /** @param {number} x @param {number} y @returns {number[]} visible images by their distance from a place */
  const nearest = (x, y) =>
    [...labels.keys()].filter(visible).sort((a, b) => squared(a, x, y) - squared(b, x, y));
  const squared = (/** @type {number} */ row, /** @type {number} */ x, /** @type {number} */ y) => (positions[2 * row] - x) ** 2 + (positions[2 * row + 1] - y) ** 2;

  /** @param {number} row */
  const select = (row) => {
    selected = row;
    draw();
    const around = nearest(positions[2 * row], positions[2 * row + 1]).slice(0, AROUND);
    const right = around.filter((each) => labels[each] === predicted[each]).length;
    element("map-image", HTMLElement).textContent = `${describe(row)}. Of the ${around.length} images around it, ${right} are classified correctly.`;
    element("map-thumbnails", HTMLElement).replaceChildren(...around.map((each) => thumbnail(each)).filter((each) => each !== null));
  };
  /** @param {number} row */
  const describe = (row) => {
    const index = data.indices === null ? row : data.indices[row];
    const right = labels[row] === predicted[row];
    return `Image ${index}: ${errors.classes[labels[row]]}, ${right ? "predicted correctly" : `predicted as ${errors.classes[predicted[row]]}`} (${(confidence[row] / 100).toFixed(2)})`;
  };
  /** @param {number} row */
  const thumbnail = (row) => {
    if (row % data.every || !sheet.complete || !sheet.naturalWidth) return null;
    const { width, height, columns, every } = data;
    const tile = row / every;
    const result = document.createElement("canvas");
    result.className = labels[row] === predicted[row] ? "tile" : "tile wrong";
    result.width = width;
    result.height = height;
    result.title = describe(row);
    result.setAttribute("role", "img");
    result.setAttribute("aria-label", describe(row));
    result.getContext("2d")?.drawImage(sheet, (tile % columns) * width, Math.floor(tile / columns) * height, width, height, 0, 0, width, height);
    result.addEventListener("click", () => select(row));
    return result;
  };

  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect();
    const place = (/** @type {number} */ value, /** @type {number} */ start) => (value - start - 8) / (box.width - 16);
    const found = nearest(place(event.clientX, box.left), place(event.clientY, box.top));
    if (found.length) select(found[0]);
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = /** @type {Record<string, [number, number]>} */ ({ ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] });
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    const [x, y] = selected < 0 ? [0.5, 0.5] : [positions[2 * selected], positions[2 * selected + 1]];
    const onward = nearest(x, y).find((row) => {
      const [right, down] = [positions[2 * row] - x, positions[2 * row + 1] - y];
      const ahead = right * step[0] + down * step[1];
      return row !== selected && ahead > 0 && ahead >= Math.abs(right * step[1]) + Math.abs(down * step[0]);
    });
    if (onward !== undefined) select(onward);
  });
  for (const control of [color, shown]) {
    control.addEventListener("change", () => {
      draw();
      showLegend(color.value);
    });
  }
  new ResizeObserver(draw).observe(/** @type {HTMLElement} */ (canvas.parentElement));
  showLegend(color.value);
  draw();
  sheet.src = data.sheet;
  sheet.decode().then(() => {
    if (selected >= 0) select(selected);
  });
}

/** @param {string} text base64 @param {number} size bytes of a class @returns {number[]} */
function decodeClasses(text, size) {
  const bytes = decodeBase64(text);
  return Array.from(size === 1 ? bytes : new Uint16Array(bytes.buffer));
}

/** @param {number} index @returns {string} the same colors as in the figure */
function classColor(index) {
  return `hsl(${((index * 0.618034) % 1) * 360} 65% ${[42, 62, 78][index % 3]}%)`;
}

/** @param {number} percent @returns {string} orange for low, blue for high */
function confidenceColor(percent) {
  return `hsl(${20 + 1.8 * percent} 75% 50%)`;
}

/** @param {string} color */
function showLegend(color) {
  const entries =
    color === "class"
      ? errors.classes.slice(0, 20).map((name, index) => /** @type {const} */ ([classColor(index), name]))
      : color === "correct"
        ? [/** @type {const} */ ([MAP_COLORS[0], "right"]), /** @type {const} */ ([MAP_COLORS[1], "wrong"])]
        : [0, 25, 50, 75, 100].map((value) => /** @type {const} */ ([confidenceColor(value), (value / 100).toFixed(2)]));
  const items = entries.map(([shade, name]) => {
    const item = document.createElement("li");
    const dot = document.createElement("span");
    dot.style.setProperty("background", shade);
    item.append(dot, name);
    return item;
  });
  if (color === "class" && errors.classes.length > 20) {
    const item = document.createElement("li");
    item.textContent = "…";
    items.push(item);
  }
  element("map-legend", HTMLElement).replaceChildren(...items);
}
