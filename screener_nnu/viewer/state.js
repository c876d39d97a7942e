// What is shown, and who draws it anew when it changes.

const state = {
  facts: null, // written into the page: sizes, scales, percentiles, findings
  hu: null,
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
  changeLook({
    width: Math.round(Math.min(Math.max(width, 1), 5000)),
    level: Math.round(Math.min(Math.max(level, -2000), 3000)),
  });
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
