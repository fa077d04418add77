// One component for each kind of panel whose parts are in @grafana/ui. Whoever adds one adds it to
// VISUALIZATIONS.

import {
  FieldType,
  getDisplayValueAlignmentFactors,
  getFieldDisplayValues,
  renderMarkdown,
  type TimeRange,
  VizOrientation,
} from '@grafana/data';
import {
  BarGaugeDisplayMode,
  BarGaugeNamePlacement,
  BarGaugeValueMode,
  LegendDisplayMode,
  TableCellHeight,
} from '@grafana/schema';
import {
  BarGauge,
  BigValue,
  BigValueColorMode,
  BigValueGraphMode,
  BigValueJustifyMode,
  BigValueTextMode,
  TimeSeries,
  useTheme2,
  VizRepeater,
} from '@grafana/ui';
import { TableNG } from '@grafana/ui/unstable';
import type { ComponentType } from 'react';

import type { PanelData } from './fields';
import { leaveGaps } from './frames';

export interface VisualizationProps {
  data: PanelData;
  options: Record<string, any>;
  timeRange: TimeRange;
  width: number;
  height: number;
}

export const VISUALIZATIONS: Record<string, ComponentType<VisualizationProps>> = {
  bargauge: BarGaugePanel,
  stat: StatPanel,
  table: TablePanel,
  text: TextPanel,
  timeseries: TimeSeriesPanel,
};

const DEFAULT_REDUCTION = { values: false, calcs: ['lastNotNull'], fields: '' };

function TimeSeriesPanel({ data, options, timeRange, width, height }: VisualizationProps) {
  if (!data.frames.some(({ fields }) => fields.some(({ type }) => type === FieldType.number))) {
    return <NoData data={data} />;
  }
  const legend = {
    displayMode: LegendDisplayMode.List,
    placement: 'bottom' as const,
    calcs: [],
    showLegend: true,
    ...options.legend,
  };
  return (
    <TimeSeries
      frames={leaveGaps(data.frames)}
      structureRev={1}
      timeRange={timeRange}
      timeZone="utc"
      legend={legend}
      options={options}
      width={width}
      height={height}
    />
  );
}

function TablePanel({ data, options, timeRange, width, height }: VisualizationProps) {
  const frame = data.frames[options.frameIndex ?? 0];
  if (!frame?.length) {
    return <NoData data={data} />;
  }
  return (
    <TableNG
      data={frame}
      fieldConfig={data.fieldConfig}
      initialSortBy={options.sortBy}
      noHeader={options.showHeader === false}
      showTypeIcons={options.showTypeIcons}
      cellHeight={options.cellHeight ?? TableCellHeight.Sm}
      structureRev={1}
      timeRange={timeRange}
      width={width}
      height={height}
    />
  );
}

function StatPanel({ data, options, timeRange, width, height }: VisualizationProps) {
  const theme = useTheme2();
  const getValues = () =>
    getFieldDisplayValues({
      data: data.frames,
      fieldConfig: data.fieldConfig,
      replaceVariables: data.replaceVariables,
      reduceOptions: { ...DEFAULT_REDUCTION, ...options.reduceOptions },
      sparkline: options.graphMode !== BigValueGraphMode.None,
      percentChange: options.showPercentChange,
      theme,
      timeZone: 'utc',
    });
  return (
    <VizRepeater
      source={data}
      renderCounter={0}
      getValues={getValues}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      orientation={options.orientation ?? VizOrientation.Auto}
      autoGrid
      itemSpacing={3}
      width={width}
      height={height}
      renderValue={({ value, alignmentFactors, count, width, height }) => (
        <BigValue
          value={value.display}
          sparkline={value.sparkline && { ...value.sparkline, timeRange }}
          colorMode={options.colorMode ?? BigValueColorMode.Value}
          graphMode={options.graphMode ?? BigValueGraphMode.Area}
          justifyMode={options.justifyMode ?? BigValueJustifyMode.Auto}
          textMode={options.textMode ?? BigValueTextMode.Auto}
          percentChangeColorMode={options.percentChangeColorMode}
          disableWideLayout={options.wideLayout === false}
          text={options.text}
          alignmentFactors={alignmentFactors}
          count={count}
          theme={theme}
          width={width}
          height={height}
        />
      )}
    />
  );
}

function BarGaugePanel({ data, options, width, height }: VisualizationProps) {
  const theme = useTheme2();
  const getValues = () =>
    getFieldDisplayValues({
      data: data.frames,
      fieldConfig: data.fieldConfig,
      replaceVariables: data.replaceVariables,
      reduceOptions: { ...DEFAULT_REDUCTION, ...options.reduceOptions },
      theme,
      timeZone: 'utc',
    });
  return (
    <VizRepeater
      source={data}
      renderCounter={0}
      getValues={getValues}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      orientation={options.orientation ?? VizOrientation.Auto}
      itemSpacing={10}
      minVizWidth={options.minVizWidth ?? 8}
      minVizHeight={options.minVizHeight ?? 16}
      maxVizHeight={options.maxVizHeight ?? 300}
      width={width}
      height={height}
      renderValue={({ value, alignmentFactors, orientation, width, height }) => (
        <BarGauge
          value={value.display}
          field={value.field}
          display={value.view?.getFieldDisplayProcessor(value.colIndex ?? 0)}
          displayMode={options.displayMode ?? BarGaugeDisplayMode.Gradient}
          valueDisplayMode={options.valueMode ?? BarGaugeValueMode.Color}
          namePlacement={options.namePlacement ?? BarGaugeNamePlacement.Auto}
          showUnfilled={options.showUnfilled ?? true}
          orientation={orientation}
          text={options.text}
          alignmentFactors={alignmentFactors}
          isOverflow={false}
          theme={theme}
          width={width}
          height={height}
        />
      )}
    />
  );
}

function TextPanel({ data, options }: VisualizationProps) {
  const text = data.replaceVariables(options.content ?? '');
  const html = options.mode === 'html' ? text : renderMarkdown(text);
  return <div className="markdown-html" dangerouslySetInnerHTML={{ __html: html }} />;
}

function NoData({ data }: { data: PanelData }) {
  return <div className="message">{data.fieldConfig.defaults.noValue ?? 'No data'}</div>;
}
