(() => {
  const page = document, wait = 5000, slow = 60000;
  let delay = wait, timer = 0, skew = 0;
  const tagged = () => [...page.querySelectorAll('[data-tag]')];
  const since = (at) => {
    const s = Math.max(0, Math.floor((Date.now() + skew - at) / 1000)), m = Math.floor(s / 60), h = Math.floor(m / 60);
    return s < 60 ? s + ' s ago' : m < 60 ? m + ' min ago' : h < 24 ? h + ' h ' + m % 60 + ' min ago' : Math.floor(h / 24) + ' d ' + h % 24 + ' h ago';
  };
  const tick = () => page.querySelectorAll('.ago').forEach((e) => {
    const text = since(+e.dataset.at);
    if (e.textContent !== text) e.textContent = text;
  });
  const say = (text) => {
    const polling = page.getElementById('polling');
    if (polling && polling.textContent !== text) polling.textContent = text;
  };
  const replace = (here, next) => {
    if (here.contains(page.activeElement)) return;
    const open = [...here.querySelectorAll('details')].map((d) => d.open);
    const left = [...here.querySelectorAll('.scroll')].map((s) => s.scrollLeft);
    here.replaceChildren(...next.childNodes);
    here.dataset.tag = next.dataset.tag;
    here.querySelectorAll('details').forEach((d, i) => { d.open = !!open[i]; });
    here.querySelectorAll('.scroll').forEach((s, i) => { s.scrollLeft = left[i] || 0; });
  };
  const accept = async (answer) => {
    const now = +answer.headers.get('x-board-now');
    if (now) skew = now - Date.now();
    const layout = answer.headers.get('x-board-layout');
    if (layout && page.body.dataset.layout && layout !== page.body.dataset.layout) return location.reload();
    page.body.dataset.layout = layout || '';
    if (answer.status === 304) return;
    const next = new DOMParser().parseFromString(await answer.text(), 'text/html');
    next.querySelectorAll('[data-tag]').forEach((part) => {
      const here = page.getElementById(part.id);
      if (here) replace(here, part);
    });
    const items = +answer.headers.get('x-board-attention');
    page.title = (items ? '(' + items + ') ' : '') + page.title.replace(/^\(\d+\) /, '');
  };
  const poll = async () => {
    clearTimeout(timer);
    try {
      const have = tagged().map((e) => e.id + '=' + e.dataset.tag).join(',');
      const answer = await fetch(location.pathname + location.search, { headers: { 'x-board-have': have, accept: 'text/html' }, cache: 'no-store', redirect: 'error' });
      if (answer.status === 401) return location.reload();
      if (answer.status !== 200 && answer.status !== 304) throw answer.status;
      await accept(answer);
      delay = wait;
      page.body.classList.remove('offline');
      say('');
    } catch {
      delay = Math.min(delay * 2, slow);
      page.body.classList.add('offline');
      say(' · the board does not answer; next attempt in ' + Math.round(delay / 1000) + ' s');
    }
    tick();
    timer = setTimeout(poll, page.hidden ? slow : delay);
  };
  page.addEventListener('visibilitychange', () => { if (!page.hidden) poll(); });
  setInterval(tick, 1000);
  timer = setTimeout(poll, wait);
})();
