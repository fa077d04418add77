// A panel's transformations and field settings, applied by @grafana/data.

import {
  applyFieldOverrides,
  cacheFieldDisplayNames,
  type DataFrame,
  type DataTransformerConfig,
  displayNameOverrideProcessor,
  type Field,
  FieldColorModeId,
  type FieldConfigPropertyItem,
  FieldConfigOptionsRegistry,
  type FieldConfigSource,
  type GrafanaTheme2,
  identityOverrideProcessor,
  type InterpolateFunction,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from '@grafana/data';
import { lastValueFrom } from 'rxjs';

import type { Panel } from './board';
import { makeFrames } from './frames';

// One of them is there under two names.
const TRANSFORMERS = [...new Set(Object.values(standardTransformers))];
standardTransformersRegistry.setInit(() =>
  TRANSFORMERS.map((transformation) => ({
    id: transformation.id,
    name: transformation.name,
    transformation,
    editor: () => null,
    imageDark: '',
    imageLight: '',
  }))
);

const STANDARD_PROPERTIES = [
  'unit',
  'min',
  'max',
  'fieldMinMax',
  'decimals',
  'displayName',
  'noValue',
  'thresholds',
  'mappings',
  'links',
  'actions',
  'color',
  'filterable',
];

export interface PanelData {
  frames: DataFrame[];
  fieldConfig: FieldConfigSource;
  replaceVariables: InterpolateFunction;
}

/** Give a panel's frames after its transformations, with a display processor for each field. */
export async function loadPanel(panel: Panel, theme: GrafanaTheme2): Promise<PanelData> {
  const fieldConfig = completeFieldConfig(panel);
  const replaceVariables = makeReplacer(panel.variables);
  const transformed = await lastValueFrom(
    transformDataFrame(transformationsOf(panel), makeFrames(panel.answers), {
      interpolate: (text: string) => replaceVariables(text),
    })
  );
  const frames = applyFieldOverrides({
    data: transformed,
    fieldConfig,
    fieldConfigRegistry: makeRegistry(fieldConfig),
    replaceVariables,
    theme,
    timeZone: 'utc',
  });
  cacheFieldDisplayNames(frames);
  return { frames, fieldConfig, replaceVariables };
}

/** Name the first transformation of a panel that only Grafana itself has. */
export function findMissingTransformation(panel: Panel): string | undefined {
  const ids = transformationsOf(panel).map(({ id }) => id);
  return ids.find((id) => !TRANSFORMERS.some((known) => known.id === id));
}

function transformationsOf({ model }: Panel): DataTransformerConfig[] {
  return (model.transformations ?? []).filter(({ disabled }) => !disabled);
}

/** Add what Grafana itself adds to a panel's settings when it loads a dashboard. */
function completeFieldConfig(panel: Panel): FieldConfigSource {
  const { defaults = {}, overrides = [] } = panel.model.fieldConfig ?? {};
  const mode = panel.model.type === 'timeseries' ? FieldColorModeId.PaletteClassic : undefined;
  const config = {
    defaults: { ...(mode && { color: { mode } }), ...defaults, custom: { ...defaults.custom } },
    overrides,
  };
  // JSON has no number for the lowest threshold, which holds for all values below the next.
  return JSON.parse(JSON.stringify(config), (key, value) =>
    key === 'steps' && Array.isArray(value)
      ? value.map((step) => ({ ...step, value: step.value ?? -Infinity }))
      : value
  );
}

/** Name the settings that a field may have. Grafana's list has editors and defaults as well. */
function makeRegistry(fieldConfig: FieldConfigSource): FieldConfigOptionsRegistry {
  const overridden = fieldConfig.overrides
    .flatMap(({ properties }) => properties.map(({ id }) => id))
    .filter((id) => id.startsWith('custom.'))
    .map((id) => id.slice('custom.'.length));
  const custom = new Set([...Object.keys(fieldConfig.defaults.custom ?? {}), ...overridden]);
  return new FieldConfigOptionsRegistry(() => [
    ...STANDARD_PROPERTIES.map((path) => makeItem(path, path, false)),
    ...[...custom].map((path) => makeItem(`custom.${path}`, path, true)),
  ]);
}

function makeItem(id: string, path: string, isCustom: boolean): FieldConfigPropertyItem {
  const isName = id === 'displayName';
  return {
    id,
    path,
    isCustom,
    name: id,
    editor: () => null,
    override: () => null,
    settings: isName ? { expandTemplateVars: true } : {},
    process: isName ? displayNameOverrideProcessor : identityOverrideProcessor,
    shouldApply: () => true,
  };
}

/** Fill in ``$name`` and ``${name}`` of a dashboard, and ``${__field...}`` of a field. */
function makeReplacer(variables: Record<string, string>): InterpolateFunction {
  return (text, scopedVars) =>
    text.replace(/\$\{([\w.]+)(?::\w+)?\}|\$(\w+)/g, (whole, curly?: string, bare?: string) => {
      const name = curly ?? bare ?? '';
      const field: Field | undefined = scopedVars?.__dataContext?.value.field;
      if (name.startsWith('__field.labels.')) {
        return field?.labels?.[name.slice('__field.labels.'.length)] ?? '';
      }
      return name === '__field.name' ? (field?.name ?? '') : (variables[name] ?? whole);
    });
}
