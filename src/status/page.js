// The function key came in the URL: links and the form take it along. It is not written into the page itself.
const code = new URLSearchParams(location.search).get('code');
if (code) {
  for (const link of document.querySelectorAll('a[href^="?"]')) {
    const query = new URLSearchParams(link.getAttribute('href').slice(1));
    query.set('code', code);
    link.href = '?' + query;
  }
  for (const form of document.forms) {
    form.append(Object.assign(document.createElement('input'), { type: 'hidden', name: 'code', value: code }));
  }
}
