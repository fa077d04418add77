"use strict";
// The axis of values: linear, log10 while all values are positive, or asinh where some are not.

/** @typedef {{kind: "linear" | "log" | "asinh", threshold: number, words: string}} ValueScale */

/**
 * Choose the scale of values.
 * @param {Iterable<(number | null | undefined)[]>} columns All that is drawn.
 * @param {boolean} isLog
 * @returns {ValueScale}
 */
function chooseScale(columns, isLog) {
  if (!isLog) {
    return { kind: "linear", threshold: 1, words: "" };
  }
  let least = Infinity;
  let size = 0;
  for (const column of columns) {
    for (const value of column) {
      if (value !== null && value !== undefined) {
        least = Math.min(least, value);
        size = Math.max(size, Math.abs(value));
      }
    }
  }
  if (least > 0) {
    return { kind: "log", threshold: 1, words: "log" };
  }
  // Linear within a thousandth of the greatest value, logarithmic beyond.
  const threshold = size > 0 ? 10 ** (Math.floor(Math.log10(size)) - 3) : 1;
  return { kind: "asinh", threshold, words: "asinh, since some values are not positive" };
}

/**
 * Return the range of an axis for what is drawn; there always is one.
 * @param {ValueScale} scale
 * @param {number | null} least null if nothing is drawn.
 * @param {number | null} greatest
 * @returns {[number, number]}
 */
function valueRange(scale, least, greatest) {
  if (least === null || greatest === null || !Number.isFinite(least) || !Number.isFinite(greatest)) {
    return scale.kind === "log" ? [0.1, 1] : [0, 1];
  }
  if (scale.kind === "log") {
    const room = Math.max(Math.log10(greatest / least) * 0.06, 0.02);
    return [least / 10 ** room, greatest * 10 ** room];
  }
  if (scale.kind === "asinh") {
    const low = Math.asinh(least / scale.threshold);
    const high = Math.asinh(greatest / scale.threshold);
    const room = Math.max((high - low) * 0.06, 0.1);
    return [
      Math.sinh(low - room) * scale.threshold,
      Math.sinh(high + room) * scale.threshold,
    ];
  }
  const span = greatest - least;
  const room = span > 0 ? span * 0.06 : Math.abs(least) * 0.1 || 1;
  // Not below 0 for what never is: a loss, a time.
  return [least >= 0 && least - room < 0 ? 0 : least - room, greatest + room];
}

/**
 * Return the ticks of an axis of values, most of them at round numbers.
 * @param {ValueScale} scale
 * @param {number} low
 * @param {number} high
 * @param {number} most
 * @returns {number[]}
 */
function valueTicks(scale, low, high, most) {
  if (scale.kind === "linear" || (scale.kind === "log" && high / low < 5)) {
    return linearTicks(low, high, most);
  }
  if (scale.kind === "log") {
    return logTicks(low, high, most);
  }
  const { threshold } = scale;
  const above = high > threshold ? logTicks(Math.max(low, threshold), high, most / 2) : [];
  const below = low < -threshold ? logTicks(Math.max(-high, threshold), -low, most / 2) : [];
  return [...below.map((tick) => -tick).reverse(), ...(low <= 0 && high >= 0 ? [0] : []), ...above];
}

/**
 * @param {number} low
 * @param {number} high
 * @param {number} most
 */
function linearTicks(low, high, most) {
  const least = (high - low) / Math.max(most, 1);
  const power = 10 ** Math.floor(Math.log10(least));
  const step = power * ([1, 2, 2.5, 5].find((factor) => factor * power >= least) ?? 10);
  const ticks = [];
  for (let count = Math.ceil(low / step); count * step <= high && ticks.length <= 50; count += 1) {
    ticks.push(Number((count * step).toPrecision(12)));
  }
  return ticks;
}

/**
 * @param {number} low Positive.
 * @param {number} high
 * @param {number} most
 */
function logTicks(low, high, most) {
  const first = Math.floor(Math.log10(low));
  const last = Math.ceil(Math.log10(high));
  const decades = last - first;
  const factors = decades <= 2 ? [1, 2, 5] : [1];
  const stride = Math.max(Math.ceil(decades / Math.max(most, 1)), 1);
  const ticks = [];
  for (let power = Math.ceil(first / stride) * stride; power <= last; power += stride) {
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(12));
      if (tick >= low && tick <= high) {
        ticks.push(tick);
      }
    }
  }
  return ticks;
}

/**
 * Return the range of an axis of places; there always is one.
 * @param {number | null} low null if there is no place.
 * @param {number | null} high
 * @returns {[number, number]}
 */
function placeRange(low, high) {
  if (low === null || high === null || !Number.isFinite(low) || !Number.isFinite(high)) {
    return [0, 1];
  }
  return low < high ? [low, high] : [low - 0.5, high + 0.5];
}

const TIME_STEPS_S = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800,
  604800, 1209600, 2592000, 7776000, 31536000,
];

/**
 * Return the ticks of an axis of places.
 * @param {string} axis
 * @param {number} low
 * @param {number} high
 * @param {number} most
 * @returns {number[]}
 */
function placeTicks(axis, low, high, most) {
  const least = (high - low) / Math.max(most, 1);
  if (axis === "step" || axis === "epoch" || least <= 1) {
    return linearTicks(low, high, most);
  }
  const step = TIME_STEPS_S.find((length) => length >= least) ?? 31536000;
  // Days and hours of a clock begin with those of the place where it hangs.
  const shift = axis === "wall" ? new Date(low * 1000).getTimezoneOffset() * 60 : 0;
  const ticks = [];
  for (let tick = Math.ceil((low - shift) / step) * step + shift; tick <= high; tick += step) {
    ticks.push(tick);
  }
  return ticks;
}

/**
 * Return the labels of ticks on an axis of places.
 * @param {string} axis
 * @param {number[]} ticks
 * @returns {string[]}
 */
function placeLabels(axis, ticks) {
  if (axis === "relative" || axis === "process") {
    return ticks.map(formatSeconds);
  }
  if (axis !== "wall") {
    return ticks.map((tick) => formatNumber(tick, 6));
  }
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 60;
  return ticks.map((tick, index) => {
    const [day, clock] = new Date(tick * 1000).toLocaleString("sv-SE").split(" ");
    if (step >= 86400) {
      return day;
    }
    const isOtherDay =
      index > 0 && new Date(ticks[index - 1] * 1000).getDate() !== new Date(tick * 1000).getDate();
    return isOtherDay ? day.slice(5) : clock.slice(0, step < 60 ? 8 : 5);
  });
}
