// The function key came in the URL: links and the form take it along. It is not written into the page itself.
const code = new URLSearchParams(location.search).get('code');
function takeKeyAlong() {
  if (!code) return;
  for (const link of document.querySelectorAll('a[href^="?"]')) {
    const query = new URLSearchParams(link.getAttribute('href').slice(1));
    query.set('code', code);
    link.href = '?' + query;
  }
  for (const form of document.forms) {
    form.append(Object.assign(document.createElement('input'), { type: 'hidden', name: 'code', value: code }));
  }
}
takeKeyAlong();

// The content is read again now and then, unless nobody looks at it or somebody writes in it.
const place = (element) => element && [...document.querySelectorAll('main a, main [tabindex]')].indexOf(element);
async function readAgain() {
  const main = document.querySelector('main');
  if (document.hidden || document.activeElement.closest('form')) return;
  const stale = document.getElementById('stale');
  try {
    const answer = await fetch(location.href, { cache: 'no-store' });
    if (!answer.ok) throw new Error('status ' + answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), 'text/html');
    const content = fresh.querySelector('main');
    // A proxy or a login page has answered.
    if (!content) throw new Error('the answer is another page');
    if (document.activeElement.closest('form')) return;
    const focused = place(document.activeElement);
    const across = [...main.querySelectorAll('.scroll')].map((part) => part.scrollLeft);
    const { scrollX, scrollY } = window;
    main.replaceWith(content);
    document.title = fresh.title;
    document.body.dataset.refresh = fresh.body.dataset.refresh;
    takeKeyAlong();
    document.querySelectorAll('.scroll').forEach((part, at) => { part.scrollLeft = across[at] ?? 0; });
    if (focused >= 0) document.querySelectorAll('main a, main [tabindex]')[focused]?.focus({ preventScroll: true });
    window.scrollTo(scrollX, scrollY);
    stale.hidden = true;
  } catch (error) {
    if (stale.hidden) stale.textContent = 'Not refreshed since ' + new Date().toISOString().slice(11, 16) + ' UTC: ' + error.message;
    stale.hidden = false;
  }
}
// How often depends on the number of sites and devices, which changes.
function wait() {
  setTimeout(() => readAgain().finally(wait), document.body.dataset.refresh * 1000);
}
wait();
