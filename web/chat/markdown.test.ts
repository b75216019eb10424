import { describe, expect, it } from 'vitest';

import { BlockStream, parse, safeHref, type Block } from './markdown';

const text = (of: string): Block => ({ kind: 'paragraph', of: [{ kind: 'text', text: of }] });

describe('the tree', () => {
  it('knows the forms of a message', () => {
    const tree = parse(
      '# Title\n\none **two** *three* ~~four~~ `five`\nsix\n\n- [x] done\n- open\n\n3. third\n\n> said\n\n```py x\ncode\n```\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n---',
    );
    expect(tree.map(({ kind }) => kind)).toEqual([
      'heading',
      'paragraph',
      'list',
      'list',
      'quote',
      'code',
      'table',
      'rule',
    ]);
    expect(tree[1]).toEqual({
      kind: 'paragraph',
      of: [
        { kind: 'text', text: 'one ' },
        { kind: 'strong', of: [{ kind: 'text', text: 'two' }] },
        { kind: 'text', text: ' ' },
        { kind: 'em', of: [{ kind: 'text', text: 'three' }] },
        { kind: 'text', text: ' ' },
        { kind: 'del', of: [{ kind: 'text', text: 'four' }] },
        { kind: 'text', text: ' ' },
        { kind: 'code', text: 'five' },
        { kind: 'break' },
        { kind: 'text', text: 'six' },
      ],
    });
    expect(tree[2]).toMatchObject({ start: undefined, items: [{ checked: true }, {}] });
    expect(tree[3]).toMatchObject({ start: 3 });
    expect(tree[5]).toEqual({ kind: 'code', lang: 'py', text: 'code' });
    expect(tree[6]).toMatchObject({ head: [{ align: 'left' }, { align: 'right' }] });
  });

  it.each([
    '<script>alert(1)</script>',
    '<img src=x onerror=alert(1)>',
    'a <b onclick="x()">b</b> c',
    '<!-- hidden -->',
    '<iframe src="//evil"></iframe>',
  ])('keeps %s as text', (source) => {
    const tree = parse(source);
    const words = tree.flatMap((block) => (block.kind === 'paragraph' ? block.of : []));
    expect(words.map((word) => (word.kind === 'text' ? word.text : '?')).join('')).toBe(source);
    expect(tree.every(({ kind }) => kind === 'paragraph')).toBe(true);
  });

  it.each([
    'javascript:alert(1)',
    'JaVaScRiPt:alert(1)',
    'java\tscript:alert(1)',
    'data:text/html,x',
    'vbscript:x',
    'file:///etc/passwd',
    '//evil.example/x',
    '/api/session',
    'blob:https://x/y',
    'https:',
  ])('leads nobody to %s', (href) => {
    expect(safeHref(href)).toBeUndefined();
    expect(JSON.stringify(parse(`[x](<${href}>)`))).not.toContain('"link"');
  });

  it.each(['https://example.org/a?b=c#d', 'http://example.org/', 'mailto:ada@example.org'])(
    'leads to %s',
    (href) => {
      expect(parse(`[x](${href})`)).toEqual([
        { kind: 'paragraph', of: [{ kind: 'link', href, of: [{ kind: 'text', text: 'x' }] }] },
      ]);
    },
  );

  it('names a remote picture and never fetches it', () => {
    expect(parse('![a cat](https://example.org/cat.png)')).toEqual([
      {
        kind: 'paragraph',
        of: [{ kind: 'link', href: 'https://example.org/cat.png', of: [{ kind: 'text', text: 'a cat' }] }],
      },
    ]);
  });

  it('reads character references, as text', () => {
    expect(parse('a &amp; b &lt;script&gt; &#8364; &#x41; &unknown; &toString; &#0;')).toEqual([
      text('a & b <script> € A &unknown; &toString; \ufffd'),
    ]);
  });

  it('stands deep nesting', () => {
    expect(() => parse('> '.repeat(3000) + 'x')).not.toThrow();
    expect(() => parse('*'.repeat(5000))).not.toThrow();
    expect(() => parse('[['.repeat(2000))).not.toThrow();
  });
});

const LONG = [
  '# A title',
  'A paragraph\nof two lines with **bold** words.',
  '- one\n- two\n  - deeper\n\n- loose',
  '```js\nconst a = 1;\n\nconst b = 2;\n```',
  '| a | b |\n|---|---|\n| 1 | 2 |',
  '1. first\n2. second',
  '> quoted\n> twice',
  'The end, with `code` and [a link](https://example.org).',
].join('\n\n');

describe('a text that grows', () => {
  it.each([1, 3, 17])('is the same tree at its end, by steps of %d', (step) => {
    const stream = new BlockStream();
    let tree: readonly Block[] = [];
    for (let at = step; at < LONG.length + step; at += step) tree = stream.update(LONG.slice(0, at));
    expect(tree).toEqual(parse(LONG));
  });

  it('never changes a block that two others follow', () => {
    const stream = new BlockStream();
    let before: readonly Block[] = [];
    for (let at = 1; at <= LONG.length; at += 1) {
      const tree = stream.update(LONG.slice(0, at));
      const settled = before.slice(0, Math.max(0, before.length - 2));
      expect(tree.slice(0, settled.length)).toEqual(settled);
      before = tree;
    }
  });

  it('begins anew when the text is another', () => {
    const stream = new BlockStream();
    stream.update('one\n\ntwo\n\nthree\n\nfour');
    expect(stream.update('other')).toEqual([text('other')]);
  });

  it('takes a long text in time that a frame has', () => {
    const stream = new BlockStream();
    const source = 'word '.repeat(20).concat('\n\n').repeat(600);
    stream.update(source);
    const start = performance.now();
    for (let i = 1; i <= 20; i += 1) stream.update(`${source}${'more '.repeat(i)}`);
    expect((performance.now() - start) / 20).toBeLessThan(16);
  });
});
