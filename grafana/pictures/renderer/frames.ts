// The answers of Prometheus as data frames, named as by Grafana's data source for Prometheus.

import { type DataFrame, type Field, FieldType } from '@grafana/data';

import type { Answer, Sample } from './board';

const NOT_IN_JSON = { nan: NaN, inf: Infinity, '-inf': -Infinity };

export function makeFrames(answers: Answer[]): DataFrame[] {
  const shown = answers.filter((answer) => !answer.is_hidden && answer.series.length > 0);
  const tables = shown.filter((answer) => answer.format === 'table').length;
  return shown.flatMap((answer) =>
    answer.format === 'table'
      ? [makeTable(answer, tables > 1 ? `Value #${answer.ref_id}` : 'Value')]
      : makeSeries(answer)
  );
}

function makeSeries(answer: Answer): DataFrame[] {
  return answer.series.map(({ labels, samples }) => {
    const name = fillLegend(answer.legend, labels);
    return {
      refId: answer.ref_id,
      name,
      length: samples.length,
      fields: [
        // The interval is what a gap in the line is recognised by.
        makeField('Time', FieldType.time, times(samples), {
          config: answer.step_ms === null ? {} : { interval: answer.step_ms },
        }),
        makeField('Value', FieldType.number, values(samples), {
          labels,
          config: name ? { displayNameFromDS: name } : {},
        }),
      ],
    };
  });
}

function makeTable(answer: Answer, valueName: string): DataFrame {
  const names = [...new Set(answer.series.flatMap(({ labels }) => Object.keys(labels).sort()))];
  const rows = answer.series
    .flatMap(({ labels, samples }) => samples.map((sample) => ({ labels, sample })))
    .sort((one, other) => one.sample[0] - other.sample[0]);
  const samples = rows.map(({ sample }) => sample);
  return {
    refId: answer.ref_id,
    length: rows.length,
    fields: [
      makeField('Time', FieldType.time, times(samples)),
      ...names.map((name) =>
        makeField(
          name,
          FieldType.string,
          rows.map(({ labels }) => labels[name] ?? '')
        )
      ),
      makeField(valueName, FieldType.number, values(samples)),
    ],
  };
}

/** Lines have gaps where a value is not finite, as in Grafana; other panels name such values. */
export function leaveGaps(frames: DataFrame[]): DataFrame[] {
  return frames.map((frame) => ({
    ...frame,
    fields: frame.fields.map((field) =>
      field.type === FieldType.number
        ? { ...field, values: field.values.map((value) => (Number.isFinite(value) ? value : null)) }
        : field
    ),
  }));
}

function makeField(
  name: string,
  type: FieldType,
  values: unknown[],
  more: Partial<Field> = {}
): Field {
  return { name, type, values, config: {}, ...more };
}

function times(samples: Sample[]): number[] {
  return samples.map(([time_ms]) => time_ms);
}

function values(samples: Sample[]): number[] {
  return samples.map(([, value]) => (typeof value === 'string' ? NOT_IN_JSON[value] : value));
}

/** An empty name leaves it to Grafana to make one from the labels. */
function fillLegend(legend: string, labels: Record<string, string>): string {
  if (legend && legend !== '__auto') {
    return legend.replace(/\{\{\s*(.+?)\s*\}\}/g, (_, name: string) => labels[name] ?? '');
  }
  return '';
}
