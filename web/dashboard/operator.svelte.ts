/** Who is signed in: a name for the corner of the page, told at sign-in. It opens nothing. */

const KEY = 'skep.operator';

function stored(): string {
  try {
    return localStorage.getItem(KEY) ?? '';
  } catch {
    return '';
  }
}

let name = $state(stored());

/** Return the name, empty when it is not known. */
export const operator = (): string => name;

/** Remember who signed in. */
export function setOperator(who: string): void {
  name = who;
  try {
    localStorage.setItem(KEY, who);
  } catch {
    // Storage is switched off: the name lasts as long as the page.
  }
}

/** Forget who it was. */
export function forgetOperator(): void {
  name = '';
  try {
    localStorage.removeItem(KEY);
  } catch {
    // Storage is switched off.
  }
}
