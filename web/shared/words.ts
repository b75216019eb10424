/** Words, times and numbers as the interface writes them. Pure: the caller gives the time and the zone. */

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'] as const;
const DAYS = ['Sun', 'Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat'] as const;
const THIN = '\u2009';
const DAY_MS = 86_400_000;

interface Wall {
  readonly year: number;
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
  /** Days since 1970 on the wall's own calendar. */
  readonly date: number;
}

const formats = new Map<string, Intl.DateTimeFormat>();

function wall(at: number, zone: string | undefined): Wall {
  const key = zone ?? '';
  let format = formats.get(key);
  if (!format) {
    format = new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    });
    formats.set(key, format);
  }
  const part: Record<string, number> = {};
  for (const { type, value } of format.formatToParts(at)) part[type] = Number(value);
  const { year = 1970, month = 1, day = 1, hour = 0, minute = 0, second = 0 } = part;
  return { year, month: month - 1, day, hour, minute, second, date: Date.UTC(year, month - 1, day) / DAY_MS };
}

const two = (n: number): string => String(n).padStart(2, '0');

/** Return "14:31", or "14:31:07" where the order matters. */
export function clock(
  at: number,
  { zone, seconds = false }: { zone?: string; seconds?: boolean } = {},
): string {
  const w = wall(at, zone);
  return `${two(w.hour)}:${two(w.minute)}${seconds ? `:${two(w.second)}` : ''}`;
}

/** Return when `at` was, as short as is still clear: today "14:31", this week "Thu", this year "16 Nov". */
export function when(at: number, now: number, { zone }: { zone?: string } = {}): string {
  const then = wall(at, zone);
  const today = wall(now, zone);
  const days = today.date - then.date;
  if (days === 0) return `${two(then.hour)}:${two(then.minute)}`;
  if (days > 0 && days < 7) return DAYS[new Date(then.date * DAY_MS).getUTCDay()] ?? '';
  const date = `${then.day} ${MONTHS[then.month]}`;
  return then.year === today.year ? date : `${date} ${then.year}`;
}

/** Return the day of `at` for a line between days: "Today", "Yesterday", "Thu 19 Nov". */
export function dayOf(at: number, now: number, { zone }: { zone?: string } = {}): string {
  const then = wall(at, zone);
  const today = wall(now, zone);
  const days = today.date - then.date;
  if (days === 0) return 'Today';
  if (days === 1) return 'Yesterday';
  const date = `${then.day} ${MONTHS[then.month]}`;
  if (then.year !== today.year) return `${date} ${then.year}`;
  return `${DAYS[new Date(then.date * DAY_MS).getUTCDay()]} ${date}`;
}

/** Return how many days lie between the dates of `at` and `now`: 0 is today. */
export function daysAgo(at: number, now: number, { zone }: { zone?: string } = {}): number {
  return wall(now, zone).date - wall(at, zone).date;
}

/** Return the exact time, local and UTC, for a title. */
export function exact(at: number, { zone }: { zone?: string } = {}): string {
  const w = wall(at, zone);
  const local = `${w.day} ${MONTHS[w.month]} ${w.year}, ${two(w.hour)}:${two(w.minute)}:${two(w.second)}`;
  return `${local} (${new Date(at).toISOString()})`;
}

/** Return a running or ended span: "0:48", "12:03", "2 h 40", "6 d 4 h". */
export function span(ms: number): string {
  const s = Math.max(0, Math.floor(ms / 1000));
  if (s < 3600) return `${Math.floor(s / 60)}:${two(s % 60)}`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${two(Math.floor((s % 3600) / 60))}`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** Return a whole number with thin spaces: "12 345". */
export function whole(n: number): string {
  return String(Math.round(n)).replace(/\B(?=(\d{3})+(?!\d))/g, THIN);
}

/** Return a number in three figures: "214 k", "3.1 M"; `–` when it is not known. */
export function short(n: number | null | undefined): string {
  if (n === null || n === undefined) return '–';
  if (Math.abs(n) < 1000) return String(Math.round(n));
  const [scaled, unit] =
    Math.abs(n) < 999_500 ? [n / 1e3, 'k'] : Math.abs(n) < 999_500_000 ? [n / 1e6, 'M'] : [n / 1e9, 'G'];
  return `${Math.abs(scaled) < 9.95 ? scaled.toFixed(1) : Math.round(scaled)}${THIN}${unit}`;
}

/** Return "1 reply", "3 replies". */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${whole(n)} ${n === 1 ? one : many}`;
}

/** Return the two letters of a face. */
export function initials(name: string, kind: 'agent' | 'person'): string {
  const words = name
    .trim()
    .split(/[\s._-]+/u)
    .filter(Boolean);
  const [first = '', second = ''] = words;
  const letters =
    kind === 'person' && second ? firstOf(first) + firstOf(second) : [...first].slice(0, 2).join('');
  if (kind === 'person') return letters.toUpperCase();
  return firstOf(letters).toUpperCase() + [...letters].slice(1).join('').toLowerCase();
}

const firstOf = (text: string): string => [...text][0] ?? '';

/** Return `text` with control characters made visible, so that it cannot act on a screen. */
export function plain(text: string): string {
  // Tab and line feed are layout; a carriage return is only half of one.
  return text
    .replace(/\r\n?/g, '\n')

    .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f]/g, (c) =>
      String.fromCharCode(0x2400 + c.charCodeAt(0)),
    )
    .replace(/\u007f/g, '\u2421');
}

/** Return `text` as one line of at most `max` characters, cut at its end. */
export function oneLine(text: string, max = 120): string {
  const line = plain(text).replace(/\s+/g, ' ').trim();
  const points = [...line.slice(0, max * 2)];
  return points.length > max || line.length > max * 2 ? `${points.slice(0, max - 1).join('')}…` : line;
}

/** Return `text` without signs of Markdown: they say nothing in one line. */
export const unmarked = (text: string): string =>
  text.replace(/[*_`#>]+/g, '').replace(/\[([^\]]*)\]\([^)]*\)/g, '$1');

/** Return a name no longer than 32 characters. */
export const shortName = (name: string): string => oneLine(name, 32);
