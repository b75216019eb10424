/** Places a popover beside what opened it, inside the window. On a phone the style makes it a sheet. */
import type { Attachment } from 'svelte/attachments';

const GAP = 4;
const EDGE = 8;

export const float =
  (anchor: () => Element | undefined): Attachment<HTMLElement> =>
  (node) => {
    const place = (): void => {
      const from = anchor()?.getBoundingClientRect();
      if (!from || !node.matches(':popover-open')) return;
      const { offsetWidth: wide, offsetHeight: tall } = node;
      const below = from.bottom + GAP;
      const top = below + tall + EDGE > innerHeight ? Math.max(EDGE, from.top - GAP - tall) : below;
      const left = Math.max(EDGE, Math.min(from.left, innerWidth - wide - EDGE));
      node.style.top = `${top}px`;
      node.style.left = `${left}px`;
    };
    const onToggle = (): void => {
      requestAnimationFrame(place);
    };
    node.addEventListener('toggle', onToggle);
    addEventListener('resize', place);
    addEventListener('scroll', place, { capture: true, passive: true });
    return () => {
      node.removeEventListener('toggle', onToggle);
      removeEventListener('resize', place);
      removeEventListener('scroll', place, { capture: true });
    };
  };
