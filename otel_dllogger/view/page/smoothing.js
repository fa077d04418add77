"use strict";
// The smoothing of a curve: an exponential moving average with a half-life on the axis.

/**
 * Smooth values whose places may be far apart: a value counts for as long as the axis to the one
 * before it, so that the same curve with fewer places looks the same. The average is debiased: it
 * begins at the first value instead of at 0.
 * @param {number[]} places Ascending.
 * @param {(number | null | undefined)[]} values null and undefined stay what they are.
 * @param {number} halfLife In units of the axis; 0 for none.
 * @returns {(number | null | undefined)[]}
 */
function smooth(places, values, halfLife) {
  if (!(halfLife > 0)) {
    return values;
  }
  let total = 0;
  let weight = 0;
  let before = firstLength(places, values);
  return values.map((value, index) => {
    if (value === null || value === undefined) {
      return value;
    }
    const place = places[index];
    const kept = 0.5 ** ((place - before) / halfLife);
    before = place;
    total = kept * total + (1 - kept) * value;
    weight = kept * weight + (1 - kept);
    return weight > 0 ? total / weight : value;
  });
}

/**
 * Return a place before the first value, as far from it as the second one is.
 * @param {number[]} places
 * @param {(number | null | undefined)[]} values
 */
function firstLength(places, values) {
  const known = places.filter((_, index) => typeof values[index] === "number");
  return known.length > 1 ? 2 * known[0] - known[1] : (known[0] ?? 0) - 1;
}
