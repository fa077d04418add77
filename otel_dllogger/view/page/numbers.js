"use strict";
// How values and places on an axis are written.

const INTEGERS = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/**
 * Write a value with as many digits as help to compare it with others.
 * @param {number | null | undefined} value
 * @param {number} [digits]
 */
function formatNumber(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) {
    return "–";
  }
  const size = Math.abs(value);
  if (value !== 0 && (size < 1e-4 || size >= 1e9)) {
    return value.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  if (size >= 10 ** digits) {
    return INTEGERS.format(value);
  }
  return String(Number(value.toPrecision(digits)));
}

/**
 * Write seconds as people say them, in two units at most.
 * @param {number} seconds
 */
function formatSeconds(seconds) {
  const size = Math.abs(seconds);
  const sign = seconds < 0 ? "-" : "";
  if (size < 60) {
    return `${sign}${Number(size.toPrecision(3))} s`;
  }
  /** @type {[number, string, number, string][]} */
  const units = [
    [86400, "d", 3600, "h"],
    [3600, "h", 60, "min"],
    [60, "min", 1, "s"],
  ];
  for (const [length, name, lesserLength, lesserName] of units) {
    if (size >= length) {
      const whole = Math.floor(size / length);
      const rest = Math.floor((size - whole * length) / lesserLength);
      return `${sign}${whole} ${name}${rest ? ` ${rest} ${lesserName}` : ""}`;
    }
  }
  return "";
}

/**
 * Write a place on an axis.
 * @param {string} axis
 * @param {number} place
 */
function formatPlace(axis, place) {
  if (axis === "wall") {
    return new Date(place * 1000).toLocaleString("sv-SE");
  }
  if (axis === "relative" || axis === "process") {
    return formatSeconds(place);
  }
  return axis === "epoch" ? `epoch ${formatNumber(place)}` : `step ${INTEGERS.format(place)}`;
}
