/** Choices by key. */

/** Press the choice with the number `key` of the newest open question among `rows`. Returns whether there was one. */
export function pressChoice(rows: HTMLElement | undefined, key: string): boolean {
  if (!/^[1-9]$/.test(key)) return false;
  const open = [...(rows?.querySelectorAll<HTMLElement>('.pick[data-open]') ?? [])].at(-1);
  const button = open?.querySelector<HTMLButtonElement>(`[data-key="${key}"]`);
  button?.click();
  return button !== undefined && button !== null;
}
