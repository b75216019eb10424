// Two builds of one config, by mode, so that neither page ships the other's code.
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { svelte } from '@sveltejs/vite-plugin-svelte';
import { defineConfig, type Plugin } from 'vitest/config';

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The theme must be known before the first paint: a classic script of its own, since the page's module runs later. */
function themeFirst(): Plugin {
  const source = readFileSync(here('shared/theme-first.js'), 'utf8');
  const fileName = `assets/theme-${createHash('sha256').update(source).digest('hex').slice(0, 8)}.js`;
  let building = false;
  return {
    name: 'skep-theme-first',
    configResolved(config) {
      building = config.command === 'build';
    },
    buildStart() {
      if (building) this.emitFile({ type: 'asset', fileName, source });
    },
    transformIndexHtml: () => [
      {
        tag: 'script',
        attrs: { src: building ? `./${fileName}` : `/@fs${here('shared/theme-first.js')}` },
        injectTo: 'head-prepend',
      },
    ],
  };
}

export default defineConfig(({ mode }) => {
  const page = mode === 'dashboard' ? 'dashboard' : 'chat';
  return {
    root: mode === 'test' ? here('.') : here(page),
    base: './',
    publicDir: false,
    plugins: [svelte({ configFile: here('svelte.config.js') }), themeFirst()],
    resolve: {
      // tokens.css looks for its fonts beside itself; they come from npm.
      alias: [
        {
          find: /^(\.\/)?fonts\/source-sans-3\.woff2$/,
          replacement: here(
            'node_modules/@fontsource-variable/source-sans-3/files/source-sans-3-latin-wght-normal.woff2',
          ),
        },
        {
          find: /^(\.\/)?fonts\/ibm-plex-mono\.woff2$/,
          replacement: here(
            'node_modules/@fontsource/ibm-plex-mono/files/ibm-plex-mono-latin-400-normal.woff2',
          ),
        },
      ],
      ...(mode === 'test' ? { conditions: ['browser'] } : {}),
    },
    server: { fs: { allow: [here('.')] } },
    build: {
      outDir: here(`../src/skep/_web/${page}`),
      emptyOutDir: true,
      assetsInlineLimit: 0,
      modulePreload: { polyfill: false },
    },
    test: { environment: 'jsdom', include: ['{shared,chat,dashboard}/**/*.test.ts'] },
  };
});
