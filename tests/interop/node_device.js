// Microsoft's unmodified Node device SDK against the emulator.
//
// Usage: NODE_EXTRA_CA_CERTS=ca.pem node node_device.js READY_LINE. Prints a line for each case, then `N passed, N failed`.
// `node_device.js READY_LINE hold DEVICE` connects, subscribes, says so and waits to be killed.
//
// The SDK takes any port for MQTT, but only 443 for HTTPS and WebSocket, on an address of the emulator's own.
'use strict';

const assert = require('node:assert').strict;
const { spawn } = require('node:child_process');
const { createHmac } = require('node:crypto');
const { once } = require('node:events');
const { Client, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { Http } = require('azure-iot-device-http');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Mqtt: ProvisioningMqtt, MqttWs: ProvisioningMqttWs } = require('azure-iot-provisioning-device-mqtt');
const { Http: ProvisioningHttp } = require('azure-iot-provisioning-device-http');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');

// A case that takes longer, in milliseconds, has failed.
const PATIENCE = 12_000;

const ready = JSON.parse(process.argv[2]);
const host = new URL(ready.https).hostname;
const dpsAddress = new URL(ready.dps).host;

const ODD = {
  plain: '1',
  'with space': 'x y',
  '+&=%/?#': '+ & = % / ? #',
  größe: 'äöü ß €',
  percent: '%20%',
};

// All that the hub takes in properties over HTTPS beside letters and digits; the SDK does not encode anything.
const ODD_HEADERS = { plain: '1', "!#$%&'*+-.^_`|~": "!#$%&'*+-.^_`|~", percent: '%20%' };

const hmac = (key, text) => createHmac('sha256', Buffer.from(key, 'base64')).update(text).digest('base64');
const derivedKey = (registrationId) => hmac(ready.groupKey, registrationId);
const later = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

async function control(method, path, query = {}, body) {
  const url = new URL(path, ready.control);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  const response = await fetch(url, { method, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await response.text();
  assert(response.ok, `${method} ${path}: ${response.status} ${text}`);
  return text === '' ? undefined : JSON.parse(text);
}

// What a device sent, once there are so many messages.
async function received(device, number = 1) {
  const messages = await control('GET', 'received', { device, wait: number, timeout_ms: 5000 });
  return messages.map(({ body, properties, systemProperties }) => ({ body, properties, systemProperties }));
}

// State and number of deliveries of each message to a device, once as many as asked for are in that state.
async function states(device, wait) {
  const messages = await control('GET', 'c2d', { device, wait, timeout_ms: 5000 });
  return messages.map(({ state, deliveryCount }) => [state, deliveryCount]);
}

// A device on MQTT: the name it knows the hub by is not the address it connects to.
function mqtt(device, key = ready.key) {
  const parts = ['HostName=myhub.azure-devices.net', `DeviceId=${device}`, `SharedAccessKey=${key}`];
  return Client.fromConnectionString([...parts, `GatewayHostName=${ready.mqtt}`].join(';'), Mqtt);
}

// A device on port 443.
function on443(device, transport, key = ready.key) {
  return Client.fromConnectionString(`HostName=${host};DeviceId=${device};SharedAccessKey=${key}`, transport);
}

function token(key, resource, seconds) {
  const encoded = encodeURIComponent(resource);
  const expiry = Math.floor(Date.now() / 1000) + seconds;
  return `SharedAccessSignature sr=${encoded}&sig=${encodeURIComponent(hmac(key, `${encoded}\n${expiry}`))}&se=${expiry}`;
}

function oddMessage(properties) {
  const message = new Message('{"temperature":21.5,"ort":"Größe"}');
  message.messageId = 'a b/1+';
  message.correlationId = 'c&d';
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  for (const [name, value] of Object.entries(properties)) message.properties.add(name, value);
  return message;
}

async function sends(client, device, properties = ODD) {
  await client.open();
  await client.sendEvent(oddMessage(properties));
  await client.sendEvent(new Message('second'));
  await client.close();
  const systemProperties = { '$.mid': 'a b/1+', '$.cid': 'c&d', '$.ct': 'application/json', '$.ce': 'utf-8' };
  assert.deepEqual(await received(device, 2), [
    { body: '{"temperature":21.5,"ort":"Größe"}', properties, systemProperties },
    { body: 'second', properties: {}, systemProperties: {} },
  ]);
}

async function provisions(id, transport, address, key = derivedKey(id)) {
  const security = new SymmetricKeySecurityClient(id, key);
  return ProvisioningDeviceClient.create(address, ready.idScope, transport, security).register();
}

async function registersAndSends(id, transport, address) {
  const { assignedHub, deviceId, status } = await provisions(id, transport, address);
  assert.deepEqual([assignedHub, deviceId, status], [ready.mqtt, id, 'assigned']);
  const parts = `HostName=${assignedHub};DeviceId=${deviceId};SharedAccessKey=${derivedKey(id)}`;
  const client = Client.fromConnectionString(parts, Mqtt);
  await client.open();
  await client.sendEvent(new Message('from a new device'));
  await client.close();
  assert.equal((await received(id))[0].body, 'from a new device');
}

const refused = (promise) => assert.rejects(promise, { name: 'UnauthorizedError' });

async function openAndSend(client) {
  await client.open();
  await client.sendEvent(new Message('x'));
}

async function expired(device, transport, hub) {
  // The hub's clock is in whole seconds.
  const seconds = 1;
  const text = token(ready.key, `${hub}/devices/${device}`, seconds);
  await later((seconds + 1) * 1000);
  await refused(openAndSend(Client.fromSharedAccessSignature(text, transport)));
}

// The next message to a device.
async function message(client) {
  const [message] = await once(client, 'message', { signal: AbortSignal.timeout(5000) });
  return message;
}

const cases = {
  registersAndSendsOverMqtt: () => registersAndSends('node-dps', new ProvisioningMqtt(), dpsAddress),
  registersAndSendsOverWebSocket: () => registersAndSends('node-dps-ws', new ProvisioningMqttWs(), host),
  registersAndSendsOverHttps: () => registersAndSends('node-dps-http', new ProvisioningHttp(), host),

  isNotRegisteredWithABadKeyOverMqtt: () =>
    assert.rejects(provisions('bad', new ProvisioningMqtt(), dpsAddress, ready.key), { name: 'UnauthorizedError' }),
  isNotRegisteredWithABadKeyOverHttps: () =>
    assert.rejects(provisions('bad', new ProvisioningHttp(), host, ready.key), { name: 'UnauthorizedError' }),

  sendsTelemetryOverMqtt: () => sends(mqtt('node-mqtt'), 'node-mqtt'),
  sendsTelemetryOverWebSocket: () => sends(on443('node-ws', MqttWs), 'node-ws'),
  sendsTelemetryOverHttps: () => sends(on443('node-https', Http), 'node-https', ODD_HEADERS),

  async sendsABatchOverHttps() {
    const client = on443('node-batch', Http);
    await client.open();
    await client.sendEventBatch([oddMessage(ODD_HEADERS), new Message('second')]);
    const [first, second] = await received('node-batch', 2);
    assert.deepEqual([first.body, second.body], ['{"temperature":21.5,"ort":"Größe"}', 'second']);
    assert.deepEqual(first.properties, ODD_HEADERS);
  },

  async isToldThatHttpsDoesNotTakeAProperty() {
    const client = on443('node-odd', Http);
    await client.open();
    await assert.rejects(client.sendEvent(oddMessage({ ort: 'Brücke 1' })), { name: 'ArgumentError' });
  },

  async receivesAMessageOverMqtt() {
    const client = mqtt('node-c2d');
    const next = message(client);
    await client.open();
    const sent = { body: 'open the valve', messageId: 'm 1', correlationId: 'c/1', properties: { 'a+&%': '+ & = % / ?' } };
    await control('POST', 'c2d', { device: 'node-c2d' }, sent);
    const { data, messageId, correlationId, properties } = await next;
    assert.deepEqual([data.toString(), messageId, correlationId], ['open the valve', 'm 1', 'c/1']);
    assert.equal(properties.getValue('a+&%'), '+ & = % / ?');
    assert.deepEqual(await states('node-c2d', 'completed:1'), [['completed', 1]]);
    await client.close();
  },

  async receivesAgainWhatWasNotAcknowledged() {
    const first = spawn(process.execPath, [__filename, process.argv[2], 'hold', 'node-again'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      assert.equal((await once(first.stdout, 'data')).toString(), 'connected\n');
      // It cannot acknowledge any more what it is sent from now on.
      first.kill('SIGSTOP');
      await control('POST', 'c2d', { device: 'node-again' }, { body: 'once more' });
      assert.deepEqual(await states('node-again', 'locked:1'), [['locked', 1]]);
    } finally {
      first.kill('SIGKILL');
    }
    const client = mqtt('node-again');
    const next = message(client);
    await client.open();
    assert.equal((await next).data.toString(), 'once more');
    assert.deepEqual(await states('node-again', 'completed:1'), [['completed', 2]]);
    await client.close();
  },

  async receivesAbandonsRejectsAndCompletesOverHttps() {
    const client = on443('node-http-c2d', Http);
    client.setOptions({ http: { receivePolicy: { interval: 1 } } });
    for (const body of ['first', 'second']) {
      await control('POST', 'c2d', { device: 'node-http-c2d' }, { body, messageId: body, properties: { a: '1' } });
    }
    await client.open();
    let next = message(client);
    const once = await next;
    assert.deepEqual([once.data.toString(), once.messageId], ['first', 'first']);
    next = message(client);
    await client.abandon(once);
    const again = await next;
    assert.equal(again.data.toString(), 'first');
    next = message(client);
    await client.complete(again);
    const second = await next;
    assert.equal(second.data.toString(), 'second');
    await client.reject(second);
    assert.deepEqual(await states('node-http-c2d', 'rejected:1'), [['completed', 2], ['rejected', 1]]);
    await client.close();
  },

  async readsItsTwinAndReports() {
    const client = mqtt('node-twin');
    await client.open();
    const twin = await client.getTwin();
    assert.deepEqual(twin.properties.desired.$version, 1);
    await new Promise((resolve, reject) => {
      twin.properties.reported.update({ firmware: '1.0', ort: 'Größe' }, (error) => (error ? reject(error) : resolve()));
    });
    const { reported } = await control('GET', 'twin', { device: 'node-twin' });
    assert.deepEqual(reported, { firmware: '1.0', ort: 'Größe', $version: 2 });
    await client.close();
  },

  isRefusedWithABadKeyOverMqtt: () => refused(openAndSend(mqtt('node-bad', derivedKey('any')))),
  isRefusedWithABadKeyOverWebSocket: () => refused(openAndSend(on443('node-bad', MqttWs, derivedKey('any')))),
  isRefusedWithABadKeyOverHttps: () => refused(openAndSend(on443('node-bad', Http, derivedKey('any')))),
  isRefusedWithAnExpiredTokenOverMqtt: () => expired('node-expired', Mqtt, ready.mqtt),
  isRefusedWithAnExpiredTokenOverHttps: () => expired('node-expired', Http, host),

  async isRefusedWhenDisabled() {
    await control('PUT', 'devices', { device: 'node-off' }, { enabled: false, key: ready.key });
    await refused(openAndSend(mqtt('node-off')));
  },
};

async function run(name, test) {
  const late = later(PATIENCE).then(() => Promise.reject(new Error(`took more than ${PATIENCE} ms`)));
  try {
    await Promise.race([test(), late]);
    console.log(`ok ${name}`);
    return true;
  } catch (error) {
    console.log(`FAILED ${name}: ${error.name}: ${error.message.split('\n').join(' ')}`);
    return false;
  }
}

async function main() {
  let passed = 0;
  for (const [name, test] of Object.entries(cases)) passed += await run(name, test);
  const failed = Object.keys(cases).length - passed;
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

async function hold(device) {
  const client = mqtt(device);
  client.on('message', () => {});
  await client.open();
  console.log('connected');
}

if (process.argv[3] === 'hold') hold(process.argv[4]);
else main();
