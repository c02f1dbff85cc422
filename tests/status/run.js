// The status page in a browser: what it shows, that it loads nothing, that it can be read on a phone, in the dark and by a
// screen reader. Leaves pictures in target/status.
//
// Usage: node --test-reporter=spec run.js CONNECTOR [CHROMIUM]
//
// With STATUS_PICTURE=write in the environment it also makes the picture in the documents, docs/images/status-page.png. Only then,
// because each run shows other times and values.
'use strict';

const assert = require('node:assert').strict;
const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');
const { after, before, test } = require('node:test');

const { chromium } = require('playwright-core');

const { stopAll } = require('../azurite/processes.js');
const { ROOT, control, startEmulator } = require('../azurite/services.js');
const { CUSTOMER, addOddCursor, fill } = require('./fleet.js');

const connector = path.resolve(process.argv[2]);
const executablePath = process.argv[3] ?? '/usr/bin/chromium';
const PICTURES = path.join(ROOT, 'target/status');
const PICTURE_OF_DOCUMENTS = path.join(ROOT, 'docs/images/status-page.png');
const LARGEST_PICTURE = 150 * 1024;
const AXE = fs.readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');
const SITES = 10_000;
// A case that takes longer, in milliseconds, has failed.
const PATIENCE = 180_000;
const LARGEST_PAGE = 100 * 1024;
// How long a page that has something older to show waits for Cosmos DB, and a delay that two of its requests make longer than that,
// both in milliseconds.
const READ_TIMEOUT = 12_000;
const SLOW = 7_500;
const DESKTOP = { width: 1280, height: 900 };
const PHONE = { width: 390, height: 844 };

let browser;

before(async () => {
  fs.mkdirSync(PICTURES, { recursive: true });
  browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
});

after(async () => {
  await browser?.close();
  await stopAll();
});

// The app among its stand-ins; `poll` runs the timer function once. Settings can depend on the hub's addresses.
async function startApp(settings = {}, ...options) {
  const [backend, cosmos, hub] = await Promise.all([
    startEmulator(connector, 'rapidm2m', ...options),
    startEmulator(connector, 'cosmos'),
    startEmulator(connector, 'iot_hub', '--dps-retry-after', '0'),
  ]);
  const all = {
    M2MBackendURL: backend.ready.endpoint,
    Base64encodedUsernamePassword: Buffer.from(`${backend.ready.user}:${backend.ready.password}`).toString('base64'),
    Customer_ID: CUSTOMER,
    Site_ID: '*',
    Channelnames: '*',
    StartFrom: 'all',
    // Each run polls each site.
    SweepMinutes: '0',
    RecordEmptyPolls: 'true',
    MarkWithinSeconds: '0',
    M2MDocumentsDBUri: cosmos.ready.endpoint,
    M2MDocumentsDBPrimaryKey: cosmos.ready.key,
    IoTHubURL: hub.ready.mqtt,
    IoTHubDeviceId: 'forwarder',
    IoTHubDeviceKey: hub.ready.key,
    IoTHubTrustedCa: hub.ready.ca,
    DPSGlobalDeviceEndpoint: hub.ready.dps,
    DPSIDScopeDefault: hub.ready.idScope,
    DPSEnrollmentGroupSymmetricKeyDefault: hub.ready.groupKey,
    UplinkQueueName: 'uplinks',
    DeviceActivitySeconds: '1',
    ...(typeof settings === 'function' ? settings(hub.ready) : settings),
  };
  const environment = Object.entries(all).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
  const app = ['--app', ROOT, '--handler', connector, '--home', 'status', '--schedule', '0 0 0 1 1 *'];
  const host = await startEmulator(connector, 'functions_host', ...app, ...environment);
  const poll = async () => {
    const url = `${host.ready.endpoint}admin/functions/rapidM2MForwarding?wait`;
    return (await fetch(url, { method: 'POST', body: '{}' })).json();
  };
  return { backend, cosmos, hub, host, poll, settings: all, endpoint: host.ready.endpoint };
}

async function json(url) {
  const answer = await fetch(url);
  assert.equal(answer.status, 200, url);
  return answer.json();
}

// Until `find` finds something in what the page has as JSON: what was read is kept for some seconds.
async function shown(url, find) {
  const end = Date.now() + PATIENCE / 3;
  for (;;) {
    const answer = await fetch(url);
    const found = find(await answer.json(), answer.status);
    if (found) return found;
    assert(Date.now() < end, `${url} does not come to show it`);
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

// Opens a page, holds it to what must hold of every page, and takes its picture.
async function visit(url, picture, { viewport = DESKTOP, colorScheme = 'light' } = {}) {
  const context = await browser.newContext({ viewport, colorScheme, locale: 'en-GB' });
  const page = await context.newPage();
  const [requests, messages] = [[], []];
  page.on('request', (request) => requests.push(request.url()));
  page.on('console', (message) => messages.push(message.text()));
  page.on('pageerror', (error) => messages.push(String(error)));
  const response = await page.goto(url);
  const body = await response.body();
  assert(body.length <= LARGEST_PAGE, `${url} has ${body.length} bytes`);
  assert.deepEqual(requests, [url], 'a page loads nothing');
  assert.deepEqual(messages, [], 'a page has nothing to complain of');
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert(width <= viewport.width, `${url} is ${width} wide in a window of ${viewport.width}`);
  await page.screenshot({ path: path.join(PICTURES, `${picture}.png`), fullPage: false });
  // Its own context: the page's policy would not let the examiner in.
  const examined = await browser.newContext({ viewport, colorScheme, bypassCSP: true });
  const copy = await examined.newPage();
  await copy.goto(url);
  await copy.evaluate(AXE);
  const { violations } = await copy.evaluate(() => globalThis.axe.run());
  const faults = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0].html}`);
  assert.deepEqual(faults, [], 'a page can be read by everybody');
  await examined.close();
  return { page, text: await page.innerText('main'), html: body.toString(), status: response.status() };
}

// The top of a page that is open.
async function pictureOfDocuments(page) {
  const picture = await page.screenshot({ clip: { x: 0, y: 0, width: DESKTOP.width, height: 690 } });
  assert(picture.length <= LARGEST_PICTURE, `the picture has ${picture.length} bytes`);
  fs.mkdirSync(path.dirname(PICTURE_OF_DOCUMENTS), { recursive: true });
  fs.writeFileSync(PICTURE_OF_DOCUMENTS, picture);
}

const uplink = (device, temperature) => ({
  end_device_ids: { device_id: device, application_ids: { application_id: 'pumps' }, dev_eui: '0004A30B001C0530' },
  received_at: new Date().toISOString(),
  uplink_message: {
    f_port: 1,
    f_cnt: 1,
    frm_payload: 'gkHe',
    decoded_payload: { temperature, level: temperature / 10 },
    rx_metadata: [{ gateway_ids: { gateway_id: 'gtw1' }, rssi: -35, snr: 5.2 }],
    settings: {},
    received_at: new Date().toISOString(),
  },
});

test('three sites and a device that are well', { timeout: PATIENCE }, async () => {
  const app = await startApp();
  const empty = await visit(app.endpoint, 'empty');
  assert.match(empty.text, /No site was polled and no uplink forwarded yet/);

  assert.equal((await app.poll()).succeeded, true);
  for (const temperature of [20, 21, 19.5]) {
    const body = JSON.stringify(uplink('pump-7', temperature));
    const headers = { 'content-type': 'application/json' };
    assert.equal((await fetch(`${app.endpoint}api/uplink`, { method: 'POST', headers, body })).status, 202);
  }
  const device = await shown(`${app.endpoint}api/status?format=json`, ({ Items }) =>
    Items.find((item) => item.DeviceID === 'pump-7' && item.PerHour.at(-1) === 3),
  );
  assert.equal(device.State, 'ok');

  const { page, text } = await visit(app.endpoint, 'healthy');
  for (const part of ['Energy meter 1', 'Reservoir Süd', 'Well 7 / Level', 'pump-7', '● 4 ok', '✕ 0 failing']) {
    assert(text.includes(part), `${part} is missing in ${text}`);
  }
  assert.match(await page.innerText('.items li:has-text("pump-7")'), /level 1\.95/);
  assert.match(await page.innerText('.items li:has-text("Energy meter 1")'), /ch0 \d/);
  await Promise.all([page.waitForURL(/application=pumps/), page.click('nav.groups a:has-text("pumps")')]);
  assert.equal(await page.locator('.items li').count(), 1);
  await Promise.all([page.waitForURL(/q=pump/), page.fill('input[type=search]', 'pump').then(() => page.click('form button'))]);
  assert.match(page.url(), /application=pumps/, 'a search stays within the application');
  await visit(app.endpoint, 'healthy-dark', { colorScheme: 'dark' });
  await visit(app.endpoint, 'healthy-phone', { viewport: PHONE });

  const site = await visit(`${app.endpoint}?site=Energy+meter+1&customer=Demo+Water+Utility`, 'site');
  for (const part of ['Energy meter 1', 'ch0', 'Last polls', 'forwarded']) assert(site.text.includes(part), part);
  assert.equal(await site.page.locator('.charts figure').count(), 4);
  await visit(`${app.endpoint}?site=Energy+meter+1`, 'site-phone', { viewport: PHONE, colorScheme: 'dark' });
  const detail = await json(`${app.endpoint}?site=Energy+meter+1&format=json`);
  assert.equal(detail.RecentPolls[0].Outcome, 'forwarded');
  assert(detail.Channels[0].Points.length >= 60, 'the hour of history');

  const lorawan = await visit(`${app.endpoint}?device=pump-7&application=pumps`, 'device');
  for (const part of ['temperature', 'level', 'Rssi', '19.5 to 21']) assert(lorawan.text.includes(part), part);
  const answer = await fetch(`${app.endpoint}?site=nobody`);
  assert.equal(answer.status, 404);
  assert.match(await answer.text(), /nothing is known of site &quot;nobody&quot;/);
});

test('one site that fails, with its reason, comes first', { timeout: PATIENCE }, async () => {
  const app = await startApp();
  await app.poll();
  await control(app.backend, 'PUT', 'faults', { rules: [{ status: 401, site: 'Reservoir Süd' }] });
  assert.equal((await app.poll()).succeeded, false);
  await shown(`${app.endpoint}api/status?format=json`, ({ States }) => States.failing === 1);
  const { page, text } = await visit(app.endpoint, 'failing');
  assert.match(await page.innerText('.items li:first-child'), /failing\s+Reservoir Süd[^]*unauthorized/);
  assert(text.includes('✕ 1 failing'), text);
  assert.equal(await page.title(), '1 failing · IoT Hub Connector');
  await visit(app.endpoint, 'failing-phone', { viewport: PHONE });
  const site = await visit(`${app.endpoint}?site=Reservoir+S%C3%BCd`, 'failing-site');
  assert.match(site.text, /unauthorized since \d\d:\d\d UTC[^]*Next attempt in/);

  // The state's link shows those in it only.
  await Promise.all([page.waitForURL(/state=failing/), page.click('nav a.failing')]);
  assert.equal(await page.locator('.items li').count(), 1);

  // The last known state stays, marked as old, until Cosmos DB is back.
  await control(app.cosmos, 'PUT', 'away', true);
  await shown(`${app.endpoint}?format=json`, ({ Away }, status) => Away && status === 503);
  const old = await visit(app.endpoint, 'cosmos-away');
  assert.match(old.text, /As of \d\d:\d\d UTC: Cosmos DB cannot be read since \d\d:\d\d UTC\. [^]*Reservoir Süd/);
  assert.equal(old.status, 200);
  const oldSite = await visit(`${app.endpoint}?site=Reservoir+S%C3%BCd`, 'cosmos-away-site');
  assert.match(oldSite.text, /Cosmos DB cannot be read since/);
  await control(app.cosmos, 'PUT', 'away', false);
  await shown(`${app.endpoint}?format=json`, ({ Away }, status) => Away === null && status === 200);
});

test('nothing is known while Cosmos DB is away from the start', { timeout: PATIENCE }, async () => {
  const app = await startApp();
  await control(app.cosmos, 'PUT', 'away', true);
  const context = await browser.newContext({ viewport: DESKTOP });
  const away = await context.newPage();
  assert.equal((await away.goto(app.endpoint)).status(), 503);
  assert.match(await away.innerText('main'), /cannot be reached|did not answer/);

  // A process that has nothing older to show waits longer for a slow database than one that has.
  await control(app.cosmos, 'PUT', 'away', false);
  await app.poll();
  const { endpoint: M2MDocumentsDBUri, key: M2MDocumentsDBPrimaryKey } = app.cosmos.ready;
  const other = await startApp({ M2MDocumentsDBUri, M2MDocumentsDBPrimaryKey });
  await control(app.cosmos, 'PUT', 'trouble', ['GET', 'POST'].map((method) => ({ method, times: 1, effect: { delayMs: SLOW } })));
  const started = Date.now();
  const slow = await fetch(`${other.endpoint}?format=json`);
  const took = Date.now() - started;
  assert.equal(slow.status, 200);
  assert(took > READ_TIMEOUT, `the database answered in ${took} ms, so this shows nothing`);
});

test('the page is read again by itself, and works without a script', { timeout: PATIENCE }, async () => {
  const app = await startApp();
  await app.poll();
  await shown(`${app.endpoint}?format=json`, ({ States }) => States.ok === 3);
  const context = await browser.newContext({ viewport: { width: 1280, height: 300 } });
  const page = await context.newPage();
  const pageErrors = [];
  page.on('console', (message) => pageErrors.push(message.text()));
  await page.clock.install();
  await page.goto(`${app.endpoint}?state=ok`);
  await page.evaluate(() => window.scrollTo(0, 120));
  let requests = 0;
  page.on('request', () => (requests += 1));
  await control(app.backend, 'PUT', 'faults', { rules: [{ status: 404, site: 'Reservoir Süd' }] });
  await app.poll();
  await shown(`${app.endpoint}?format=json`, ({ States }) => States.failing === 1);
  await page.evaluate(() => Object.defineProperty(document, 'hidden', { configurable: true, get: () => true }));
  await page.clock.fastForward(31_000);
  assert.equal(requests, 0, 'nobody looks at it');
  await page.evaluate(() => delete document.hidden);
  await page.clock.fastForward(31_000);
  await page.waitForFunction(() => document.title.startsWith('1 failing'));
  assert.equal(requests, 1);
  assert.equal(await page.locator('.items li').count(), 2, 'the filter stays');
  assert.equal(await page.evaluate(() => window.scrollY), 120, 'the place stays');
  assert.deepEqual(pageErrors, []);

  // Some answer that is no status page, such as a proxy's.
  await page.route('**/*', (route) => route.fulfill({ contentType: 'text/html', body: '<h1>Sign in</h1>' }));
  await page.clock.fastForward(31_000);
  await page.waitForSelector('#stale:not([hidden])');
  assert.match(await page.innerText('#stale'), /the answer is another page/);
  assert.equal(await page.locator('.items li').count(), 2, 'what was shown stays');
  assert.deepEqual(pageErrors, []);

  // A page of more sites asks to be read less often.
  await page.unroute('**/*');
  await page.route('**/*', async (route) => {
    const answer = await route.fetch();
    const body = (await answer.text()).replace('data-refresh="30"', 'data-refresh="60"');
    await route.fulfill({ response: answer, body });
  });
  await page.clock.fastForward(31_000);
  await page.waitForSelector('#stale', { state: 'hidden' });
  requests = 0;
  await page.clock.fastForward(31_000);
  await page.evaluate(() => document.title);
  assert.equal(requests, 0, 'it was read 31 s ago');
  await page.unroute('**/*');
  await page.route('**/*', (route) => route.abort());
  await page.clock.fastForward(31_000);
  await page.waitForSelector('#stale:not([hidden])');
  assert.equal(requests, 1);
  assert.equal(await page.locator('.items li').count(), 2, 'what was shown stays');

  const plain = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
  await plain.goto(app.endpoint);
  await Promise.all([plain.waitForURL(/state=failing/), plain.click('nav a.failing')]);
  assert.equal(await plain.locator('.items li').count(), 1);
});

test('a backend that refuses the credentials is one cause at the top', { timeout: PATIENCE }, async () => {
  const app = await startApp();
  await app.poll();
  await control(app.backend, 'PUT', 'faults', { rules: [{ status: 401 }] });
  assert.equal((await app.poll()).succeeded, false);
  await shown(`${app.endpoint}?format=json`, ({ Unlisted, Causes }) => Unlisted ?? Causes[0]);
  const { text } = await visit(app.endpoint, 'unauthorized');
  assert.equal(text.match(/The backend refuses the credentials since \d\d:\d\d UTC/g)?.length, 1, text);
});

test('what waits for the hub, and why', { timeout: PATIENCE }, async () => {
  const app = await startApp();
  await control(app.hub, 'PUT', 'away', true);
  // The first run finds out, the second one writes it down.
  for (let run = 0; run < 2; run += 1) assert.equal((await app.poll()).succeeded, false);
  const { page, text } = await visit(app.endpoint, 'hub-away');
  assert.match(text, /IoT Hub cannot be reached since \d\d:\d\d UTC: 3 of 3 sites affected/);
  assert.match(text, /Waiting for IoT Hub: \d+ messages of 3 sites/);
  assert.equal(await page.title(), '3 failing · IoT Hub Connector');
  const { Items } = await json(`${app.endpoint}?format=json`);
  assert(Items.every((item) => item.State === 'failing' && item.Waiting > 0), JSON.stringify(Items));
  assert(Items.some((item) => item.Errors.some(({ Kind }) => Kind === 'hub_unreachable')), JSON.stringify(Items));

  await control(app.hub, 'PUT', 'away', false);
  assert.equal((await app.poll()).succeeded, true);
  await shown(`${app.endpoint}?format=json`, ({ States }) => States.ok === 3);
});

test('what was rejected is sent again by the command on the page, and an odd document hides nothing', { timeout: PATIENCE }, async () => {
  const app = await startApp((hub) => ({ IoTHubTransport: 'https', IoTHubURL: hub.https.replace('https://', '') }));
  const refusal = { status: 400, body: '{"Message":"ErrorCode:ArgumentInvalid;no"}' };
  await control(app.hub, 'PUT', 'trouble', [{ method: 'POST', path: '/messages/events', times: 1, effect: { answer: refusal } }]);
  assert.equal((await app.poll()).succeeded, true, 'one of three sites');
  await addOddCursor(app.cosmos);
  const { Sites } = await shown(`${app.endpoint}?format=json`, ({ Rejected }) => Object.keys(Rejected.Sites).length > 0 && Rejected);
  assert.deepEqual(Object.values(Sites), [1]);
  const { page, text } = await visit(app.endpoint, 'rejected');
  assert.match(text, /1 message of 1 site was rejected\. Fix the cause first/);
  assert.match(text, /Sites that are not shown, because their documents cannot be read: 1\. [^]*Odd station/);
  await visit(app.endpoint, 'rejected-phone', { viewport: PHONE, colorScheme: 'dark' });

  const [program, ...rest] = await page.innerText('.note code:has-text("--all")').then((command) => command.match(/"[^"]*"|\S+/g));
  assert.equal(program, 'iothub-connector');
  const env = { ...process.env, ...app.settings };
  const replayed = spawnSync(connector, rest.map((word) => word.replaceAll('"', '')), { env, encoding: 'utf8' });
  assert.equal(replayed.status, 0, replayed.stdout + replayed.stderr);
  // The second run from then sends them.
  for (let run = 0; run < 2; run += 1) await app.poll();
  await shown(`${app.endpoint}?format=json`, ({ Rejected }) => Object.keys(Rejected.Sites).length === 0);
  const { messages } = await json(`${app.hub.ready.control}counts`);
  assert.equal(messages, 3);
});

test('the function key goes from page to page and stands in none', { timeout: PATIENCE }, async () => {
  const app = await startApp();
  await app.poll();
  const key = 'k3y/with+signs==';
  const first = `${app.endpoint}api/status?code=${encodeURIComponent(key)}`;
  const { page, html } = await visit(first, 'key');
  assert(!html.includes('k3y'), 'the key is in the page');
  await Promise.all([page.waitForURL(/site=/), page.click('.items li:first-child a')]);
  assert.equal(new URL(page.url()).searchParams.get('code'), key);
  await page.goBack();
  await page.fill('input[type=search]', 'reservoir');
  await Promise.all([page.waitForURL(/q=reservoir/), page.click('form button')]);
  assert.equal(new URL(page.url()).searchParams.get('code'), key);
  assert.equal(await page.locator('.items li').count(), 1);
});

test('ten thousand sites, by trouble and page by page', { timeout: PATIENCE }, async () => {
  const app = await startApp({}, '--sites', '1');
  await app.poll();
  await fill(app.cosmos, SITES);
  await shown(`${app.endpoint}api/status?format=json&limit=1`, ({ Total }) => Total === SITES + 1);
  const { page, text } = await visit(app.endpoint, 'ten-thousand');
  assert.match(text, /1–50 of 10001/);
  assert(text.includes('✕ 400 failing'), text);
  if (process.env.STATUS_PICTURE === 'write') await pictureOfDocuments(page);
  await visit(app.endpoint, 'ten-thousand-phone', { viewport: PHONE });
  await Promise.all([page.waitForURL(/from=50/), page.click('a[rel=next]')]);
  assert.match(await page.locator('nav.places').first().innerText(), /^51–100 of 10001/);

  const names = new Set();
  let states = [];
  for (let from = 0; from !== null; ) {
    const { Items, Next } = await json(`${app.endpoint}api/status?format=json&limit=1000&from=${from}`);
    Items.forEach((item) => names.add(item.Site_Id));
    states = states.concat(Items.map((item) => item.State));
    from = Next;
  }
  assert.equal(names.size, SITES + 1, 'every site is on one page');
  const order = ['failing', 'waiting', 'silent', 'never', 'ok'].map((state) => states.indexOf(state)).filter((at) => at >= 0);
  assert.deepEqual(order, [...order].sort((one, other) => one - other), 'the most troubled first');
  const found = await json(`${app.endpoint}api/status?format=json&q=station+00042`);
  assert.deepEqual(found.Items.map((item) => item.Site_Id), ['Pumping station 00042']);
});
