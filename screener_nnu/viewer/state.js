// What is shown, and who draws it anew when it changes.

const state = {
  facts: null, // written into the page: sizes, scales, percentiles, findings
  hu: null, // codes of the scan or the grey picture, or of red
  green: null, // of an RGB picture alone, as blue
  blue: null,
  score: null,
  labels: null, // numbers of findings, or null
  position: [0, 0, 0], // voxel (x, y, z) that all three planes go through
  finding: null, // number of the finding that was jumped to
  tool: "cross",
  look: {
    width: 400,
    level: 40,
    showMap: true,
    showOutlines: true,
    showCross: true,
    opacity: 0.6,
    threshold: 0,
    palette: "fire",
  },
};

const WINDOWS = [
  ["soft tissue", 400, 40],
  ["lung", 1500, -600],
  ["bone", 2000, 400],
  ["brain", 80, 40],
];

const WINDOW_LIMITS = { widest: 5000, lowest: -2000, highest: 3000 };

const listeners = [];
let asked = false;

/** Draws once before the next frame, however often it is asked for. */
function redraw() {
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    for (const draw of listeners) draw();
  });
}

function changeLook(change) {
  Object.assign(state.look, change);
  redraw();
}

function setWindow(width, level) {
  const { widest, lowest, highest } = WINDOW_LIMITS;
  changeLook({
    width: Math.round(Math.min(Math.max(width, 1), widest)),
    level: Math.round(Math.min(Math.max(level, lowest), highest)),
  });
}

/** A picture is one slice, with values of its own in place of HU. */
function becomePicture() {
  const { levels, window: whole } = state.facts;
  document.body.dataset.kind = "picture";
  delete PLANES.coronal;
  delete PLANES.sagittal;
  WINDOWS.splice(0, WINDOWS.length, ["all values", ...whole.map(Math.round)]);
  Object.assign(WINDOW_LIMITS, {
    widest: 2 * WINDOWS[0][1], lowest: levels[0], highest: levels[levels.length - 1],
  });
  [state.look.width, state.look.level] = WINDOWS[0].slice(1);
}

function moveTo(position) {
  const { size } = state.facts;
  state.position = position.map((p, axis) => Math.min(Math.max(Math.round(p), 0), size[axis] - 1));
  redraw();
}

function voxelAt(position) {
  const { size } = state.facts;
  return position[0] + size[0] * (position[1] + size[1] * position[2]);
}

/** Place in the patient (mm, LPS) of a voxel. */
function placeOf(position) {
  const { origin, direction, spacing } = state.facts;
  const step = position.map((p, axis) => p * spacing[axis]);
  return origin.map(
    (o, row) => o + step.reduce((sum, s, axis) => sum + direction[3 * row + axis] * s, 0),
  );
}

function jumpToFinding(row) {
  state.finding = row.number;
  moveTo(row.voxel);
}

/** The next (1) or previous (-1) finding in the list. */
function stepFinding(step) {
  const rows = state.facts.findings || [];
  if (!rows.length) return moveTo(state.facts.peak);
  const at = rows.findIndex((row) => row.number === state.finding);
  const next = at < 0 ? (step > 0 ? 0 : rows.length - 1) : (at + step + rows.length) % rows.length;
  jumpToFinding(rows[next]);
}
