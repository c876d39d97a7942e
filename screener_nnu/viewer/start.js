// Unpacks the scan and starts.

async function start() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("this browser is too old: Chrome 80, Firefox 113 or Safari 16.4 show it");
  }
  const facts = (state.facts = JSON.parse(byId("facts").textContent));
  if (facts.picture) becomePicture();
  for (const name of ["hu", "green", "blue", "score", "labels"]) {
    state[name] = await readVolume(name, facts.size, facts.differences[name]);
  }
  state.counts = new Float64Array(256);
  for (const code of state.score) state.counts[code]++;
  // A finger has no wheel, so it scrolls; a mouse has one, so it points.
  const touched = window.matchMedia("(pointer: coarse)").matches;
  if (touched && !facts.picture) state.tool = "scroll";
  byId("message").hidden = true;
  byId("main").hidden = false;
  buildPlanes();
  buildTabs();
  buildFindings();
  buildWindow();
  buildMap();
  listenToKeys();
  listeners.push(drawPlanes, drawSlices, drawFindings, drawWindow, drawMapControls, () =>
    drawReadings(state.position),
  );
  const first = (facts.findings || [])[0];
  if (first) jumpToFinding(first);
  else moveTo(facts.peak);
  const voxel = facts.spacing.map((mm) => mm.toFixed(2));
  byId("grid-note").textContent = facts.picture
    ? `Shown with dots of ${voxel.slice(0, 2).join(" \u00d7 ")} pixels of the file.`
    : `Shown with voxels of ${voxel.join(" \u00d7 ")} mm (left, back, head).`;
  requestAnimationFrame(() => (document.body.dataset.ready = "yes"));
}

start().catch((error) => {
  byId("message").hidden = false;
  byId("message").textContent = `The scan cannot be shown: ${error.message}.`;
});
