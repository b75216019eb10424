/** Markdown as a typed tree that components draw. No HTML is ever made: what looks like HTML stays text. */
import { Lexer, type Token, type Tokens } from 'marked';

export type Inline =
  | { readonly kind: 'text'; readonly text: string }
  | { readonly kind: 'code'; readonly text: string }
  | { readonly kind: 'strong' | 'em' | 'del'; readonly of: readonly Inline[] }
  | { readonly kind: 'link'; readonly href: string; readonly of: readonly Inline[] }
  | { readonly kind: 'break' };

export interface Cell {
  readonly of: readonly Inline[];
  readonly align: 'left' | 'center' | 'right';
}

export interface Item {
  readonly of: readonly Block[];
  readonly checked?: boolean;
}

export type Block =
  | { readonly kind: 'text' | 'paragraph'; readonly of: readonly Inline[] }
  | { readonly kind: 'heading'; readonly depth: number; readonly of: readonly Inline[] }
  | { readonly kind: 'code'; readonly lang: string; readonly text: string }
  | { readonly kind: 'quote'; readonly of: readonly Block[] }
  | { readonly kind: 'list'; readonly start: number | undefined; readonly items: readonly Item[] }
  | { readonly kind: 'table'; readonly head: readonly Cell[]; readonly rows: readonly (readonly Cell[])[] }
  | { readonly kind: 'rule' };

const OPTIONS = { gfm: true, breaks: true } as const;
/** Deeper than this, what is inside is drawn as it was written. */
const MAX_DEPTH = 12;
const SCHEMES = new Set(['http:', 'https:', 'mailto:']);

/** Return `href` if a person may be led there: http, https or mailto, spelled out in full. */
export function safeHref(href: string): string | undefined {
  // Only absolute addresses: a relative one would lead into this page's own site.
  if (!/^[a-z]+:/i.test(href)) return undefined;
  try {
    const url = new URL(href);
    return SCHEMES.has(url.protocol) ? url.href : undefined;
  } catch {
    return undefined;
  }
}

/** Return the tree of a whole text. */
export function parse(source: string): readonly Block[] {
  return new BlockStream().update(source);
}

/**
 * The tree of a text that grows: a block that two others follow never changes again, so that neither work nor
 * layout is done twice. A text that was cut back or replaced starts anew.
 */
export class BlockStream {
  #done: Block[] = [];
  #settled = '';

  update(source: string): readonly Block[] {
    if (!source.startsWith(this.#settled)) {
      this.#done = [];
      this.#settled = '';
    }
    const tokens = lex(source.slice(this.#settled.length));
    const solid = tokens.flatMap((token, i) => (token.type === 'space' ? [] : [i]));
    const keep = solid.at(-2) ?? 0;
    const settling = tokens.slice(0, keep);
    // What a token says it was made of must be what stood there, else nothing can be cut off.
    const raw = settling.map((token) => token.raw).join('');
    if (raw && source.startsWith(raw, this.#settled.length)) {
      this.#settled += raw;
      this.#done = [...this.#done, ...blocks(settling, 0)];
      return [...this.#done, ...blocks(tokens.slice(keep), 0)];
    }
    return [...this.#done, ...blocks(tokens, 0)];
  }
}

function lex(source: string): Token[] {
  try {
    return new Lexer(OPTIONS).lex(source);
  } catch {
    // A text that breaks the lexer is still a text.
    return [{ type: 'text', raw: source, text: source } as Tokens.Text];
  }
}

function blocks(tokens: readonly Token[], depth: number): Block[] {
  return tokens.flatMap((token) => block(token, depth) ?? []);
}

function block(token: Token, depth: number): Block | undefined {
  if (depth > MAX_DEPTH) return { kind: 'code', lang: '', text: token.raw };
  const t = token as Tokens.Generic;
  switch (token.type) {
    case 'space':
    case 'def':
      return undefined;
    case 'heading':
      return { kind: 'heading', depth: (token as Tokens.Heading).depth, of: inlines(t.tokens) };
    case 'code':
      return {
        kind: 'code',
        lang: ((token as Tokens.Code).lang ?? '').split(/\s/)[0] ?? '',
        text: (token as Tokens.Code).text,
      };
    case 'blockquote':
      return { kind: 'quote', of: blocks(t.tokens ?? [], depth + 1) };
    case 'list': {
      const list = token as Tokens.List;
      return {
        kind: 'list',
        start: list.ordered ? (typeof list.start === 'number' ? list.start : 1) : undefined,
        items: list.items.map((item) => ({
          of: blocks(
            item.tokens.filter((part) => part.type !== 'checkbox'),
            depth + 1,
          ),
          ...(item.task ? { checked: item.checked ?? false } : {}),
        })),
      };
    }
    case 'table': {
      const table = token as Tokens.Table;
      return { kind: 'table', head: table.header.map(cell), rows: table.rows.map((row) => row.map(cell)) };
    }
    case 'hr':
      return { kind: 'rule' };
    case 'html':
      return { kind: 'paragraph', of: [{ kind: 'text', text: token.raw.trimEnd() }] };
    case 'text':
      return { kind: 'text', of: t.tokens ? inlines(t.tokens) : [text((token as Tokens.Text).text)] };
    default:
      return { kind: 'paragraph', of: t.tokens ? inlines(t.tokens) : [text(token.raw)] };
  }
}

const cell = (from: Tokens.TableCell): Cell => ({
  of: inlines(from.tokens),
  align: from.align ?? 'left',
});

const text = (of: string): Inline => ({ kind: 'text', text: decode(of) });

function inlines(tokens: readonly Token[] | undefined, depth = 0): Inline[] {
  if (!tokens) return [];
  return tokens.flatMap((token): Inline | Inline[] => {
    const t = token as Tokens.Generic;
    if (depth > MAX_DEPTH) return { kind: 'text', text: token.raw };
    switch (token.type) {
      case 'strong':
      case 'em':
      case 'del':
        return { kind: token.type, of: inlines(t.tokens, depth + 1) };
      case 'codespan':
        return { kind: 'code', text: (token as Tokens.Codespan).text };
      case 'br':
        return { kind: 'break' };
      case 'link': {
        const href = safeHref((token as Tokens.Link).href);
        const of = inlines(t.tokens, depth + 1);
        return href ? { kind: 'link', href, of } : of;
      }
      case 'image': {
        // Never fetched: a picture's address tells its owner who reads, and when.
        const image = token as Tokens.Image;
        const href = safeHref(image.href);
        const of: Inline[] = [text(image.text || image.href)];
        return href ? { kind: 'link', href, of } : of;
      }
      case 'text':
        return t.tokens ? inlines(t.tokens, depth + 1) : text((token as Tokens.Text).text);
      case 'escape':
        return { kind: 'text', text: (token as Tokens.Escape).text };
      case 'html':
        return { kind: 'text', text: token.raw };
      default:
        return text(token.raw);
    }
  });
}

const NAMED = new Map(
  Object.entries({
    amp: '&',
    lt: '<',
    gt: '>',
    quot: '"',
    apos: "'",
    nbsp: '\u00a0',
    ndash: '–',
    mdash: '—',
    hellip: '…',
    copy: '©',
    euro: '€',
  }),
);

/** Return `of` with character references as characters; it is drawn as text all the same. */
function decode(of: string): string {
  if (!of.includes('&')) return of;
  return of.replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-zA-Z]{2,8}));/g, (all, dec, hex, name) => {
    if (name !== undefined) return NAMED.get(name as string) ?? all;
    const point = dec !== undefined ? Number(dec) : Number.parseInt(hex as string, 16);
    const valid = point > 0 && point <= 0x10ffff && !(point >= 0xd800 && point < 0xe000);
    return valid ? String.fromCodePoint(point) : '\ufffd';
  });
}
