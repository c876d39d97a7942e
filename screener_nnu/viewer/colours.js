// Grey values of HU and colours of scores, as tables of 256 codes.

/** Colour at a place between 0 and 1. */
function paletteColour(name, place) {
  const stops = state.facts.palettes[name];
  const at = Math.min(Math.max(place, 0), 1) * (stops.length - 1);
  const i = Math.min(Math.floor(at), stops.length - 2);
  return stops[i].map((low, c) => Math.round(low + (stops[i + 1][c] - low) * (at - i)));
}

/** Grey of each code of HU in a window. */
function greyTable(levels, width, level) {
  const low = level - width / 2;
  return Uint8ClampedArray.from(levels, (hu) => (255 * (hu - low)) / width);
}

/** Red, green, blue and opacity (0 to 1) of each code of a score; code 0 is outside the body. */
function colourTable(facts, look) {
  const table = new Float32Array(4 * 256);
  if (!look.showMap) return table;
  const [low, high] = facts.colours;
  for (let code = 1; code < 256; code++) {
    const score = scoreOfCode(facts, code);
    if (score < look.threshold) continue;
    const place = Math.min(Math.max((score - low) / (high - low), 0), 1);
    table.set(paletteColour(look.palette, place), 4 * code);
    // Rare places cover more than those just above the threshold.
    table[4 * code + 3] = look.opacity * (facts.least_cover + (1 - facts.least_cover) * place);
  }
  return table;
}

function scoreOfCode(facts, code) {
  return facts.low + ((code - 1) * (facts.high - facts.low)) / 254;
}

/** Percentile of a score, between codes. */
function percentileOf(facts, score) {
  const at = (254 * (score - facts.low)) / (facts.high - facts.low);
  const i = Math.min(Math.max(Math.floor(at), 0), 253);
  const part = Math.min(Math.max(at - i, 0), 1);
  return facts.percentiles[i] + part * (facts.percentiles[i + 1] - facts.percentiles[i]);
}

/** The lowest score with at least that percentile. */
function scoreOfPercentile(facts, percentile) {
  const ranks = facts.percentiles;
  let i = ranks.findIndex((rank) => rank >= percentile);
  if (i < 0) i = 254;
  const below = i > 0 ? ranks[i - 1] : ranks[i];
  const part = ranks[i] > below ? Math.min((ranks[i] - percentile) / (ranks[i] - below), 1) : 0;
  return scoreOfCode(facts, i + 1 - part);
}
