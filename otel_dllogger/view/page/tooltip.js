"use strict";
// What the cursor of a chart reads: as a box beside it, and in words for screen readers.

const ROWS = 8;
const NEAR_PLACES = 8;

/** @typedef {{line: DrawnLine, value: number, distance: number}} Reading */

/**
 * @typedef {object} Readings
 * @property {string} place
 * @property {Reading[]} rows The lines, the greatest value first.
 * @property {Reading | null} nearest The line nearest to the cursor.
 * @property {{words: string, value: string}[]} extremes Median and extremes of all ranks.
 * @property {string[]} notes NaN, restarts and events.
 */

/**
 * Read what is at a place.
 * @param {ChartCurves} curves
 * @param {Drawing} drawing
 * @param {number} index Of the place.
 * @param {(value: number) => number} distance Of a value to the cursor, in pixels.
 * @param {[number, number]} near The part of the axis whose marks are near.
 * @returns {Readings}
 */
function readCurves(curves, drawing, index, distance, near) {
  /** @type {Reading[]} */
  const rows = [];
  for (const line of drawing.lines) {
    const value = valueNear(line.shown, index);
    if (value !== null) {
      rows.push({ line, value, distance: distance(value) });
    }
  }
  rows.sort((one, other) => other.value - one.value);
  /** @type {Reading | null} */
  let nearest = null;
  for (const row of rows) {
    if (nearest === null || row.distance < nearest.distance) {
      nearest = row;
    }
  }
  const extremes = [];
  for (const band of curves.bands) {
    if (band.ranks > 1 && band.median[index] !== null) {
      const run = curves.bands.length > 1 ? `${band.run} · ` : "";
      extremes.push({
        words: `${run}median of ${band.ranks}`,
        value: formatNumber(band.median[index]),
      });
      extremes.push({
        words: `${run}least to greatest`,
        value: `${formatNumber(band.least[index])} to ${formatNumber(band.greatest[index])}`,
      });
    }
  }
  const notes = [];
  for (const line of curves.lines) {
    const count = line.nonfinite.find(([at]) => at === index)?.[1];
    if (count && notes.length < ROWS) {
      notes.push(`rank ${line.rank}: NaN or infinite${count > 1 ? `, ${count} times` : ""}`);
    }
  }
  for (const mark of curves.marks) {
    if (mark.x >= near[0] && mark.x <= near[1] && notes.length < ROWS) {
      notes.push(mark.words);
    }
  }
  return { place: placeWords(curves, index), rows, nearest, extremes, notes };
}

/**
 * @param {ChartCurves} curves
 * @param {number} index
 */
function placeWords(curves, index) {
  const place = formatPlace(curves.axis, curves.places[index]);
  return curves.is_exact ? place : `from ${place}`;
}

/**
 * Return a line's value at a place, or at one close to it: ranks log different steps.
 * @param {Column} column
 * @param {number} index
 */
function valueNear(column, index) {
  for (let far = 0; far <= NEAR_PLACES; far += 1) {
    for (const at of [index - far, index + far]) {
      const value = column[at];
      if (value === null) {
        return null;
      }
      if (value !== undefined) {
        return value;
      }
    }
  }
  return null;
}

/**
 * Fill a tooltip.
 * @param {HTMLElement} box
 * @param {Readings} readings
 */
function showReadings(box, readings) {
  const { rows, nearest } = readings;
  let chosen = rows;
  if (rows.length > ROWS) {
    const at = nearest ? rows.indexOf(nearest) : 0;
    const from = Math.min(Math.max(at - 2, 0), rows.length - 5);
    chosen = rows.slice(from, from + 5);
  }
  const list = chosen.map((row) => {
    const item = tooltipRow(row.line.words, formatNumber(row.value));
    item.prepend(makeSwatch(row.line.order));
    item.classList.toggle("is-nearest", row === nearest);
    return item;
  });
  const rest = rows.length - chosen.length;
  if (rest) {
    list.push(tooltipRow(`and ${rest} more`, ""));
  }
  const extremes = readings.extremes.map(({ words, value }) => tooltipRow(words, value));
  const notes = readings.notes.map((words) => {
    const item = tooltipRow(words, "");
    item.classList.add("is-note");
    return item;
  });
  const head = document.createElement("div");
  head.className = "chart-tip-place";
  head.textContent = readings.place;
  box.replaceChildren(head, ...list, ...extremes, ...notes);
}

/**
 * @param {string} words
 * @param {string} value
 */
function tooltipRow(words, value) {
  const item = document.createElement("div");
  item.className = "chart-tip-row";
  const name = document.createElement("span");
  name.className = "chart-tip-name";
  name.textContent = words;
  const number = document.createElement("span");
  number.className = "chart-tip-value";
  number.textContent = value;
  item.append(name, number);
  return item;
}

/**
 * Return a sample of a line: its colour and dash.
 * @param {number} order
 */
function makeSwatch(order) {
  const swatch = document.createElement("span");
  swatch.className = "chart-swatch";
  swatch.style.borderTopColor = `var(${colourName(order)})`;
  swatch.style.borderTopStyle = order < COLOURS ? "solid" : "dashed";
  return swatch;
}

/**
 * Return what a screen reader says.
 * @param {Readings} readings
 */
function readingsInWords({ place, rows, extremes, notes }) {
  const values =
    rows.length > ROWS ? [] : rows.map(({ line, value }) => `${line.words} ${formatNumber(value)}`);
  const summary = extremes.map(({ words, value }) => `${words} ${value}`);
  return [place, ...values, ...summary, ...notes].join("; ");
}
