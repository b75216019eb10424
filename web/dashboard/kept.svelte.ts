/**
 * Rows that stand still while somebody points at them: what goes stays struck in its place, what comes
 * waits outside and is counted.
 */
import { untrack } from 'svelte';
import type { Attachment } from 'svelte/attachments';

export interface KeptRow<Row> {
  readonly row: Row;
  readonly isGone: boolean;
}

export class Kept<Row extends { readonly id: string }> {
  rows = $state.raw<readonly KeptRow<Row>[]>([]);
  /** How many rows wait outside. */
  fresh = $state(0);
  #newest: readonly Row[] = [];
  #node: Element | undefined;

  /** The element around the rows. */
  readonly around: Attachment = (node) => {
    this.#node = node;
    const look = (): void => {
      requestAnimationFrame(() => this.update(this.#newest));
    };
    node.addEventListener('pointerleave', look);
    node.addEventListener('focusout', look);
    return () => {
      this.#node = undefined;
      node.removeEventListener('pointerleave', look);
      node.removeEventListener('focusout', look);
    };
  };

  /** Take what is the case now. */
  update(newest: readonly Row[]): void {
    untrack(() => this.#update(newest));
  }

  #update(newest: readonly Row[]): void {
    this.#newest = newest;
    if (!this.#isHeld) {
      this.letIn();
      return;
    }
    const shown = this.rows.map(({ row }) => row.id);
    this.rows = this.rows.map(({ row }) => {
      const now = newest.find(({ id }) => id === row.id);
      return { row: now ?? row, isGone: now === undefined };
    });
    this.fresh = newest.filter(({ id }) => !shown.includes(id)).length;
  }

  /** Let in what waits outside. */
  letIn(): void {
    this.rows = this.#newest.map((row) => ({ row, isGone: false }));
    this.fresh = 0;
  }

  /** Asked of the page each time: an element that goes away or is switched off tells nobody that it lost the focus. */
  get #isHeld(): boolean {
    const node = this.#node;
    return node !== undefined && (node.matches(':hover') || node.contains(document.activeElement));
  }
}
