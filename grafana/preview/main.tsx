// Draws a board from what its queries found: `window.PREVIEW`, which shoot.py fills in. Graphs and numbers are Grafana's
// own components, units, colours and words of values its own everywhere; tables, timelines, status histories and heat
// maps are drawn here, plainly, and marked. For development and the documentation's pictures only.
import React from 'react';
import { createRoot } from 'react-dom/client';
import {
  createTheme, DataFrame, dateTime, Field, FieldType, formattedValueToString, getDisplayProcessor, renderMarkdown,
  ThemeContext, TimeRange, toDataFrame,
} from '@grafana/data';
import {
  BigValue, BigValueColorMode, BigValueGraphMode, BigValueTextMode, TimeSeries, UPlotConfigBuilder,
} from '@grafana/ui';

type Sample = [number, string];
type Series = { metric: Record<string, string>; values: Sample[] };
type Mark = { time: number; colour: string };
type Found = { board: any; results: Record<string, Record<string, Series[]>>; marks: Mark[]; from: number; to: number };

const found: Found = (window as any).PREVIEW;
const theme = createTheme({ colors: { mode: (window as any).THEME ?? 'light' } });
const timeZone = 'utc';
const range: TimeRange = {
  from: dateTime(found.from * 1000), to: dateTime(found.to * 1000),
  raw: { from: dateTime(found.from * 1000), to: dateTime(found.to * 1000) },
};
const CELL = 30, GAP = 8, WIDTH = 1600, COLUMN = WIDTH / 24;
const HEAD = 30;

// --- what queries found, as Grafana's frames

function legend(target: any, metric: Record<string, string>): string {
  if (!target.legendFormat || target.legendFormat === '__auto') {
    return Object.entries(metric).map(([name, value]) => `${name}="${value}"`).join(', ') || target.expr.slice(0, 40);
  }
  return target.legendFormat.replace(/\{\{(\w+)\}\}/g, (_: string, name: string) => metric[name] ?? '');
}

function matches(matcher: any, name: string): boolean {
  if (matcher.id === 'byName') {
    return matcher.options === name;
  }
  const parts = matcher.options.match(/^\/(.*)\/$/);
  return new RegExp(parts ? parts[1] : matcher.options).test(name);
}

function configured(panel: any, name: string): any {
  const config = structuredClone(panel.fieldConfig?.defaults ?? {});
  for (const override of panel.fieldConfig?.overrides ?? []) {
    if (matches(override.matcher, name)) {
      for (const { id, value } of override.properties) {
        if (id.startsWith('custom.')) {
          config.custom = { ...config.custom, [id.slice(7)]: value };
        } else {
          config[id] = value;
        }
      }
    }
  }
  return config;
}

function displayed(panel: any, field: Field, name: string, index: number): Field {
  const config = configured(panel, name);
  const made: Field = { ...field, config: { displayName: name, color: { mode: 'palette-classic' }, ...config } };
  made.state = { seriesIndex: index, displayName: config.displayName ?? name };
  made.display = getDisplayProcessor({ field: made, theme, timeZone });
  return made;
}

function all(panel: any): Array<{ target: any; series: Series; name: string }> {
  const results = found.results[panel.id] ?? {};
  return panel.targets.flatMap((target: any) =>
    (results[target.refId] ?? []).map((series) => ({ target, series, name: legend(target, series.metric) }))
  );
}

function frames(panel: any): DataFrame[] {
  return all(panel).map(({ series, name }, index) => {
    const frame = toDataFrame({
      fields: [
        { name: 'Time', type: FieldType.time, values: series.values.map(([time]) => time * 1000) },
        { name: 'Value', type: FieldType.number, values: series.values.map(([, value]) => Number(value)) },
      ],
    });
    frame.fields[1] = displayed(panel, frame.fields[1], name, index);
    frame.fields[0].display = getDisplayProcessor({ field: frame.fields[0], theme, timeZone });
    return frame;
  });
}

// --- panels

type Box = { panel: any; width: number; height: number };

function Nothing({ panel }: { panel: any }) {
  const text = panel.fieldConfig?.defaults?.noValue ?? 'no data';
  return <div style={{ color: '#8C8C8C', fontSize: 20, textAlign: 'center', paddingTop: 20 }}>{text}</div>;
}

function Stat({ panel, width, height }: Box) {
  const shown = all(panel);
  if (!shown.length) {
    return <Nothing panel={panel} />;
  }
  const lines = panel.options.orientation === 'horizontal';
  const across = lines ? 1 : Math.max(1, Math.min(shown.length, Math.floor(width / 90)));
  const rows = Math.ceil(shown.length / across);
  return (
    <div style={{ display: 'grid', gridTemplateColumns: `repeat(${across}, 1fr)`, gap: 4 }}>
      {shown.map(({ series, name }, index) => {
        const field = displayed(panel, { name, type: FieldType.number, config: {}, values: [] }, name, index);
        const value = field.display!(Number(series.values.at(-1)![1]));
        value.title = field.state!.displayName!;
        return (
          <div key={index} style={{ height: height / rows - 4, overflow: 'hidden' }}>
            <BigValue theme={theme} value={value} width={width / across - 12} height={height / rows - 4}
              colorMode={panel.options.colorMode as BigValueColorMode} graphMode={BigValueGraphMode.None}
              textMode={panel.options.textMode as BigValueTextMode} text={lines ? { valueSize: 14, titleSize: 14 } : undefined} />
          </div>
        );
      })}
    </div>
  );
}

function marked(config: UPlotConfigBuilder) {
  config.addHook('draw', (plot) => {
    const { ctx, bbox } = plot;
    for (const mark of found.marks) {
      const x = Math.round(plot.valToPos(mark.time * 1000, 'x', true));
      if (x >= bbox.left && x <= bbox.left + bbox.width) {
        ctx.save();
        ctx.strokeStyle = mark.colour;
        ctx.setLineDash([4, 4]);
        ctx.beginPath();
        ctx.moveTo(x, bbox.top);
        ctx.lineTo(x, bbox.top + bbox.height);
        ctx.stroke();
        ctx.restore();
      }
    }
  });
}

function Graph({ panel, width, height }: Box) {
  const shown = frames(panel);
  if (!shown.length) {
    return <Nothing panel={panel} />;
  }
  const seen = new WeakSet<object>();
  return (
    <TimeSeries frames={shown} timeRange={range} timeZone={timeZone} width={width} height={height}
      legend={panel.options.legend} options={panel.options} theme={theme} structureRev={1}>
      {(config: UPlotConfigBuilder) => {
        if (!seen.has(config)) {
          seen.add(config);
          marked(config);
        }
        return null;
      }}
    </TimeSeries>
  );
}

function merged(panel: any): DataFrame | null {
  // What Grafana's `merge` does: one row for each set of values of the labels that all queries have.
  const several = panel.targets.length > 1;
  const results = found.results[panel.id] ?? {};
  const filled = panel.targets.filter((target: any) => (results[target.refId] ?? []).length);
  const labels = filled.map((target: any) => new Set(results[target.refId].flatMap((each: Series) => Object.keys(each.metric))));
  if (!labels.length) {
    return null;
  }
  const keys = [...labels[0]].filter((name) => labels.every((each: Set<string>) => each.has(name as string))) as string[];
  const rows = new Map<string, Record<string, any>>();
  for (const target of filled) {
    for (const { metric, values } of results[target.refId]) {
      const key = keys.map((name) => metric[name]).join('\n');
      const row = rows.get(key) ?? {};
      rows.set(key, { ...row, ...metric, [several ? `Value #${target.refId}` : 'Value']: Number(values.at(-1)![1]) });
    }
  }
  const organize = panel.transformations.find((each: any) => each.id === 'organize').options;
  const names = Object.keys(organize.indexByName).sort((one, other) => organize.indexByName[one] - organize.indexByName[other]);
  const kept = names.filter((name) => [...rows.values()].some((row) => name in row) || name.startsWith('Value'));
  const frame = toDataFrame({
    fields: kept.map((name) => ({
      name: organize.renameByName[name],
      type: name.startsWith('Value') ? FieldType.number : FieldType.string,
      values: [...rows.values()].map((row) => row[name] ?? null),
    })),
  });
  frame.fields = frame.fields.map((field, index) => displayed(panel, field, field.name, index))
    .filter((field) => !(field.config.custom as any)?.hidden);
  return frame;
}

function matrix(panel: any): DataFrame {
  const { rowField, columnField } = panel.transformations.at(-1).options;
  const cells = all(panel).map(({ series }) => ({ ...series.metric, value: Number(series.values.at(-1)![1]) }) as any);
  const columns = [...new Set(cells.map((each) => each[columnField]))].sort();
  const rows = [...new Set(cells.map((each) => each[rowField]))].sort();
  const at = (row: string, column: string) => cells.find((each) => each[rowField] === row && each[columnField] === column);
  const frame = toDataFrame({
    fields: [
      { name: `${rowField}\\${columnField}`, type: FieldType.string, values: rows },
      ...columns.map((name) => ({ name, type: FieldType.number, values: rows.map((row) => at(row, name)?.value ?? null) })),
    ],
  });
  frame.fields = frame.fields.map((field, index) => displayed(panel, field, field.name, index));
  return frame;
}

function Cells({ frame, sort, width, height }: { frame: DataFrame; sort?: string; width: number; height: number }) {
  const by = frame.fields.find((field) => field.state!.displayName === sort)?.values ?? [];
  const order = [...Array(frame.length).keys()].sort((one, other) => (by[other] > by[one] ? 1 : by[other] < by[one] ? -1 : 0));
  const line = `1px solid ${theme.colors.border.weak}`;
  return (
    <div style={{ width, height, overflow: 'hidden' }}>
      <table style={{ width: '100%', borderCollapse: 'collapse', fontSize: 13 }}>
        <thead><tr>{frame.fields.map((field) => (
          <th key={field.name} style={{ textAlign: 'left', fontWeight: 500, padding: 5, color: theme.colors.text.link, borderBottom: line }}>
            {field.state!.displayName}
          </th>))}</tr></thead>
        <tbody>{order.map((row) => (
          <tr key={row}>{frame.fields.map((field) => {
            const raw = field.values[row];
            const text = field.type === FieldType.string && raw ? { text: raw } : field.display!(raw);
            const kind = (field.config.custom as any)?.cellOptions?.type ?? 'auto';
            const colour = (text as any).color;
            const missing = raw === null || raw === undefined;
            const style = kind === 'color-background' && colour ? { background: colour, color: '#fff' }
              : missing ? { color: '#8C8C8C' } : kind === 'color-text' ? { color: colour } : {};
            return <td key={field.name} style={{ padding: 5, borderBottom: line, ...style }}>{missing && !(text as any).text ? field.config.noValue : formattedValueToString(text as any)}</td>;
          })}</tr>))}</tbody>
      </table>
    </div>
  );
}

function Rows({ panel, width, height }: Box) {
  const frame = panel.transformations.some((each: any) => each.id === 'organize') ? merged(panel) : matrix(panel);
  if (!frame || !frame.length) {
    return <Nothing panel={panel} />;
  }
  return <Cells frame={frame} sort={panel.options.sortBy?.[0]?.displayName} width={width} height={height} />;
}

function Lines({ panel, width, height }: Box) {
  const shown = all(panel);
  if (!shown.length) {
    return <Nothing panel={panel} />;
  }
  const left = Math.min(260, width / 3), across = width - left - 8;
  const high = Math.min(26, (height - 20) / shown.length);
  const step = panel.maxDataPoints ? (found.to - found.from) / panel.maxDataPoints : 0;
  const x = (time: number) => left + ((time - found.from) / (found.to - found.from)) * across;
  return (
    <svg width={width} height={height} fontSize={11} fill={theme.colors.text.primary}>
      {shown.map(({ series, name }, index) => {
        const field = displayed(panel, { name, type: FieldType.number, config: {}, values: [] }, name, index);
        const apart = series.values.slice(1).map(([time], n) => time - series.values[n][0]);
        const often = Math.min(...apart, found.to - found.from) || step;
        return (
          <g key={name + index} transform={`translate(0 ${index * high})`}>
            <text x={4} y={high * 0.65}>{name.length * 6 > left ? name.slice(0, left / 6 - 1) + '…' : name}</text>
            {series.values.map(([time, value]) => (
              <rect key={time} x={x(time)} y={1} height={high - 2} fill={field.display!(Number(value)).color}
                width={Math.max(1, (often / (found.to - found.from)) * across - (panel.type === 'status-history' ? 1 : -0.5))}>
                <title>{formattedValueToString(field.display!(Number(value)))}</title>
              </rect>
            ))}
          </g>
        );
      })}
      {[0, 0.25, 0.5, 0.75, 1].map((part) => (
        <text key={part} x={left + part * across} y={height - 6} textAnchor={part ? (part === 1 ? 'end' : 'middle') : 'start'}>
          {new Date((found.from + part * (found.to - found.from)) * 1000).toISOString().slice(11, 19)}
        </text>
      ))}
    </svg>
  );
}

function Heat({ panel, width, height }: Box) {
  const shown = all(panel).filter(({ series }) => series.metric.le !== '+Inf')
    .sort((one, other) => Number(one.series.metric.le) - Number(other.series.metric.le));
  if (!shown.length) {
    return <Nothing panel={panel} />;
  }
  const cells = shown.map(({ series }, row) => series.values.map(([time, value]) => {
    const below = row ? shown[row - 1].series.values.find(([other]) => other === time) : undefined;
    return { time, rate: Math.max(0, Number(value) - Number(below?.[1] ?? 0)) };
  }));
  const most = Math.max(...cells.flat().map((each) => each.rate), 1e-9);
  const left = 60, across = width - left - 4, high = (height - 16) / shown.length;
  const wide = across / Math.max(1, cells[0].length);
  return (
    <svg width={width} height={height} fontSize={11} fill={theme.colors.text.primary}>
      {cells.map((row, index) => (
        <g key={index} transform={`translate(0 ${(shown.length - 1 - index) * high})`}>
          <text x={2} y={high * 0.7}>{shown[index].series.metric.le} s</text>
          {row.map(({ time, rate }) => (
            <rect key={time} x={left + ((time - found.from) / (found.to - found.from)) * across} width={wide + 0.5} height={high}
              fill="#1f5fa8" opacity={rate ? 0.15 + 0.85 * Math.sqrt(rate / most) : 0} />
          ))}
        </g>
      ))}
    </svg>
  );
}

function Words({ panel }: Box) {
  return <div style={{ padding: 8 }} dangerouslySetInnerHTML={{ __html: renderMarkdown(panel.options.content) }} />;
}

const SHAPES: Record<string, (box: Box) => React.ReactNode> = {
  stat: Stat, timeseries: Graph, table: Rows, 'state-timeline': Lines, 'status-history': Lines, heatmap: Heat, text: Words,
};
const RELATIVES = new Set(['table', 'state-timeline', 'status-history', 'heatmap']);

// --- the board

function Shown({ panel }: { panel: any }) {
  const { x, y, w, h } = panel.gridPos;
  const width = w * COLUMN - GAP, height = h * (CELL + GAP) - GAP;
  const place = { position: 'absolute', left: x * COLUMN, top: y * (CELL + GAP), width, height } as const;
  if (panel.type === 'row') {
    const hidden = panel.panels?.length ? ` (${panel.panels.length} panels, opened by a click)` : '';
    return <div style={{ ...place, fontSize: 17, paddingTop: 4 }}>{panel.collapsed ? '›' : '⌄'} {panel.title}{hidden}</div>;
  }
  const Shape = SHAPES[panel.type];
  return (
    <div style={{ ...place, background: theme.colors.background.primary, border: `1px solid ${theme.colors.border.weak}`, borderRadius: 2, overflow: 'hidden' }}>
      <div style={{ height: HEAD, padding: '6px 8px', fontWeight: 500, whiteSpace: 'nowrap' }}>
        {panel.title}{RELATIVES.has(panel.type) ? <span style={{ color: '#8C8C8C', fontWeight: 400 }}> ⁕</span> : null}
      </div>
      <div style={{ padding: '0 4px' }}><Shape panel={panel} width={width - 12} height={height - HEAD - 6} /></div>
    </div>
  );
}

function Board() {
  const bottom = Math.max(...found.board.panels.map((each: any) => each.gridPos.y + each.gridPos.h));
  return (
    <ThemeContext.Provider value={theme}>
      <div style={{ padding: 16, width: WIDTH + 32, background: theme.colors.background.canvas, color: theme.colors.text.primary, fontFamily: theme.typography.fontFamily, fontSize: 14 }}>
        <div style={{ fontSize: 20, paddingBottom: 10 }}>{found.board.title}
          <span style={{ fontSize: 13, color: '#8C8C8C', paddingLeft: 16 }}>
            {new Date(found.from * 1000).toISOString().slice(0, 19)} to {new Date(found.to * 1000).toISOString().slice(11, 19)} UTC
            {' '}· drawn by the preview; ⁕ by a relative of Grafana's panel
          </span>
        </div>
        <div id="board" style={{ position: 'relative', height: bottom * (CELL + GAP) }}>
          {found.board.panels.map((panel: any) => <Shown key={panel.id} panel={panel} />)}
        </div>
      </div>
    </ThemeContext.Provider>
  );
}

createRoot(document.getElementById('root')!).render(<Board />);
