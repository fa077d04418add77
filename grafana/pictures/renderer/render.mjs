// Render dashboards in a headless Chromium: node render.mjs CHROMIUM FOLDER BOARD.json...
//
// Writes FOLDER/BOARD.png for each that has no errors. The exit status is 1 if the page logs an error, throws one, or
// asks for a file that it is not given: the browser has no network.

import { readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';
import { chromium } from 'playwright-core';
import UPNG from 'upng-js';

const HERE = fileURLToPath(new URL('.', import.meta.url));
const ORIGIN = 'http://pictures.invalid';
// Taller than any dashboard: tables draw only the rows that are on the screen.
const VIEWPORT = { width: 1600, height: 10_000 };
const DRAWN_WITHIN_MS = 120_000;
const HTML = `<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/page.css">
<script>window.grafanaBootData = { settings: { featureToggles: {} } };</script>
<body><script type="module" src="/page.js"></script>`;

// Where Grafana's components look for icons and fonts.
const FOLDERS = {
  '/public/build/img/icons/': 'node_modules/@grafana/ui/dist/public/img/icons/',
  '/public/fonts/inter/': 'node_modules/inter-ui/web/',
};
const MONOSPACE = 'node_modules/@fontsource/roboto-mono/files/roboto-mono-latin-400-normal.woff2';

/** @returns {Promise<Map<string, string>>} The files of the page, by their paths. */
async function bundle() {
  const { outputFiles } = await build({
    entryPoints: [join(HERE, 'page.tsx')],
    outdir: HERE,
    bundle: true,
    write: false,
    format: 'esm',
    jsx: 'automatic',
    minify: true,
    define: { 'process.env.NODE_ENV': '"production"' },
    loader: { '.ttf': 'dataurl', '.svg': 'dataurl', '.png': 'dataurl' },
    logLevel: 'error',
  });
  const files = new Map([['/', HTML]]);
  for (const { path, text } of outputFiles) {
    files.set(`/${basename(path)}`, text);
  }
  return files;
}

/** @param {Map<string, string>} files @param {string} path */
async function find(files, path) {
  const known = files.get(path);
  if (path.startsWith('/public/fonts/roboto/')) {
    return readFile(join(HERE, MONOSPACE));
  }
  const folder = Object.entries(FOLDERS).find(([prefix]) => path.startsWith(prefix));
  return known ?? (folder && readFile(join(HERE, folder[1], path.slice(folder[0].length))));
}

/** @param {Buffer} picture @returns {Buffer} The same PNG in 256 colours, a third of the size. */
function shrink(picture) {
  const image = UPNG.decode(new Uint8Array(picture).buffer);
  return Buffer.from(UPNG.encode(UPNG.toRGBA8(image), image.width, image.height, 256));
}

/**
 * @param {import('playwright-core').BrowserContext} context
 * @param {Map<string, string>} files
 * @param {unknown} board
 * @param {string} picture
 * @returns {Promise<string[]>} What went wrong.
 */
async function render(context, files, board, picture) {
  /** @type {string[]} */
  const errors = [];
  const page = await context.newPage();
  page.on('pageerror', (error) => errors.push(String(error.stack)));
  page.on('console', (message) => message.type() === 'error' && errors.push(message.text()));
  await page.route('**', async (route) => {
    const url = new URL(route.request().url());
    const body = url.origin === ORIGIN ? await find(files, url.pathname).catch(() => null) : null;
    const extension = url.pathname.match(/\.\w+$/)?.[0] ?? '';
    /** @type {Record<string, string>} */
    const types = { '': 'text/html', '.js': 'text/javascript', '.css': 'text/css' };
    const contentType = types[extension] ?? (extension === '.svg' ? 'image/svg+xml' : 'font/woff2');
    await (body ? route.fulfill({ body, contentType }) : route.fulfill({ status: 404 }));
  });
  await page.addInitScript((data) => Object.assign(window, { board: data }), board);
  const failed = page.waitForEvent('pageerror', { timeout: 0 }).catch(() => null);
  await page.goto(ORIGIN);
  const drawn = page.waitForFunction(() => 'isDrawn' in window, null, { timeout: DRAWN_WITHIN_MS });
  await Promise.race([drawn, failed]);
  if (errors.length === 0) {
    await writeFile(picture, shrink(await page.locator('.board').screenshot()));
  }
  await page.close();
  return errors;
}

const [program, folder, ...paths] = process.argv.slice(2);
const files = await bundle();
const browser = await chromium.launch({
  executablePath: program,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
  ],
});
const context = await browser.newContext({
  viewport: VIEWPORT,
  timezoneId: 'UTC',
  reducedMotion: 'reduce',
});
for (const path of paths) {
  const name = basename(path, '.json');
  const board = JSON.parse(await readFile(path, 'utf8'));
  for (const error of await render(context, files, board, join(folder, `${name}.png`))) {
    console.error(`${name}: ${error}`);
    process.exitCode = 1;
  }
}
await browser.close();
