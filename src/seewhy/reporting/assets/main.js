// The page follows the address; keyboard shortcuts change it.

function show() {
  const before = state;
  state = readState();
  const same = (/** @type {(keyof State)[]} */ ...keys) => keys.every((key) => String(before[key]) === String(state[key]));
  showControls();
  if (!same("confusion", "sort", "layer", "method", "target", "opacity", "overlay") || before === DEFAULT_STATE) showGallery();
  showViewer();
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const target = /** @type {HTMLElement} */ (event.target);
  if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|TEXTAREA)$/.test(target.tagName)) return;
  const help = element("help", HTMLDialogElement);
  const layer = Number(event.key);
  if (event.key === "?") {
    if (!help.open) help.showModal();
  } else if (help.open) return;
  else if (event.key === "j" || (viewer.open && event.key === "ArrowRight")) move(1);
  else if (event.key === "k" || (viewer.open && event.key === "ArrowLeft")) move(-1);
  else if (event.key === "o") setState({ overlay: !state.overlay });
  else if (event.key === "f" && errors.maps.methods.length) toggleFaithful();
  else if (needsLayer(state.method) && layer >= 1 && layer <= errors.layers.length) setState({ layer });
  else return;
  event.preventDefault();
}

/** Mark the current section in the navigation. */
function markCurrentSection() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href")?.slice(1), link]));
  const observer = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "location");
      }
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) observer.observe(section);
}

for (const hidden of document.querySelectorAll(".script-only")) hidden.removeAttribute("hidden");
for (const link of document.querySelectorAll('a[href^="#image-"]')) {
  link.addEventListener("click", (event) => {
    const index = knownImage(Number((link.getAttribute("href") ?? "").slice("#image-".length)));
    if (index === null) return;
    event.preventDefault();
    openImage(index);
  });
}
for (const card of cards) cardObserver.observe(card);
wireControls();
wireViewer();
wireMatrix();
wireLabels();
if (pageData["image-map"]) wireMap(pageData["image-map"]);
markCurrentSection();
addEventListener("hashchange", show);
addEventListener("keydown", onKey);
show();
Promise.all([decodeMaps(), decodeNeighbors()]).then(() => {
  showGallery();
  showViewer();
  document.documentElement.setAttribute("data-ready", "");
});
