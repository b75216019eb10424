/** Light, dark, or as the system has it. `theme-first.js` applies the same choice before the first paint. */

export type Theme = 'system' | 'light' | 'dark';

const KEY = 'skep.theme';

/** Return what the person chose. */
export function theme(): Theme {
  const chosen = document.documentElement.dataset.theme;
  return chosen === 'light' || chosen === 'dark' ? chosen : 'system';
}

/** Draw the page in `choice` and remember it. */
export function setTheme(choice: Theme): void {
  const root = document.documentElement;
  if (choice === 'system') delete root.dataset.theme;
  else root.dataset.theme = choice;
  try {
    if (choice === 'system') localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, choice);
  } catch {
    // Storage is switched off: the choice lasts as long as the page.
  }
}
