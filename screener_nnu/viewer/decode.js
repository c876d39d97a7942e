"use strict";
// Volumes of the page: base64 -> gzip -> differences of neighbours -> one byte a voxel.
// Axes are numbered x = 0 (to the left), y = 1 (to the back), z = 2 (to the head).

/** Bytes of base64 text, in pieces: one long string would need several times its memory. */
function bytesOfText(text) {
  const clean = text.trim();
  const end = clean.endsWith("==") ? 2 : clean.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array((clean.length / 4) * 3 - end);
  const piece = 1 << 18;
  let at = 0;
  for (let start = 0; start < clean.length; start += piece) {
    const part = atob(clean.slice(start, start + piece));
    for (let i = 0; i < part.length; i++) bytes[at++] = part.charCodeAt(i);
  }
  return bytes;
}

async function unzip(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Turns differences along an axis back into values; bytes wrap around as they did before. */
function addUp(bytes, size, axis) {
  const stride = axis === 0 ? 1 : axis === 1 ? size[0] : size[0] * size[1];
  const block = stride * size[axis];
  for (let start = 0; start < bytes.length; start += block) {
    for (let i = start + stride; i < start + block; i++) bytes[i] += bytes[i - stride];
  }
}

/** The volume in the script element of that name; null when the page has none. */
async function readVolume(name, size, axes) {
  const element = document.getElementById(name);
  const text = element.textContent;
  element.remove();
  if (!text.trim()) return null;
  const bytes = await unzip(bytesOfText(text));
  if (bytes.length !== size[0] * size[1] * size[2]) throw new Error("the page is not complete");
  for (const axis of axes) addUp(bytes, size, axis);
  return bytes;
}
