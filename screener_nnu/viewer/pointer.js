// Wheel, mouse, touch and keys in the planes.

/** Voxel under a pointer, or null beside the slice. */
function voxelUnder(name, event) {
  const plane = PLANES[name];
  const { canvas, box } = views[name];
  const { size } = state.facts;
  if (!box) return null;
  const frame = canvas.getBoundingClientRect();
  const x = ((event.clientX - frame.left) * canvas.width) / frame.width;
  const y = ((event.clientY - frame.top) * canvas.height) / frame.height;
  const u = Math.floor(((x - box.left) / box.width) * size[plane.across]);
  const v = Math.floor(((y - box.top) / box.height) * size[plane.down]);
  if (u < 0 || v < 0 || u >= size[plane.across] || v >= size[plane.down]) return null;
  const position = state.position.slice();
  position[plane.across] = u;
  position[plane.down] = plane.up ? size[plane.down] - 1 - v : v;
  return position;
}

/** Scrolls a plane; forward goes to the feet, to the back, to the patient's left. */
function scrollPlane(name, slices) {
  const plane = PLANES[name];
  const position = state.position.slice();
  position[plane.through] += plane.forward * slices;
  moveTo(position);
}

/** Number of a plane's slice, counted from 1 in the direction of scrolling. */
function sliceNumber(name) {
  const { through, forward } = PLANES[name];
  const index = state.position[through];
  return forward > 0 ? index + 1 : state.facts.size[through] - index;
}

function goToSlice(name, number) {
  scrollPlane(name, number - sliceNumber(name));
}

function listenToPlane(name) {
  const { canvas } = views[name];
  let drag = null;
  let turned = 0;

  canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      // A notch of a wheel is a slice; touch pads send many small steps that add up to one.
      turned += event.deltaMode === 0 ? event.deltaY : 40 * event.deltaY;
      const slices = Math.abs(event.deltaY) >= 100 ? Math.sign(turned) : Math.trunc(turned / 40);
      if (slices) {
        turned = 0;
        scrollPlane(name, slices);
      }
    },
    { passive: false },
  );
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const window_ = event.button === 2 || event.shiftKey;
    drag = {
      id: event.pointerId,
      tool: window_ ? "window" : state.tool,
      x: event.clientX,
      y: event.clientY,
      look: { ...state.look },
      slice: sliceNumber(name),
      far: false,
    };
    if (drag.tool === "cross") moveCross(event);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag && drag.id === event.pointerId) follow(event);
    else readUnder(name, event);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => {
      // A tap is a tap whatever dragging does.
      if (drag && end === "pointerup" && !drag.far && drag.tool === state.tool) moveCross(event);
      drag = null;
    });
  }
  canvas.addEventListener("pointerleave", () => readUnder(name, null));
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { size } = state.facts;
    const slices = {
      ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1, PageDown: 10, PageUp: -10,
      Home: -size[PLANES[name].through], End: size[PLANES[name].through],
    }[event.key];
    if (!slices) return;
    event.preventDefault();
    scrollPlane(name, slices);
  });

  function moveCross(event) {
    const position = voxelUnder(name, event);
    if (position) moveTo(position);
    readUnder(name, event);
  }

  function follow(event) {
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    drag.far = drag.far || Math.hypot(dx, dy) > 4;
    if (drag.tool === "cross") moveCross(event);
    else if (drag.tool === "scroll") {
      // The whole plane is the whole stack, but a slice is never less than three pixels.
      const perSlice = Math.max(canvas.clientHeight / state.facts.size[PLANES[name].through], 3);
      goToSlice(name, drag.slice + Math.round(dy / perSlice));
    } else setWindow(drag.look.width + 2 * dx, drag.look.level + 2 * dy);
  }
}

/** Keys that count wherever the focus is, but in fields. */
function listenToKeys() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input[type=number], select")) return;
    const number = Number(event.key);
    if (number >= 1 && number <= WINDOWS.length) setWindow(...WINDOWS[number - 1].slice(1));
    else if (event.key === "n") stepFinding(1);
    else if (event.key === "p") stepFinding(-1);
    else if (event.key === "o") changeLook({ showMap: !state.look.showMap });
    else if (event.key === "c") changeLook({ showCross: !state.look.showCross });
  });
}
