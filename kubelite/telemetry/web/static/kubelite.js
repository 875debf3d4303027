// Keeps the page current without a reload: fetches the same address and changes what differs. Asks only while the page
// is visible. Builds no markup from strings: the browser parses the answer as a document in which nothing runs.
'use strict';
(() => {
  const PERIOD = 2000, FIRST = 1100, LONGEST = 10000, PATIENCE = 10000;
  const stale = document.getElementById('stale');
  let timer = 0, wait = PERIOD, asked = null;

  function attributes(from, to) {
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !(name === 'open' && from.localName === 'details')) from.removeAttribute(name);
    }
    for (const { name, value } of to.attributes) {
      if (name === 'open' && from.localName === 'details') continue; // the visitor's choice
      if (from.getAttribute(name) !== value) from.setAttribute(name, value);
    }
    if (from === document.activeElement) return;
    if (from.localName === 'input' && from.type !== 'hidden') from.value = to.getAttribute('value') || '';
  }

  function same(a, b) {
    return a && a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.id || '') === (b.id || '');
  }

  function morph(from, to) {
    if (from.isEqualNode(to)) return;
    attributes(from, to);
    const known = new Map();
    for (const child of from.children) if (child.id) known.set(child.id, child);
    let here = from.firstChild;
    for (const wanted of [...to.childNodes]) {
      const keyed = wanted.id && known.get(wanted.id);
      if (keyed && keyed !== here && same(keyed, wanted)) from.insertBefore(keyed, here);
      else if (!same(here, wanted)) { from.insertBefore(document.importNode(wanted, true), here); continue; }
      else here = here.nextSibling;
      const place = keyed || here && here.previousSibling || from.lastChild;
      if (place.nodeType === Node.ELEMENT_NODE) morph(place, wanted);
      else if (place.data !== wanted.data) place.data = wanted.data;
    }
    while (here) { const next = here.nextSibling; here.remove(); here = next; }
  }

  function show(answer) {
    const live = document.getElementById('live'), fresh = answer && answer.getElementById('live');
    if (!live || !fresh) return false;
    const focused = document.activeElement;
    morph(live, fresh);
    document.title = answer.title;
    if (focused !== document.activeElement && focused.isConnected) focused.focus({ preventScroll: true });
    return true;
  }

  function ended(well) {
    asked = null;
    wait = well ? PERIOD : Math.min(wait * 2, LONGEST);
    if (stale.hidden !== well) stale.hidden = well;
    document.body.classList.toggle('old', !well);
    next(wait);
  }

  function next(pause) {
    clearTimeout(timer);
    if (!document.hidden) timer = setTimeout(load, pause);
  }

  function load() {
    clearTimeout(timer);
    if (asked) { asked.onloadend = null; asked.abort(); }
    const request = asked = new XMLHttpRequest();
    request.open('GET', location.pathname + location.search);
    request.responseType = 'document';
    request.timeout = PATIENCE;
    request.onloadend = () => {
      if (request.status === 404) location.replace('/'); // the pod is gone
      else ended(request.status === 200 && show(request.response));
    };
    request.send();
  }

  function go(address, { push }) {
    history[push ? 'pushState' : 'replaceState'](null, '', address);
    load();
  }

  let typing = 0;
  function search() {
    const form = document.querySelector('form[role=search]'), query = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value) query.set(name, value);
    go('/' + (query.size ? '?' + query : ''), { push: false });
  }

  document.body.classList.add('live');
  document.addEventListener('visibilitychange', () => (document.hidden ? clearTimeout(timer) : load()));
  window.addEventListener('popstate', load);
  document.addEventListener('input', (event) => {
    if (!event.target.form || event.target.form.role === null && event.target.form.getAttribute('role') !== 'search') return;
    clearTimeout(typing);
    typing = setTimeout(search, event.target.id === 'q' ? 150 : 0);
  });
  document.addEventListener('submit', (event) => { event.preventDefault(); clearTimeout(typing); search(); });
  document.addEventListener('click', (event) => {
    const link = event.target.closest('a[data-soft]');
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.href.split('#')[0], { push: true });
    if (link.classList.contains('tile')) document.getElementById('pods').scrollIntoView();
  });
  document.addEventListener('keydown', (event) => {
    const field = document.getElementById('q');
    if (!field) return;
    if ((event.ctrlKey || event.metaKey) && event.key === 'k') { event.preventDefault(); field.focus(); field.select(); }
    if (event.key === 'Escape' && event.target === field && field.value) { field.value = ''; search(); }
  });
  next(FIRST);
})();
