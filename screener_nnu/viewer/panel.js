// The panel beside the planes: findings, colours, threshold, window, readings.

const byId = (id) => document.getElementById(id);
const withUnit = (score) => `${score.toFixed(1)} ${state.facts.unit}`.trim();
// The highest of a scan is in no scan's hundredth part: "100 %" would say more than is known.
const percent = (value) =>
  value > 99.99 ? "> 99.99 %" : `${value.toFixed(value >= 99 ? 2 : 1)} %`;

function makeElement(tag, text = "", attributes = {}) {
  const element = document.createElement(tag);
  element.textContent = text;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** Canvas, caption and slider of each plane. */
function buildPlanes() {
  const { size } = state.facts;
  for (const [name, plane] of Object.entries(PLANES)) {
    const figure = makeElement("figure", "", { class: "plane", "data-plane": name });
    const caption = makeElement("figcaption");
    const title = state.facts.picture ? "Picture" : name[0].toUpperCase() + name.slice(1);
    const text = makeElement("span", "", { class: "slice" });
    const large = makeElement("button", "\u2922", {
      type: "button", class: "large", "aria-label": `${title} alone or beside the others`,
    });
    caption.append(makeElement("b", title), text, large);
    const canvas = makeElement("canvas", "", {
      id: name, tabindex: "0", role: "application",
      "aria-label": state.facts.picture ? title : `${title} plane, arrow keys scroll`,
    });
    const slider = makeElement("input", "", {
      type: "range", min: "1", max: String(size[plane.through]), "aria-label": `${title} slice`,
    });
    const buffer = document.createElement("canvas");
    [buffer.width, buffer.height] = [size[plane.across], size[plane.down]];
    figure.append(caption, canvas, slider);
    byId("planes").append(figure);
    if (state.facts.picture) for (const part of [caption, slider]) part.hidden = true;
    views[name] = { canvas, slider, text, buffer, box: null };
    slider.addEventListener("input", () => goToSlice(name, Number(slider.value)));
    large.addEventListener("click", () => {
      const planes = byId("planes");
      planes.dataset.alone = planes.dataset.alone === name ? "" : name;
      redraw();
    });
    listenToPlane(name);
    new ResizeObserver(redraw).observe(canvas);
  }
}

function drawSlices() {
  for (const [name, plane] of Object.entries(PLANES)) {
    const { slider, text } = views[name];
    const number = sliceNumber(name);
    slider.value = String(number);
    text.textContent = `${number} / ${state.facts.size[plane.through]}`;
  }
  document.body.dataset.position = state.position.join(",");
}

function buildTabs() {
  const show = (name) => {
    byId("planes").dataset.shown = name;
    for (const button of document.querySelectorAll("[data-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.show === name));
    }
    redraw();
  };
  for (const button of document.querySelectorAll("[data-show]")) {
    button.addEventListener("click", () => show(button.dataset.show));
  }
  show("axial");
  if (state.facts.picture) byId("planes").dataset.alone = "axial";
}

/** HU and score under the pointer, or at the crosshair when it is elsewhere. */
function readUnder(name, event) {
  const position = event && voxelUnder(name, event);
  drawReadings(position || state.position);
}

function drawReadings(position) {
  const voxel = voxelAt(position);
  const code = state.score[voxel];
  const values = [state.hu, state.green, state.blue].filter((channel) => channel);
  const shown = values.map((channel) => Math.round(state.facts.levels[channel[voxel]]));
  byId("read-hu").textContent = `${shown.join(", ")}${state.facts.picture ? "" : " HU"}`;
  const score = scoreOfCode(state.facts, code);
  byId("read-score").textContent = code
    ? `${withUnit(score)}, ${percent(percentileOf(state.facts, score))}`
    : "outside the body";
  const [x, y, z] = placeOf(position);
  if (state.facts.picture) {
    byId("read-place").textContent = `${Math.round(x)}, ${Math.round(y)} px`;
    return;
  }
  const side = (value, plus, minus) => `${value < 0 ? minus : plus} ${Math.abs(value).toFixed(0)}`;
  byId("read-place").textContent =
    `${side(x, "L", "R")}  ${side(y, "P", "A")}  ${side(z, "H", "F")} mm`;
}

function buildFindings() {
  const { facts } = state;
  const place = byId("findings");
  if (!facts.findings || !facts.findings.length) {
    byId("findings-note").textContent = facts.findings
      ? "Nothing lies above the threshold of the findings."
      : "No list was given with this map.";
    const button = makeElement("button", "Go to the highest score", { type: "button", id: "peak" });
    button.addEventListener("click", () => moveTo(facts.peak));
    place.append(button);
    return;
  }
  const table = makeElement("table");
  const head = makeElement("tr");
  const ranked = facts.findings.some((row) => row.percentile !== null);
  const names = ["no.", facts.picture ? "area" : "volume", "peak", "mean", ...(ranked ? ["rank, %"] : [])];
  for (const name of names) head.append(makeElement("th", name, { scope: "col" }));
  table.append(head, ...facts.findings.map((row) => findingRow(row, ranked)));
  place.append(table);
  const sizes = facts.picture ? "areas in pixels" : "volumes in ml";
  const units = facts.unit
    ? `Scores in ${facts.unit}, ${sizes}.`
    : `${sizes[0].toUpperCase()}${sizes.slice(1)}.`;
  byId("findings-note").textContent = `${units} Click a row to go there.`;
}

function findingRow(row, ranked) {
  const line = makeElement("tr", "", { "data-number": row.number });
  const cell = makeElement("td");
  const { picture } = state.facts;
  const centre = row.centre.slice(0, picture ? 2 : 3).map((value) => value.toFixed(0)).join(", ");
  const button = makeElement("button", String(row.number), {
    type: "button", "aria-label": `Go to finding ${row.number}`,
  });
  line.title = `centre ${centre} ${picture ? "px" : "mm (LPS)"}`;
  cell.append(button);
  const rank = row.percentile === null ? "\u2013" : percent(row.percentile).replace(" %", "");
  const size = picture ? row.area_px : row.volume_ml.toFixed(row.volume_ml < 10 ? 2 : 0);
  const values = [size, row.peak.toFixed(1), row.mean.toFixed(1)];
  line.append(cell, ...[...values, ...(ranked ? [rank] : [])].map((text) => makeElement("td", text)));
  line.addEventListener("click", () => jumpToFinding(row));
  return line;
}

function drawFindings() {
  for (const line of document.querySelectorAll("tr[data-number]")) {
    const chosen = Number(line.dataset.number) === state.finding;
    if (chosen && !line.classList.contains("chosen")) line.scrollIntoView({ block: "nearest" });
    line.classList.toggle("chosen", chosen);
    line.querySelector("button").setAttribute("aria-pressed", String(chosen));
  }
}

function buildWindow() {
  WINDOWS.forEach(([name, width, level], i) => {
    const button = makeElement("button", name, { type: "button", title: `key ${i + 1}` });
    button.addEventListener("click", () => setWindow(width, level));
    byId("presets").append(button);
  });
  for (const id of ["width", "level"]) {
    byId(id).addEventListener("change", () => {
      const [width, level] = [byId("width").valueAsNumber, byId("level").valueAsNumber];
      if (Number.isFinite(width) && Number.isFinite(level)) setWindow(width, level);
      redraw();
    });
  }
}

function drawWindow() {
  const { width, level } = state.look;
  byId("width").value = String(width);
  byId("level").value = String(level);
  [...byId("presets").children].forEach((button, i) => {
    const chosen = WINDOWS[i][1] === width && WINDOWS[i][2] === level;
    button.setAttribute("aria-pressed", String(chosen));
  });
}

// Percentiles near 100 need room: each third of the slider has a tenth of what is above it.
const percentileOfSlider = (part) => 100 * (1 - 10 ** (-4 * part));
const sliderOfPercentile = (value) => Math.min(-Math.log10(Math.max(1 - value / 100, 1e-4)) / 4, 1);

function buildMap() {
  const { facts, look } = state;
  const inPercent = () => byId("unit").value === "percentile";
  byId("threshold").addEventListener("input", () => {
    const part = Number(byId("threshold").value) / 1000;
    const threshold = inPercent()
      ? scoreOfPercentile(facts, percentileOfSlider(part))
      : facts.low + part * (facts.high - facts.low);
    changeLook({ threshold });
  });
  byId("unit").options[0].textContent = facts.unit || "score";
  byId("unit").addEventListener("change", redraw);
  byId("opacity").addEventListener("input", () =>
    changeLook({ opacity: Number(byId("opacity").value) / 100 }),
  );
  for (const name of Object.keys(facts.palettes)) byId("palette").append(new Option(name, name));
  byId("palette").addEventListener("change", () => changeLook({ palette: byId("palette").value }));
  for (const [id, key] of SWITCHES) {
    byId(id).addEventListener("change", () => changeLook({ [key]: byId(id).checked }));
  }
  for (const tool of document.querySelectorAll("[name=tool]")) {
    tool.checked = tool.value === state.tool;
    tool.addEventListener("change", () => (state.tool = tool.value));
  }
  if (!state.labels) byId("show-outlines").parentElement.hidden = true;
  look.threshold = facts.threshold;
  look.palette = byId("palette").value = facts.palette;
  const noun = facts.picture ? "picture" : "scan";
  byId("reference").textContent = facts.ranked
    ? `Percentiles are those of the bodies in held-out ${noun}s.`
    : `Percentiles are those of the body in this ${noun}, so some place is always the highest.`;
}

const SWITCHES = [["show-map", "showMap"], ["show-outlines", "showOutlines"], ["show-cross", "showCross"]];

function drawMapControls() {
  const { facts, look } = state;
  const rank = percentileOf(facts, look.threshold);
  const part = byId("unit").value === "percentile"
    ? sliderOfPercentile(rank)
    : (look.threshold - facts.low) / (facts.high - facts.low);
  // The slider keeps its place while it is moved: ranks of several places may be equal.
  if (document.activeElement !== byId("threshold")) byId("threshold").value = String(Math.round(1000 * part));
  byId("threshold-text").textContent = `${withUnit(look.threshold)}, ${percent(rank)}`;
  byId("opacity").value = String(Math.round(100 * look.opacity));
  byId("opacity-text").textContent = `${Math.round(100 * look.opacity)} %`;
  for (const [id, key] of SWITCHES) byId(id).checked = look[key];
  document.body.dataset.threshold = String(look.threshold);
  drawAbove();
  drawBar();
}

/** How much of the body lies above the threshold. */
function drawAbove() {
  const { facts, look } = state;
  let [above, body] = [0, 0];
  for (let code = 1; code < 256; code++) {
    body += state.counts[code];
    if (scoreOfCode(facts, code) >= look.threshold) above += state.counts[code];
  }
  const area = above * facts.spacing[0] * facts.spacing[1];
  const ml = (area * facts.spacing[2]) / 1000;
  const size = facts.picture ? `${area.toFixed(0)} px` : `${ml.toFixed(ml < 10 ? 1 : 0)} ml`;
  byId("above").textContent = `above: ${size}, ${((100 * above) / body).toFixed(2)} % of the body`;
}

/** The colours over their scores; what the threshold hides is dim. */
function drawBar() {
  const { facts, look } = state;
  const [low, high] = facts.colours;
  const canvas = byId("bar");
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  for (let x = 0; x < canvas.width; x++) {
    const place = x / (canvas.width - 1);
    const [r, g, b] = paletteColour(look.palette, place);
    const shown = low + place * (high - low) >= look.threshold;
    context.fillStyle = `rgba(${r}, ${g}, ${b}, ${shown ? 1 : 0.22})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
  const mark = ((look.threshold - low) / (high - low)) * canvas.width;
  context.fillStyle = "#fff";
  if (mark >= 0 && mark <= canvas.width) context.fillRect(mark - 1, 0, 3, canvas.height);
  byId("bar-low").textContent = withUnit(low);
  byId("bar-high").textContent = `${withUnit(high)} and more`;
}
