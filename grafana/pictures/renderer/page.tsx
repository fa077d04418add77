// A dashboard as a page: the value of each variable, then its rows of panels.

import { createTheme, dateTime, ThemeContext, type TimeRange } from '@grafana/data';
import { GlobalStyles, PanelChrome } from '@grafana/ui';
import { type CSSProperties, type ReactNode, useLayoutEffect } from 'react';
import { createRoot } from 'react-dom/client';

import type { Board, Panel, Row } from './board';
import { findMissingTransformation, loadPanel, type PanelData } from './fields';
import { VISUALIZATIONS } from './visualizations';

declare global {
  interface Window {
    board: Board;
    isDrawn?: boolean;
  }
}

// Grafana's grid.
const WIDTH_PX = 1600;
const COLUMNS = 24;
const CELL_PX = 30;
const GAP_PX = 8;
const PADDING_PX = 16;
const MAX_PER_ROW = 4;
const COLUMN_PX = (WIDTH_PX - 2 * PADDING_PX - (COLUMNS - 1) * GAP_PX) / COLUMNS;

const theme = createTheme({ colors: { mode: 'dark' } });

const STYLES = `
  body { background: ${theme.colors.background.canvas}; overflow: auto; }
  .board { box-sizing: border-box; width: ${WIDTH_PX}px; padding: ${PADDING_PX}px; }
  .board h1, .board h2 { margin: ${GAP_PX}px 0; }
  .variables { display: flex; gap: ${PADDING_PX}px; color: ${theme.colors.text.secondary}; }
  .variables b { color: ${theme.colors.text.primary}; font-weight: 500; }
  .panels {
    display: grid; gap: ${GAP_PX}px;
    grid-template-columns: repeat(${COLUMNS}, ${COLUMN_PX}px); grid-auto-rows: ${CELL_PX}px;
  }
  .message {
    height: 100%; display: flex; flex-direction: column; justify-content: center;
    align-items: center; text-align: center; color: ${theme.colors.text.secondary};
  }
`;

function Theme({ children }: { children?: ReactNode }) {
  return (
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <style>{STYLES}</style>
      {children}
    </ThemeContext.Provider>
  );
}

function BoardPage({ board, data }: { board: Board; data: Map<Panel, PanelData> }) {
  useLayoutEffect(() => {
    // Grafana's components draw in effects and timers of their own.
    setTimeout(() => (window.isDrawn = true), 1000);
  }, []);
  const timeRange = makeTimeRange(board);
  return (
    <div className="board">
      <h1>{board.title}</h1>
      <div className="variables">
        {board.variables.map(({ label, text }) => (
          <span key={label}>
            {label} <b>{text || '—'}</b>
          </span>
        ))}
      </div>
      {board.rows.map((row, index) => (
        <section key={index}>
          {row.title && <h2>{row.title}</h2>}
          <RowGrid row={row} data={data} timeRange={timeRange} />
        </section>
      ))}
    </div>
  );
}

interface RowProps {
  row: Row;
  data: Map<Panel, PanelData>;
  timeRange: TimeRange;
}

function RowGrid({ row, data, timeRange }: RowProps) {
  const first = Math.min(...row.panels.map(({ model }) => model.gridPos.y));
  return (
    <div className="panels">
      {row.panels.map((panel, index) => {
        const { columns, style } = place(panel, row, first);
        const width = columns * COLUMN_PX + (columns - 1) * GAP_PX;
        const height = panel.model.gridPos.h * (CELL_PX + GAP_PX) - GAP_PX;
        return (
          <div key={index} style={style}>
            <PanelChrome
              title={panel.title}
              description={panel.model.description}
              displayMode={panel.model.transparent ? 'transparent' : 'default'}
              width={width}
              height={height}
            >
              {(innerWidth, innerHeight) => (
                <Content
                  panel={panel}
                  data={data.get(panel)}
                  timeRange={timeRange}
                  width={innerWidth}
                  height={innerHeight}
                />
              )}
            </PanelChrome>
          </div>
        );
      })}
    </div>
  );
}

interface ContentProps {
  panel: Panel;
  data?: PanelData;
  timeRange: TimeRange;
  width: number;
  height: number;
}

function Content({ panel, data, ...rest }: ContentProps) {
  if (data) {
    const Visualization = VISUALIZATIONS[panel.model.type];
    return <Visualization data={data} options={panel.model.options ?? {}} {...rest} />;
  }
  const series = panel.answers.reduce((sum, { series }) => sum + series.length, 0);
  return (
    <div className="message">
      <p>Only Grafana itself draws this panel: {findMissing(panel)}.</p>
      {panel.answers.length > 0 && <p>Its queries found {series} series.</p>}
    </div>
  );
}

/** Say what Grafana has published no code for. */
function findMissing(panel: Panel): string | undefined {
  if (!(panel.model.type in VISUALIZATIONS)) {
    return `its kind, ${panel.model.type}, is not in @grafana/ui`;
  }
  const transformation = findMissingTransformation(panel);
  return transformation && `its transformation, ${transformation}, is not in @grafana/data`;
}

/** Put a panel where the dashboard has it; the copies of a repeated one stand side by side. */
function place(panel: Panel, row: Row, first: number): { columns: number; style: CSSProperties } {
  const { x, y, w, h } = panel.model.gridPos;
  if (!panel.model.repeat) {
    const style = { gridColumn: `${x + 1} / span ${w}`, gridRow: `${y - first + 1} / span ${h}` };
    return { columns: w, style };
  }
  const copies = row.panels.filter(({ model }) => model.repeat === panel.model.repeat).length;
  const columns = COLUMNS / Math.min(panel.model.maxPerRow ?? MAX_PER_ROW, copies);
  return { columns, style: { gridColumn: `span ${columns}`, gridRow: `span ${h}` } };
}

function makeTimeRange({ from_ms, to_ms }: Board): TimeRange {
  const [from, to] = [dateTime(from_ms), dateTime(to_ms)];
  return { from, to, raw: { from, to } };
}

/** Load the fonts before text is measured: a figure of a stat is as large as its text fits. */
async function loadFonts() {
  const { fontWeightRegular, fontWeightMedium } = theme.typography;
  for (const weight of [fontWeightRegular, fontWeightMedium]) {
    // No font is found until the styles are in the page.
    while ((await document.fonts.load(`${weight} 14px Inter`)).length === 0) {
      await new Promise(requestAnimationFrame);
    }
  }
}

async function main() {
  const { board } = window;
  const data = new Map<Panel, PanelData>();
  for (const panel of board.rows.flatMap(({ panels }) => panels)) {
    if (!findMissing(panel)) {
      data.set(panel, await loadPanel(panel, theme));
    }
  }
  const element = document.createElement('div');
  document.body.append(element);
  const root = createRoot(element);
  root.render(<Theme />);
  await loadFonts();
  root.render(
    <Theme>
      <BoardPage board={board} data={data} />
    </Theme>
  );
}

await main();
