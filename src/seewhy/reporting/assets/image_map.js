// The map of images: a point for each, and thumbnails of those around the selected one, or of those inside a drawn line.

const AROUND = 25; // images around the selected one
const MOST_THUMBNAILS = 200; // of the images inside a line
const UNSURE = 50; // percent of confidence below which the model is unsure
const DRAG = 5; // pixels from which a movement is a line, not a click

/** @typedef {[number, number]} Point from the left and from the top, from 0 to 1 */
const MAP_COLORS = ["#0072b2", "#d55e00"]; // right, wrong
const NEUTRAL = "#808080"; // of training images, which have no prediction

/** @param {MapOfImages} data */
function wireMap(data) {
  const canvas = element("map", HTMLCanvasElement);
  const color = element("map-color", HTMLSelectElement);
  const shown = element("map-shown", HTMLSelectElement);
  const only = element("map-class", HTMLSelectElement);
  const split = data.train ? element("map-split", HTMLSelectElement) : null;
  const finger = element("map-finger", HTMLInputElement);
  const bytes = decodeBase64(data.positions);
  const positions = Array.from(new Uint16Array(bytes.buffer), (value) => value / 65535);
  const labels = decodeClasses(data.labels, data.bytes);
  const predicted = decodeClasses(data.predicted, data.bytes);
  const confidence = decodeBase64(data.confidence);
  const groups = data.groups.map((group) => ({ ...group, codes: Array.from(decodeBase64(group.codes)) }));
  const sheet = new Image();
  let selected = -1;
  let anchor = -1; // where a selection by Shift and arrow keys begins
  /** @type {Set<number>} */
  let inside = new Set(); // images inside the line
  /** @type {Point[]} */
  let line = [];
  let dragged = false;

  groups.forEach((group, index) => color.add(new Option(group.name, `group-${index}`)));
  errors.classes.forEach((name, index) => only.add(new Option(name, String(index))));
  const group = () => (color.value.startsWith("group-") ? groups[Number(color.value.slice(6))] : undefined);

  const isTrain = (/** @type {number} */ row) => row >= predicted.length;
  const isWrong = (/** @type {number} */ row) => !isTrain(row) && labels[row] !== predicted[row];
  /** @type {Record<string, (row: number) => boolean>} */
  const kinds = { all: () => true, wrong: isWrong, right: (row) => !isWrong(row), unsure: (row) => confidence[row] < UNSURE };
  const ofSplit = (/** @type {number} */ row) => split === null || split.value === "both" || (split.value === "train") === isTrain(row);
  const visible = (/** @type {number} */ row) => ofSplit(row) && (isTrain(row) || kinds[shown.value](row)) && (only.value === "" || labels[row] === Number(only.value) || predicted[row] === Number(only.value));
  const fill = (/** @type {number} */ row) => {
    if (isTrain(row) && color.value !== "class") return NEUTRAL;
    const chosen = group();
    if (chosen) return classColor(chosen.codes[row]);
    return color.value === "class" ? classColor(labels[row]) : color.value === "correct" ? MAP_COLORS[Number(isWrong(row))] : confidenceColor(confidence[row]);
  };

  const backToFront = [...labels.keys()].sort((one, other) => Number(isTrain(other)) - Number(isTrain(one)));

  const draw = () => {
    const side = Math.max(200, Math.min(640, canvas.parentElement?.clientWidth ?? 640));
    const scale = devicePixelRatio || 1;
    canvas.width = canvas.height = side * scale;
    canvas.style.setProperty("width", `${side}px`);
    const context = canvas.getContext("2d");
    if (context === null) return;
    context.scale(scale, scale);
    const radius = labels.length > 3000 ? 1.6 : 2.6;
    for (const row of backToFront) {
      if (!visible(row)) continue;
      const [x, y] = [8 + positions[2 * row] * (side - 16), 8 + positions[2 * row + 1] * (side - 16)];
      context.globalAlpha = (inside.size && !inside.has(row) ? 0.2 : 1) * (isTrain(row) ? 0.8 : 1);
      context.fillStyle = fill(row);
      if (isTrain(row)) {
        const [arm, width] = [1.25 * radius, radius / 2];
        context.fillRect(x - arm, y - width / 2, 2 * arm, width);
        context.fillRect(x - width / 2, y - arm, width, 2 * arm);
        continue;
      }
      context.beginPath();
      context.arc(x, y, radius, 0, 7);
      context.fill();
    }
    context.globalAlpha = 1;
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = 2;
    if (line.length) {
      context.beginPath();
      for (const [x, y] of line) context.lineTo(8 + x * (side - 16), 8 + y * (side - 16));
      context.closePath();
      context.stroke();
    }
    if (selected < 0) return;
    context.beginPath();
    context.arc(8 + positions[2 * selected] * (side - 16), 8 + positions[2 * selected + 1] * (side - 16), 7, 0, 7);
    context.stroke();
  };

  /** @param {number} x @param {number} y @returns {number[]} visible images by their distance from a point */
  const nearest = (x, y) =>
    [...labels.keys()].filter(visible).sort((a, b) => squared(a, x, y) - squared(b, x, y));
  const squared = (/** @type {number} */ row, /** @type {number} */ x, /** @type {number} */ y) => (positions[2 * row] - x) ** 2 + (positions[2 * row + 1] - y) ** 2;

  /** @param {number} row */
  const select = (row) => {
    selected = anchor = row;
    clearLine();
    draw();
    const around = nearest(positions[2 * row], positions[2 * row + 1]).slice(0, AROUND);
    const right = around.filter((each) => labels[each] === predicted[each]).length;
    const summary = split === null ? `Of the ${around.length} images around it, ${right} are classified correctly.` : `Around it: ${countSplits(around)}.`;
    element("map-image", HTMLElement).textContent = `${describe(row)}. ${summary}`;
    element("map-thumbnails", HTMLElement).replaceChildren(...around.map((each) => thumbnail(each)).filter((each) => each !== null));
  };
  const clearLine = () => {
    line = [];
    inside = new Set();
    element("map-file", HTMLAnchorElement).hidden = true;
  };
  /** Select the visible images inside a line. @param {Point[]} points */
  const selectInside = (points) => {
    line = points;
    const rows = [...labels.keys()].filter((row) => visible(row) && isInside(positions[2 * row], positions[2 * row + 1], points));
    inside = new Set(rows);
    const wrong = rows.filter(isWrong);
    const first = [...wrong, ...rows.filter((row) => !isWrong(row))].filter((row) => row % data.every === 0).slice(0, MOST_THUMBNAILS);
    const parts = split === null ? [`${countImages(rows.length, "image")} selected, ${wrong.length} of them wrong`, rows.length ? `True class: ${countClasses(rows)}` : ""] : [`Selected: ${countSplits(rows)}`];
    const chosen = group();
    const tested = rows.filter((row) => !isTrain(row));
    if (chosen && tested.length) parts.push(`${chosen.name}: ${counts(tested.map((row) => chosen.values[chosen.codes[row]]))}`);
    element("map-image", HTMLElement).textContent = `${parts.filter(Boolean).join(". ")}.${first.length < rows.length ? ` ${first.length} are shown, errors first.` : ""}`;
    element("map-thumbnails", HTMLElement).replaceChildren(...first.map((row) => thumbnail(row)).filter((each) => each !== null));
    const file = element("map-file", HTMLAnchorElement);
    const cells = (/** @type {number} */ row) => {
      const columns = isTrain(row) ? [indexOf(row), data.cells[labels[row]], "", ""] : [indexOf(row), data.cells[labels[row]], data.cells[predicted[row]], (confidence[row] / 100).toFixed(2)];
      return (split === null ? columns : [isTrain(row) ? "train" : "test", ...columns]).join(",");
    };
    const header = `${split === null ? "" : "split,"}index,true,predicted,confidence`;
    file.href = "data:text/csv;charset=utf-8," + encodeURIComponent([header, ...rows.map(cells), ""].join("\r\n"));
    file.hidden = rows.length === 0;
    draw();
  };
  const countClasses = (/** @type {number[]} */ rows) => counts(rows.map((row) => errors.classes[labels[row]]));
  /** Numbers and classes of test and training images among some images, if these are shown. @param {number[]} rows */
  const countSplits = (rows) => {
    const [test, train] = [rows.filter((row) => !isTrain(row)), rows.filter(isTrain)];
    const classes = (/** @type {number[]} */ some) => (some.length ? ` (${countClasses(some)})` : "");
    return [
      split?.value === "train" ? "" : `${countImages(test.length, "test image")}${classes(test)}, ${test.filter(isWrong).length} of them wrong`,
      split?.value === "test" ? "" : `${countImages(train.length, "training image")}${classes(train)}`,
    ].filter(Boolean).join("; ");
  };
  const indexOf = (/** @type {number} */ row) => (data.train && isTrain(row) ? data.train.indices[row - predicted.length] : data.indices === null ? row : data.indices[row]);
  /** @param {number} row */
  const describe = (row) => {
    if (data.train && isTrain(row)) return `Training image ${data.train.names[row - predicted.length]}: ${errors.classes[labels[row]]}`;
    const index = indexOf(row);
    const right = !isWrong(row);
    const chosen = group();
    const own = chosen ? `, ${chosen.name} ${chosen.values[chosen.codes[row]]}` : "";
    return `Image ${index}: ${errors.classes[labels[row]]}, ${right ? "predicted correctly" : `predicted as ${errors.classes[predicted[row]]}`} (${(confidence[row] / 100).toFixed(2)})${own}`;
  };
  /** @param {number} row */
  const thumbnail = (row) => {
    if (row % data.every || !sheet.complete || !sheet.naturalWidth) return null;
    const { width, height, columns, every } = data;
    const tile = row / every;
    const result = document.createElement("canvas");
    result.className = isTrain(row) ? "tile train" : isWrong(row) ? "tile wrong" : "tile";
    result.width = width;
    result.height = height;
    result.title = describe(row);
    result.setAttribute("role", "img");
    result.setAttribute("aria-label", describe(row));
    result.getContext("2d")?.drawImage(sheet, (tile % columns) * width, Math.floor(tile / columns) * height, width, height, 0, 0, width, height);
    result.addEventListener("click", () => select(row));
    return result;
  };

  /** @param {MouseEvent} event @returns {Point} */
  const pointerPosition = (event) => {
    const box = canvas.getBoundingClientRect();
    return [(event.clientX - box.left - 8) / (box.width - 16), (event.clientY - box.top - 8) / (box.height - 16)];
  };
  canvas.addEventListener("click", (event) => {
    if (dragged) return; // the end of a line
    const found = nearest(...pointerPosition(event));
    if (found.length) select(found[0]);
  });
  canvas.addEventListener("pointerdown", (event) => {
    dragged = false;
    if ((event.pointerType === "touch" && !finger.checked) || event.button !== 0) return; // a finger scrolls the page
    const points = [pointerPosition(event)];
    const [startX, startY] = [event.clientX, event.clientY];
    canvas.setPointerCapture(event.pointerId);
    const move = (/** @type {PointerEvent} */ moved) => {
      dragged ||= Math.hypot(moved.clientX - startX, moved.clientY - startY) >= DRAG;
      points.push(pointerPosition(moved));
      if (!dragged) return;
      selected = -1;
      line = points;
      draw();
    };
    const end = () => {
      canvas.removeEventListener("pointermove", move);
      if (dragged) selectInside(points);
    };
    canvas.addEventListener("pointermove", move);
    canvas.addEventListener("pointerup", end, { once: true });
    canvas.addEventListener("pointercancel", end, { once: true });
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && inside.size) {
      clearLine();
      element("map-image", HTMLElement).textContent = "No image selected.";
      element("map-thumbnails", HTMLElement).replaceChildren();
      draw();
      return;
    }
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
    if (onward === undefined) return;
    if (!event.shiftKey || anchor < 0) {
      select(onward);
      return;
    }
    selected = onward; // a rectangle from the anchor to the image
    const [left, right] = [positions[2 * anchor], positions[2 * onward]].sort((a, b) => a - b);
    const [top, bottom] = [positions[2 * anchor + 1], positions[2 * onward + 1]].sort((a, b) => a - b);
    const margin = 0.005;
    selectInside([
      [left - margin, top - margin],
      [right + margin, top - margin],
      [right + margin, bottom + margin],
      [left - margin, bottom + margin],
    ]);
  });
  finger.addEventListener("change", () => canvas.classList.toggle("drawn-on", finger.checked));
  for (const control of [color, shown, only, split]) {
    control?.addEventListener("change", () => {
      if (line.length) selectInside(line);
      else draw();
      showLegend(color.value, group()?.values, split !== null);
    });
  }
  new ResizeObserver(draw).observe(/** @type {HTMLElement} */ (canvas.parentElement));
  showLegend(color.value, undefined, split !== null);
  draw();
  sheet.src = data.sheet;
  sheet.decode().then(() => {
    if (line.length) selectInside(line);
    else if (selected >= 0) select(selected);
  });
}

/** Whether a point is inside a closed line: a ray from it crosses the line an odd number of times. @param {number} x @param {number} y @param {Point[]} points */
function isInside(x, y, points) {
  let odd = false;
  points.forEach(([x1, y1], index) => {
    const [x2, y2] = points[(index + 1) % points.length];
    if (y1 > y !== y2 > y && x < x1 + ((y - y1) / (y2 - y1)) * (x2 - x1)) odd = !odd;
  });
  return odd;
}

/** @param {number} number @param {string} noun */
function countImages(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

/** The most frequent names with their counts. @param {string[]} names */
function counts(names) {
  /** @type {Map<string, number>} */
  const found = new Map();
  for (const name of names) found.set(name, (found.get(name) ?? 0) + 1);
  const ranked = [...found].sort((one, other) => other[1] - one[1]);
  const others = ranked.slice(5).reduce((sum, [, count]) => sum + count, 0);
  const shown = others ? [...ranked.slice(0, 5), ["others", others]] : ranked;
  return shown.map(([name, count]) => `${name} ${count}`).join(", ");
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

/** @param {string} color @param {string[] | undefined} values of a group @param {boolean} train whether there are training images */
function showLegend(color, values, train) {
  const names = values ?? errors.classes;
  const entries =
    color === "class" || values
      ? names.slice(0, 20).map((name, index) => /** @type {const} */ ([classColor(index), name]))
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
  for (const text of [color === "class" && names.length > 20 ? "…" : "", ...(train ? ["● test image", "+ training image"] : [])].filter(Boolean)) {
    const item = document.createElement("li");
    item.textContent = text;
    items.push(item);
  }
  element("map-legend", HTMLElement).replaceChildren(...items);
}
