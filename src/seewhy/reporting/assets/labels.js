// New labels of suspicious images, for the option --labels.

const DROP = "drop";

/** Fill the lists of labels, and keep labels.csv as they are chosen. */
function wireLabels() {
  const labels = pageData["label-issues"];
  if (!labels) return;
  /** @type {NodeListOf<HTMLSelectElement>} */
  const lists = document.querySelectorAll("select[data-image]");
  for (const list of lists) {
    const [, given, suggested] = labels.images[list.dataset.image ?? ""];
    list.add(new Option(`keep ${errors.classes[given]}`, ""));
    if (suggested >= 0) list.add(new Option(`change to ${errors.classes[suggested]}`, String(suggested)));
    list.add(new Option("drop the image", DROP));
    errors.classes.forEach((name, label) => {
      if (label !== given && label !== suggested) list.add(new Option(`change to ${name}`, String(label)));
    });
    list.addEventListener("change", () => {
      for (const other of lists) if (other.dataset.image === list.dataset.image) other.value = list.value; // an image may be in both lists
      showLabelsFile(labels, lists);
    });
  }
}

/**
 * Put the chosen labels into the download.
 * @param {LabelsData} labels
 * @param {NodeListOf<HTMLSelectElement>} lists
 */
function showLabelsFile(labels, lists) {
  /** @type {Map<string, string>} */
  const chosen = new Map();
  for (const list of lists) if (list.value !== "") chosen.set(list.dataset.image ?? "", list.value);
  const lines = [...chosen].map(([image, value]) => `${labels.images[image][0]},${value === DROP ? "" : labels.cells[Number(value)]}`);
  const dropped = [...chosen.values()].filter((value) => value === DROP).length;
  const changed = chosen.size - dropped;
  const link = element("labels-file", HTMLAnchorElement);
  link.hidden = chosen.size === 0;
  link.href = "data:text/csv;charset=utf-8," + encodeURIComponent([labels.header, ...lines, ""].join("\r\n"));
  const parts = [changed ? `${changed} label${changed === 1 ? "" : "s"} changed` : "", dropped ? `${dropped} image${dropped === 1 ? "" : "s"} dropped` : ""];
  element("labels-status", HTMLElement).textContent = chosen.size ? parts.filter(Boolean).join(", ") + "." : "No label is changed.";
}
