"use strict";
// Elements of the page. All text is set as text: names and parameters may hold anything.

/**
 * Make an element.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) {
    element.className = className;
  }
  element.append(...children);
  return element;
}

/**
 * Find an element of the page.
 * @template {HTMLElement} [Kind=HTMLElement]
 * @param {string} id
 * @returns {Kind}
 */
function byId(id) {
  return /** @type {Kind} */ (document.getElementById(id));
}

/**
 * Set a text, unless it is there already: that would end a selection.
 * @param {Element} element
 * @param {string} text
 */
function setText(element, text) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

const STATE_SIGNS = new Map([
  ["training", "●"],
  ["starting", "◌"],
  ["quiet", "◐"],
  ["stalled", "■"],
  ["vanished", "✕"],
  ["unfinished", "○"],
  ["terminated", "◼"],
  ["finished", "✓"],
]);

/**
 * Show a state: by its word, a sign and a colour.
 * @param {HTMLElement} element
 * @param {string} state
 * @param {string} [words] What is shown of it, by default its word.
 */
function showState(element, state, words = state) {
  element.dataset.state = state;
  setText(element, `${STATE_SIGNS.get(state) ?? "●"} ${words}`);
}

const SVG = "http://www.w3.org/2000/svg";
const SPARK_WIDTH = 84;
const SPARK_HEIGHT = 16;

/**
 * Return an element for a sparkline.
 * @returns {SVGSVGElement}
 */
function makeSpark() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("class", "spark");
  svg.setAttribute("viewBox", `0 0 ${SPARK_WIDTH} ${SPARK_HEIGHT}`);
  svg.setAttribute("aria-hidden", "true");
  svg.append(document.createElementNS(SVG, "path"));
  return svg;
}

/**
 * Draw values as a small line.
 * @param {SVGSVGElement} svg
 * @param {(number | null)[]} values
 * @param {[number, number]} range The same for all ranks, so that they can be compared.
 */
function drawSpark(svg, values, [low, high]) {
  const dx = SPARK_WIDTH / Math.max(values.length - 1, 1);
  const scale = high > low ? (SPARK_HEIGHT - 3) / (high - low) : 0;
  let path = "";
  let isDrawing = false;
  values.forEach((value, index) => {
    if (value === null) {
      isDrawing = false;
      return;
    }
    const y = scale ? SPARK_HEIGHT - 1.5 - (value - low) * scale : SPARK_HEIGHT / 2;
    path += `${isDrawing ? "L" : "M"}${(index * dx).toFixed(1)} ${y.toFixed(1)}`;
    isDrawing = true;
  });
  svg.firstElementChild?.setAttribute("d", path);
}
