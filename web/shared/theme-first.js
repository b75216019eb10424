// Runs before the first paint, by itself: the theme the person chose, else the system's.
(() => {
  try {
    const theme = localStorage.getItem('skep.theme');
    if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  } catch {
    // Storage is switched off: the system's theme stays.
  }
})();
