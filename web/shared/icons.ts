/** Line icons on a grid of 16. A name gives what is stroked, and what is filled. Nothing here is text of anybody. */

interface Shape {
  readonly line?: string;
  readonly fill?: string;
  readonly dashed?: true;
  readonly heavy?: true;
}

const circle = (cx: number, cy: number, r: number): string =>
  `M${cx - r} ${cy}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`;

export const ICONS = {
  home: { line: 'M2.5 7.3 8 2.8l5.5 4.5M4 6.4V13h8V6.4' },
  inbox: { line: 'M2.5 9.5 4.3 3.5h7.4l1.8 6v3.5h-11zM2.5 9.5h3l1 1.5h3l1-1.5h3' },
  threads: { line: 'M2.5 3h7.5v5H6L3.8 9.8V8H2.5zM12 6.2h1.5v5h-1.3V13L10 11.2H7.5V10' },
  tasks: { line: 'M2.5 3H5v10H2.5zM6.8 3h2.4v6H6.8zM11 3h2.5v8H11z' },
  clock: { line: `${circle(8, 8, 5.3)}M8 5v3.2l2.2 1.3` },
  agents: { line: 'M3 13.2V7.8a5 5 0 0 1 10 0v5.4zM6.4 13v-2.2a1.6 1.6 0 0 1 3.2 0V13' },
  people: { line: `${circle(8, 5.4, 2.6)}M2.8 13.3c.6-2.6 2.7-4 5.2-4s4.6 1.4 5.2 4` },
  plug: { line: 'M6 2.5v3M10 2.5v3M4.3 5.5h7.4V8a3.7 3.7 0 0 1-7.4 0zM8 11.7v1.8' },
  gate: { line: 'M3 13.3V6.4L8 3l5 3.4v6.9M6 13.3V9h4v4.3' },
  repo: { line: 'M12.5 10.7V2.5H5A1.5 1.5 0 0 0 3.5 4v8.2M12.5 10.7H5a1.4 1.4 0 0 0 0 2.8h7.5z' },
  audit: { line: 'M3.8 2.5h8.4v11H3.8zM6 5.6h4M6 8.1h4M6 10.6h2.3' },
  health: { line: 'M2 8.6h2.7l1.7-4.2 2.5 7.4 1.5-3.2H14' },
  gear: {
    line: `${circle(8, 8, 2.2)}M8 2v2M8 12v2M2 8h2M12 8h2M3.8 3.8l1.4 1.4M10.8 10.8l1.4 1.4M12.2 3.8l-1.4 1.4M5.2 10.8l-1.4 1.4`,
  },
  search: { line: `${circle(7, 7, 4.2)}M10.2 10.2l3.3 3.3` },
  check: { line: 'm3.2 8.6 3.1 3.1 6.5-7.2' },
  dcheck: { line: 'm1.3 8.8 2.9 2.9L9.8 5M7.6 10.9l.8.8L14.6 5' },
  ring: { line: circle(8, 8, 4.2) },
  half: { line: circle(8, 8, 4.2), fill: 'M8 3.8a4.2 4.2 0 0 0 0 8.4z' },
  'dash-ring': { line: circle(8, 8, 4.2), dashed: true },
  cross: { line: 'm4.2 4.2 7.6 7.6M11.8 4.2l-7.6 7.6' },
  dash: { line: 'M4 8h8' },
  pause: { line: 'M5.7 4v8M10.3 4v8' },
  tri: { line: 'M8 2.8 13.8 13H2.2zM8 6.8v2.8M8 11.4v.1' },
  sq: {
    fill: 'M4.7 3.5h6.6a1.2 1.2 0 0 1 1.2 1.2v6.6a1.2 1.2 0 0 1-1.2 1.2H4.7a1.2 1.2 0 0 1-1.2-1.2V4.7a1.2 1.2 0 0 1 1.2-1.2z',
  },
  live: { fill: circle(8, 8, 4) },
  copy: { line: 'M6 6h7v7H6zM3.2 10.4V3.2h7' },
  file: { line: 'M4 2.5h5.2l3 3v8H4zM9 2.6v3.2h3.1' },
  folder: { line: 'M2.3 3.8h4.2l1.4 1.7h5.8v7H2.3z' },
  send: { line: 'M8 13V3.4M3.9 7.4 8 3.3l4.1 4.1' },
  stop: { fill: 'M5.5 4.5h5a1 1 0 0 1 1 1v5a1 1 0 0 1-1 1h-5a1 1 0 0 1-1-1v-5a1 1 0 0 1 1-1z' },
  clip: { line: 'm13 7.6-5.3 5.3a3.2 3.2 0 0 1-4.5-4.5L8.7 2.9a2.1 2.1 0 0 1 3 3L6.4 11.2' },
  save: { line: 'M8 2.8v7M4.8 6.8 8 10l3.2-3.2M3 13.2h10' },
  back: { line: 'M9.8 3.3 5.1 8l4.7 4.7' },
  chev: { line: 'm6.2 4 4 4-4 4' },
  down: { line: 'm4 6.2 4 4 4-4' },
  more: { line: 'M3.5 8h.01M8 8h.01M12.5 8h.01', heavy: true },
  reply: { line: 'M6 3.8 2.5 7.3 6 10.8M2.7 7.3H10a3.5 3.5 0 0 1 3.5 3.5v1.7' },
  link: {
    line: 'm6.4 9.6 3.2-3.2M7.2 4.6l1-1a3 3 0 0 1 4.2 4.2l-1 1M8.8 11.4l-1 1a3 3 0 0 1-4.2-4.2l1-1',
  },
  split: { line: 'M8 13.3V9.2L3.8 5V2.8M8 9.2 12.2 5V2.8' },
  merge: { line: 'M3.8 2.7V5L8 9.2v4.1M12.2 2.7V5L8 9.2' },
  into: { line: 'M13.2 8H3M7 4 3 8l4 4' },
  plus: { line: 'M8 3.3v9.4M3.3 8h9.4' },
  edit: { line: 'M3 13h2.8L13 5.8 10.2 3 3 10.2zM8.6 4.6l2.8 2.8' },
  bell: { line: 'M3.3 11.5h9.4l-1.2-2V7a3.5 3.5 0 0 0-7 0v2.5zM6.7 13.6h2.6' },
  filter: { line: 'M2.5 4.5h11M4.5 8h7M6.7 11.5h2.6' },
  pin: { line: 'M8 9.5v4M5 9.5h6l-.8-2V3.3H5.8v4.2z' },
  archive: { line: 'M2.5 3.5h11V6h-11zM3.5 6v6.5h9V6M6.5 8.7h3' },
  door: { line: 'M9.5 3H3.8v10h5.7M7 8h6.2M10.8 5.5 13.3 8l-2.5 2.5' },
  sun: {
    line: `${circle(8, 8, 2.6)}M8 2v1.2M8 12.8V14M2 8h1.2M12.8 8H14M3.8 3.8l.8.8M11.4 11.4l.8.8M12.2 3.8l-.8.8M4.6 11.4l-.8.8`,
  },
} as const satisfies Record<string, Shape>;

export type IconName = keyof typeof ICONS;

/** Return what `name` draws. */
export const shapeOf = (name: IconName): Shape => ICONS[name];
