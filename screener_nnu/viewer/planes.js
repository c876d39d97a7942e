// The three planes: slices of the volumes, in radiological convention, with the right sizes in mm.

// across, down: axes of the picture; through: the axis that is scrolled. Where `up` is true the
// picture's lower rows are lower voxels, so that the head is on top. Scrolling forward goes to the
// feet, to the back and to the patient's left, as `forward` says for the axis.
const PLANES = {
  axial: { across: 0, down: 1, through: 2, up: false, forward: -1, letters: "RLAP" },
  coronal: { across: 0, down: 2, through: 1, up: true, forward: 1, letters: "RLHF" },
  sagittal: { across: 1, down: 2, through: 0, up: true, forward: 1, letters: "APHF" },
};

const views = {}; // by plane: { canvas, slider, text, buffer, box }

/** Index of the voxel at column u and row v of a plane's picture. */
function rowStart(plane, v) {
  const { size } = state.facts;
  const place = [0, 0, 0];
  place[plane.through] = state.position[plane.through];
  place[plane.down] = plane.up ? size[plane.down] - 1 - v : v;
  return voxelAt(place);
}

function strideOf(axis) {
  const { size } = state.facts;
  return axis === 0 ? 1 : axis === 1 ? size[0] : size[0] * size[1];
}

/** One pixel a voxel: HU in grey, or a picture in its colours, with the map over it. */
function paintSlice(plane, buffer, grey, colours) {
  const { size } = state.facts;
  const columns = size[plane.across];
  const rows = size[plane.down];
  const context = buffer.getContext("2d");
  const picture = context.createImageData(columns, rows);
  const pixels = picture.data;
  const stride = strideOf(plane.across);
  const channels = [state.hu, state.green || state.hu, state.blue || state.hu];
  let at = 0;
  for (let v = 0; v < rows; v++) {
    let voxel = rowStart(plane, v);
    for (let u = 0; u < columns; u++, voxel += stride) {
      const colour = 4 * state.score[voxel];
      const part = colours[colour + 3];
      for (let c = 0; c < 3; c++) {
        const base = grey[channels[c][voxel]];
        pixels[at++] = base + part * (colours[colour + c] - base);
      }
      pixels[at++] = 255;
    }
  }
  context.putImageData(picture, 0, 0);
}

/** Where the slice lies in the canvas (pixels): centred, as large as fits, mm equally long. */
function fitBox(plane, canvas) {
  const { size, spacing } = state.facts;
  const width = size[plane.across] * spacing[plane.across];
  const height = size[plane.down] * spacing[plane.down];
  const scale = Math.min(canvas.width / width, canvas.height / height);
  const box = { width: width * scale, height: height * scale, scale };
  box.left = (canvas.width - box.width) / 2;
  box.top = (canvas.height - box.height) / 2;
  return box;
}

function drawPlane(name, grey, colours) {
  const plane = PLANES[name];
  const view = views[name];
  const ratio = window.devicePixelRatio || 1;
  const width = Math.round(view.canvas.clientWidth * ratio);
  const height = Math.round(view.canvas.clientHeight * ratio);
  if (!width || !height) return; // not shown
  if (view.canvas.width !== width || view.canvas.height !== height) {
    view.canvas.width = width;
    view.canvas.height = height;
  }
  const context = view.canvas.getContext("2d");
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  const box = (view.box = fitBox(plane, view.canvas));
  paintSlice(plane, view.buffer, grey, colours);
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = "high";
  context.drawImage(view.buffer, box.left, box.top, box.width, box.height);
  if (state.labels && state.look.showOutlines) drawOutlines(context, plane, box, ratio);
  if (state.look.showCross) drawCross(context, plane, box, ratio);
  if (state.facts.picture) return; // nothing says how it lies, or how large it is
  drawLetters(context, plane, ratio);
  drawRuler(context, box, ratio);
}

function letterFont(context, ratio, size = 13) {
  context.font = `600 ${size * ratio}px system-ui, sans-serif`;
  context.lineWidth = 3 * ratio;
  context.strokeStyle = "rgba(0, 0, 0, 0.8)";
}

function outlinedText(context, text, x, y) {
  context.strokeText(text, x, y);
  context.fillText(text, x, y);
}

function drawLetters(context, plane, ratio) {
  const { width, height } = context.canvas;
  const [left, right, top, bottom] = plane.letters;
  const margin = 6 * ratio;
  letterFont(context, ratio);
  context.fillStyle = "#e8c66a";
  context.textBaseline = "middle";
  context.textAlign = "left";
  outlinedText(context, left, margin, height / 2);
  context.textAlign = "right";
  outlinedText(context, right, width - margin, height / 2);
  context.textAlign = "center";
  context.textBaseline = "top";
  outlinedText(context, top, width / 2, margin);
  context.textBaseline = "bottom";
  outlinedText(context, bottom, width / 2, height - margin);
}

/** A bar of 5 cm, or of 1 cm where that would be too long. */
function drawRuler(context, box, ratio) {
  const length = box.scale * 50 < context.canvas.width / 3 ? 50 : 10;
  const right = context.canvas.width - 10 * ratio;
  const y = context.canvas.height - 12 * ratio;
  letterFont(context, ratio, 11);
  context.fillStyle = "#c9d3dc";
  context.fillRect(right - box.scale * length, y, box.scale * length, 2 * ratio);
  context.textAlign = "right";
  context.textBaseline = "bottom";
  outlinedText(context, `${length / 10} cm`, right, y - 3 * ratio);
}

/** Lines where the other planes cut this one, open around the place itself. */
function drawCross(context, plane, box, ratio) {
  const [u, v] = pictureOf(plane, state.position);
  const x = box.left + (u + 0.5) * (box.width / state.facts.size[plane.across]);
  const y = box.top + (v + 0.5) * (box.height / state.facts.size[plane.down]);
  const gap = 12 * ratio;
  context.strokeStyle = "rgba(98, 206, 255, 0.65)";
  context.lineWidth = ratio;
  context.beginPath();
  for (const [x0, y0, x1, y1] of [
    [box.left, y, x - gap, y],
    [x + gap, y, box.left + box.width, y],
    [x, box.top, x, y - gap],
    [x, y + gap, x, box.top + box.height],
  ]) {
    if (x1 < x0 || y1 < y0) continue;
    context.moveTo(x0, y0);
    context.lineTo(x1, y1);
  }
  context.stroke();
}

/** Column and row of a voxel in a plane's picture. */
function pictureOf(plane, position) {
  const v = position[plane.down];
  return [position[plane.across], plane.up ? state.facts.size[plane.down] - 1 - v : v];
}

/** Edges of the findings' voxels, and their numbers. */
function drawOutlines(context, plane, box, ratio) {
  const { size } = state.facts;
  const [columns, rows] = [size[plane.across], size[plane.down]];
  const [stepX, stepY] = [box.width / columns, box.height / rows];
  const stride = strideOf(plane.across);
  const edges = { chosen: new Path2D(), other: new Path2D() };
  const tops = new Map();
  const at = (u, v) =>
    u < 0 || v < 0 || u >= columns || v >= rows ? 0 : state.labels[rowStart(plane, v) + u * stride];
  for (let v = 0; v < rows; v++) {
    for (let u = 0; u < columns; u++) {
      const label = at(u, v);
      if (!label) continue;
      if (!tops.has(label)) tops.set(label, [u, v]);
      const path = label === state.finding ? edges.chosen : edges.other;
      const [x, y] = [box.left + u * stepX, box.top + v * stepY];
      for (const [du, dv, x0, y0, x1, y1] of [
        [-1, 0, 0, 0, 0, stepY],
        [1, 0, stepX, 0, stepX, stepY],
        [0, -1, 0, 0, stepX, 0],
        [0, 1, 0, stepY, stepX, stepY],
      ]) {
        if (at(u + du, v + dv) === label) continue;
        path.moveTo(x + x0, y + y0);
        path.lineTo(x + x1, y + y1);
      }
    }
  }
  for (const [kind, colour] of [["other", "rgba(150, 255, 190, 0.8)"], ["chosen", "#ffffff"]]) {
    context.strokeStyle = colour;
    context.lineWidth = (kind === "chosen" ? 2 : 1.25) * ratio;
    context.lineCap = "square";
    context.stroke(edges[kind]);
  }
  if (box.height < 160 * ratio) return; // numbers would hide what they name
  letterFont(context, ratio, 11);
  context.textAlign = "left";
  context.textBaseline = "bottom";
  for (const [label, [u, v]] of tops) {
    context.fillStyle = label === state.finding ? "#ffffff" : "#96ffbe";
    const y = Math.max(box.top + v * stepY - 2 * ratio, 14 * ratio);
    outlinedText(context, String(label), box.left + u * stepX, y);
  }
}

function drawPlanes() {
  const grey = greyTable(state.facts.levels, state.look.width, state.look.level);
  const colours = colourTable(state.facts, state.look);
  for (const name of Object.keys(PLANES)) drawPlane(name, grey, colours);
}
