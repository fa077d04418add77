"use strict";
// How lines look: eight colours that colour-blind people can tell apart (chart.css), then dashes.

const COLOURS = 8;

/** In CSS pixels; each eight lines have the next one. */
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

/** On paper without colours, each line has a dash of its own. */
const PRINTED_DASHES = [[], [8, 3], [2, 2], [8, 3, 2, 3], [14, 4], [4, 4], [1, 4], [14, 3, 2, 3, 2, 3]];

/** Of steps that were done again later. */
const REDONE_DASH = [3, 4];

/** @param {number} order Of the line in the view. */
function colourName(order) {
  return `--line-${(order % COLOURS) + 1}`;
}

/**
 * @param {number} order Of the line in the view.
 * @param {boolean} isPrinted
 * @returns {number[]}
 */
function dashOf(order, isPrinted) {
  if (isPrinted) {
    return PRINTED_DASHES[order % PRINTED_DASHES.length];
  }
  return DASHES[Math.floor(order / COLOURS) % DASHES.length];
}

/**
 * The colours of an element, as a canvas takes them.
 * @param {HTMLElement} element
 * @returns {(name: string) => string}
 */
function readColours(element) {
  const style = getComputedStyle(element);
  /** @type {Map<string, string>} */
  const known = new Map();
  return (name) => {
    let colour = known.get(name);
    if (colour === undefined) {
      colour = style.getPropertyValue(name).trim() || "#888";
      known.set(name, colour);
    }
    return colour;
  };
}
