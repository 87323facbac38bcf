// The page follows the address; the keyboard changes it.

function show() {
  const before = state;
  state = readState();
  const same = (/** @type {(keyof State)[]} */ ...keys) => keys.every((key) => String(before[key]) === String(state[key]));
  showControls();
  if (!same("confusion", "sort", "layer", "method", "target", "opacity", "overlay") || before === START) showGallery();
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
  else if (event.key === "o") look({ overlay: !state.overlay });
  else if (layer >= 1 && layer <= mistakes.maps.layers.length) look({ layer });
  else return;
  event.preventDefault();
}

/** Mark the section that is being read in the list of sections. */
function followReading() {
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.getAttribute("href")?.slice(1), link]));
  const reading = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.id)?.setAttribute("aria-current", "location");
      }
    },
    { rootMargin: "-20% 0px -75% 0px" },
  );
  for (const section of document.querySelectorAll("main > section")) reading.observe(section);
}

for (const hidden of document.querySelectorAll(".script-only")) hidden.removeAttribute("hidden");
for (const link of document.querySelectorAll('a[href^="#image-"]')) {
  link.addEventListener("click", (event) => {
    const index = known(Number((link.getAttribute("href") ?? "").slice("#image-".length)));
    if (index === null) return;
    event.preventDefault();
    enter(index);
  });
}
for (const card of cards) nearness.observe(card);
wireControls();
wireViewer();
wireMatrix();
followReading();
addEventListener("hashchange", show);
addEventListener("keydown", onKey);
show();
unpackMaps().then(() => {
  showGallery();
  showViewer();
  document.documentElement.setAttribute("data-ready", "");
});
