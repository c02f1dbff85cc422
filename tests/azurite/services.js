// What the tests stand on: Azurite, the stand-ins for the other services, and the Functions host with this repository's app.
'use strict';

const assert = require('node:assert').strict;
const { randomBytes } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { Process } = require('./processes.js');

const ROOT = path.resolve(__dirname, '../..');
// No request takes longer, in milliseconds.
const PATIENCE = 30_000;
const FUNCTIONS = ['thingsNetworkUplink', 'thingsNetworkForwarding'];

// Folders that are removed in the end.
const folders = [];
process.on('exit', () => folders.forEach((folder) => fs.rmSync(folder, { recursive: true, force: true })));

function temporaryFolder() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'iothub-azurite-'));
  folders.push(folder);
  return folder;
}

// Azurite's queues and blobs, in memory, with an account of our own: `connection` is its connection string.
async function startAzurite() {
  const [name, key] = ['uplinktest', randomBytes(64).toString('base64')];
  const start = async (service) => {
    const program = path.join(__dirname, `node_modules/azurite/dist/src/${service}/main.js`);
    const options = [`--${service}Port`, '0', '--inMemoryPersistence', '--silent', '--disableTelemetry'];
    const azurite = new Process(`azurite-${service}`, process.execPath, [program, ...options], {
      cwd: temporaryFolder(),
      env: { PATH: process.env.PATH, AZURITE_ACCOUNTS: `${name}:${key}` },
    });
    const [[, url]] = await azurite.printed(/successfully listens on (http:\S+)/);
    return [azurite, `${url}/${name}`];
  };
  const [[azurite, queues], [, blobs]] = await Promise.all([start('queue'), start('blob')]);
  azurite.connection =
    `DefaultEndpointsProtocol=http;AccountName=${name};AccountKey=${key};QueueEndpoint=${queues};BlobEndpoint=${blobs}`;
  return azurite;
}

// One of the connector's stand-ins; `ready` is the line that says where it is.
async function startEmulator(connector, name, ...options) {
  const emulator = new Process(name, connector, ['emulator', name, ...options], { env: { PATH: process.env.PATH } });
  const [[line]] = await emulator.printed(/^\{"emulator":.*/);
  emulator.ready = JSON.parse(line);
  return emulator;
}

// A request to an emulator's control endpoint.
async function control(emulator, method, request, body) {
  const signal = AbortSignal.timeout(PATIENCE);
  const payload = body === undefined ? undefined : JSON.stringify(body);
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(emulator.ready.control + request, { method, headers, body: payload, signal });
  const text = await response.text();
  assert(response.ok, `${method} ${request}: ${response.status} ${text}`);
  return text && JSON.parse(text);
}

// A copy of the app with other members of host.json's `extensions.queues`.
function app(queues) {
  const folder = temporaryFolder();
  for (const name of FUNCTIONS) {
    fs.mkdirSync(path.join(folder, name));
    fs.copyFileSync(path.join(ROOT, name, 'function.json'), path.join(folder, name, 'function.json'));
  }
  const host = JSON.parse(fs.readFileSync(path.join(ROOT, 'host.json'), 'utf8'));
  Object.assign(host.extensions.queues, queues);
  fs.writeFileSync(path.join(folder, 'host.json'), JSON.stringify(host));
  return folder;
}

// A webhook to the Functions host.
async function post(host, body, headers = {}) {
  const signal = AbortSignal.timeout(PATIENCE);
  const all = { 'content-type': 'application/json', ...headers };
  const answer = await fetch(`${host.ready.endpoint}api/uplink`, { method: 'POST', headers: all, body, signal });
  return { status: answer.status, text: await answer.text() };
}

// The Functions host with the app.
async function startHost(connector, settings, queues = {}) {
  const environment = Object.entries(settings).flatMap(([name, value]) => ['--env', `${name}=${value}`]);
  return startEmulator(connector, 'functions_host', '--app', app(queues), '--handler', connector, ...environment);
}

module.exports = { ROOT, control, post, startAzurite, startEmulator, startHost };
