/** An answer that is being written: "keep the first `at` code points, append `add`". */

export class DraftText {
  #points: string[] = [];
  #text = '';

  get text(): string {
    return this.#text;
  }

  /** Apply one step; returns false when an earlier one is missing, and leaves the text as it is. */
  apply(at: number, add: string): boolean {
    const have = this.#points.length;
    if (at > have) return false;
    if (at === have) {
      this.#text += add;
    } else {
      this.#points.length = at;
      this.#text = this.#points.join('') + add;
    }
    for (const point of add) this.#points.push(point);
    return true;
  }
}
