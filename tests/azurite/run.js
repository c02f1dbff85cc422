// The queues of the Functions host against Azurite: what the app leaves in them, what it makes of what others put there, and
// where a message ends that fails again and again. And the leased blobs by which hosts agree on a timer.
//
// Usage: node --test-reporter=spec run.js CONNECTOR, the binary under test. Needs cargo, for a test of the storage client.
//
// The SDK's version in package.json is the newest one whose version of the protocol this Azurite knows.
'use strict';

const assert = require('node:assert').strict;
const { execFile } = require('node:child_process');
const path = require('node:path');
const { promisify } = require('node:util');
const { after, before, test } = require('node:test');

const { Process, stopAll } = require('./processes.js');
const { Queue, decoded, encoded } = require('./queues.js');
const { ROOT, control, post, startAzurite, startEmulator, startHost } = require('./services.js');
const { LARGEST_TEXT, fixtures, hard, tooLarge, uplink } = require('./webhooks.js');

// A case that takes longer, in milliseconds, has failed; cargo may have to compile.
const PATIENCE = 120_000;
const CARGOS_PATIENCE = 600_000;

const FAILED = /^thingsNetworkForwarding failed /;
const SUCCEEDED = /^thingsNetworkForwarding succeeded /;

// The fixture without any time: only that of the request tells it from the device's next uplink, also in the message id.
const MASKED = 'v3-field-mask';

// Settings, and members of host.json's `extensions.queues`.
const DISABLED = { 'AzureWebJobs.thingsNetworkForwarding.Disabled': 'true' };
const IMPATIENT = { ForwardTimeoutSeconds: '1' };
const SOON_AGAIN = { visibilityTimeout: '00:00:01' };
const THREE_TIMES = { ...SOON_AGAIN, maxDequeueCount: 3 };

const connector = path.resolve(process.argv[2]);
let azurite;

before(async () => {
  azurite = await startAzurite();
});

after(stopAll);

// A case with queues and services of its own.
function withHost(queue, what, settings, options, run) {
  test(what, { timeout: PATIENCE }, async (t) => {
    const [uplinks, poison, rejected] = ['', '-poison', '-rejected'].map(
      (suffix) => new Queue(azurite.connection, queue + suffix),
    );
    const services = [startEmulator(connector, 'cosmos'), startEmulator(connector, 'iot_hub', '--dps-retry-after', '0')];
    const [cosmos, hub] = await Promise.all(services);
    const all = {
      AzureStorageConnectionString: azurite.connection,
      UplinkQueueName: queue,
      M2MDocumentsDBUri: cosmos.ready.endpoint,
      M2MDocumentsDBPrimaryKey: cosmos.ready.key,
      DPSGlobalDeviceEndpoint: hub.ready.dps,
      DPSIDScopeDefault: hub.ready.idScope,
      DPSEnrollmentGroupSymmetricKeyDefault: hub.ready.groupKey,
      IoTHubTrustedCa: hub.ready.ca,
      ThingsNetworkEvents: 'true',
      ...settings,
    };
    const host = await startHost(connector, all, options);
    try {
      await run({ host, hub, uplinks, poison, rejected });
    } catch (error) {
      t.diagnostic(`${what}: the host's last lines\n${host.tail()}`);
      throw error;
    } finally {
      for (const started of [host, hub, cosmos]) await started.stop();
    }
  });
}

async function postAll(host, webhooks, statusOf) {
  for (const { name, body, headers, expected } of webhooks) {
    const { status, text } = await post(host, body, headers);
    assert.equal(status, statusOf(expected), `${name} is answered ${text}`);
  }
}

const accepted = (expected) => (expected?.isUplink === false ? 200 : 202);
const refusedAsTooLarge = () => 413;

// What the hub got, once there are so many messages; no more than these.
async function received(hub, count) {
  const messages = await control(hub, 'GET', `received?wait=${count}&timeout_ms=60000`);
  assert.equal(messages.length, count, 'messages at the hub');
  return messages.map((message) => ({ ...message, body: JSON.parse(message.body) }));
}

// A message as the app queues it.
function envelope(stored) {
  const text = decoded(stored);
  const { ReceivedAtUTC, Downlink, ...rest } = JSON.parse(text);
  assert.deepEqual(Object.keys(rest), ['Webhook'], text);
  const member = '"Webhook":';
  return { ReceivedAtUTC, Downlink, webhook: text.slice(text.indexOf(member) + member.length, -1), text };
}

withHost('stored', 'webhooks are stored in Base64, byte for byte', DISABLED, {}, async ({ host, uplinks }) => {
  assert.deepEqual(host.ready.functions, ['thingsNetworkUplink']);
  const push = 'https://ttn.example/api/v3/as/applications/app/webhooks/w/devices/d/down/push';
  const withKeys = {
    name: 'with downlink headers',
    body: uplink('d', '{}'),
    headers: { 'X-Downlink-Apikey': 'NNSXS.KEY', 'X-Downlink-Push': push },
    keys: { ApiKey: 'NNSXS.KEY', Push: push },
  };
  const webhooks = [...fixtures(), ...hard(), withKeys];
  const started = Date.now();
  await postAll(host, webhooks, accepted);
  await postAll(host, tooLarge(), refusedAsTooLarge);
  const ended = Date.now();

  const stored = await uplinks.texts(webhooks.length);
  const envelopes = stored.map(envelope);
  for (const { name, body, keys } of webhooks) {
    const found = envelopes.filter(({ webhook }) => webhook === body);
    assert.equal(found.length, 1, `${name}: messages with exactly this webhook, ${body.slice(0, 2000)}`);
    assert.deepEqual(found[0].Downlink, keys, name);
    const time = Date.parse(found[0].ReceivedAtUTC);
    assert(time >= started && time <= ended, `${name}: ReceivedAtUTC is ${found[0].ReceivedAtUTC}`);
  }
  const bytes = envelopes.map(({ text }) => Buffer.byteLength(text));
  assert.equal(Math.max(...bytes), LARGEST_TEXT, 'bytes of the largest text');
  assert.equal(Math.max(...stored.map((text) => text.length)), 64 * 1024, 'characters of the largest message');
});

withHost('forwarded', 'webhooks, and what others have put, reach the hub', {}, {}, async (world) => {
  const { host, hub, uplinks, poison, rejected } = world;
  const webhooks = [...fixtures(), ...hard()];
  await postAll(host, webhooks, accepted);
  // The C# sample stores the body alone; another host of this app stores what this one does.
  const others = fixtures().filter(({ name }) => /^(v2-uplink|v2-all-field-types|v3-uplink|v3-nested)$/.test(name));
  assert.equal(others.length, 4);
  for (const { body } of others) {
    await uplinks.put(encoded(body));
    await uplinks.put(encoded(`{"ReceivedAtUTC":"2026-01-31T12:00:00.000Z","Webhook":${body}}`));
  }

  const messages = await received(hub, webhooks.length + 2 * others.length);
  for (const { name, body, expected, decoded } of webhooks) {
    const device = expected?.device ?? JSON.parse(body).end_device_ids.device_id;
    const is = ({ deviceId, messageId }) => deviceId === device && (!expected || messageId === expected.messageId || name === MASKED);
    const found = messages.filter(is);
    assert.equal(found.length, others.some((other) => other.name === name) ? 3 : 1, `${name}: messages with its id`);
    for (const message of found) {
      const wanted = { ...(expected?.body ?? { ...message.body, ...decoded }) };
      // There is no time in that webhook but the one of the request.
      if (name === MASKED) wanted.ReceivedAtUTC = message.body.ReceivedAtUTC;
      assert.deepEqual(message.body, wanted, name);
    }
  }
  assert.equal(new Set(messages.map(({ messageId }) => messageId)).size, webhooks.length, 'different message ids');
  await uplinks.reaches(0);
  assert.deepEqual([await poison.count(), await rejected.count()], [0, 0], 'poison and rejected messages');
  assert.equal(host.count(FAILED), 0, 'failed invocations');
});

withHost('redelivered', 'a message is put back until the hub is there again', IMPATIENT, SOON_AGAIN, async (world) => {
  const { host, hub, uplinks, poison } = world;
  await control(hub, 'PUT', 'away', true);
  assert.equal((await post(host, uplink('patient', '{"level":1}'))).status, 202);
  await host.printed(SUCCEEDED);
  await uplinks.reaches(1);
  await control(hub, 'PUT', 'away', false);
  const [{ deviceId, body }] = await received(hub, 1);
  assert.deepEqual([deviceId, body.level], ['patient', 1]);
  await uplinks.reaches(0);
  assert.equal(await poison.count(), 0, 'poison messages');
  assert.equal(host.count(FAILED), 0, 'failed invocations');
});

// A webhook alone and one that the app has queued: both are put back, and written anew before the third attempt makes them
// poison.
async function stayInTheQueue({ host, uplinks, poison, rejected }, device, others) {
  const texts = [uplink(device, '{"größe":"<&>"}'), `{"Webhook":${uplink(device, '{"level": 2.0}')}}`].map(encoded);
  for (const text of texts) await uplinks.put(text);
  // The second attempt of each writes it anew.
  await host.printed(SUCCEEDED, 2 * texts.length + others);
  await uplinks.reaches(texts.length);
  assert.deepEqual([await poison.count(), await rejected.count()], [0, 0], 'poison and rejected messages');
  assert.equal(host.count(FAILED), 0, 'failed invocations');
}

withHost('refused', "a refused device's messages stay in the queue", IMPATIENT, THREE_TIMES, async (world) => {
  await control(world.hub, 'PUT', 'dps/faults', { failTimes: 1_000_000, devices: ['refused'] });
  await world.uplinks.put(encoded(uplink('welcome', '{}')));
  await received(world.hub, 1);
  await stayInTheQueue(world, 'refused', 1);
  assert.deepEqual((await received(world.hub, 1)).map(({ deviceId }) => deviceId), ['welcome']);
});

withHost('unreachable', 'messages for a hub that is away stay, too, and arrive', IMPATIENT, THREE_TIMES, async (world) => {
  await control(world.hub, 'PUT', 'away', true);
  await stayInTheQueue(world, 'unreachable', 0);
  await control(world.hub, 'PUT', 'away', false);
  const messages = await received(world.hub, 2);
  assert.deepEqual(new Set(messages.map(({ deviceId }) => deviceId)), new Set(['unreachable']));
  await world.uplinks.reaches(0);
});

withHost('unusable', 'what is not a webhook is rejected at once, what is not Base64 is poison', {}, THREE_TIMES, async (world) => {
  const { host, uplinks, poison, rejected } = world;
  const nameless = '{ "uplink_message":{"f_port":1,"decoded_payload":{"größe":1.0}} }';
  const unusable = [
    { text: 'hällo <&> "there"', reason: /is not a webhook/, kept: '"Text":"hällo <&> \\"there\\""' },
    { text: nameless, reason: /end_device_ids\.device_id/, kept: `"Webhook":${nameless}` },
    { text: '{"Webhook":{"app_id":"a"}}', reason: /dev_id missing/, kept: '"Webhook":{"app_id":"a"}' },
  ];
  for (const { text } of unusable) await uplinks.put(encoded(text));
  const foreign = '{"not":"Base64, but what a host with messageEncoding none stores"}';
  await uplinks.put(foreign);

  const texts = (await rejected.texts(unusable.length)).map(decoded);
  for (const { text, reason, kept } of unusable) {
    const found = texts.filter((text) => text.includes(kept));
    assert.equal(found.length, 1, `${text}: rejected messages with ${kept}, of\n${texts.join('\n')}`);
    const { Kind, Reason, RejectedAtUTC } = JSON.parse(found[0]);
    assert.equal(Kind, 'malformed');
    assert.match(Reason, reason);
    assert.match(RejectedAtUTC, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  }
  assert.deepEqual(await poison.texts(1), [foreign]);
  await uplinks.reaches(0);
  await host.printed(SUCCEEDED, unusable.length);
  const counts = [host.count(SUCCEEDED), host.count(FAILED)];
  assert.deepEqual(counts, [unusable.length, 0], 'succeeded and failed invocations');
});

// The command, as somebody runs it who has mended the cause.
async function replay(queue, connection, ...options) {
  const env = { UplinkQueueName: queue, AzureStorageConnectionString: connection };
  const args = ['replay', ...options, '--json'];
  const { stdout } = await promisify(execFile)(connector, args, { env, timeout: PATIENCE });
  return stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line));
}

withHost('replayed', 'what was rejected or poison is put back and reaches the hub', {}, {}, async (world) => {
  const { hub, uplinks, poison, rejected } = world;
  // The queue of uplinks is there as soon as something was in it.
  await uplinks.put(encoded(uplink('first', '{}')));
  await received(hub, 1);
  const webhook = uplink('mended', '{"größe":"<&>"}');
  await rejected.put(encoded(`{"Kind":"no_device","Reason":"r","RejectedAtUTC":"2026-01-31T12:00:00.000Z","Webhook":${webhook}}`));
  await poison.put(encoded(uplink('patient', '{"level":2}')));

  const dry = await replay('replayed', azurite.connection, '--queue', 'rejected', '--dry-run');
  assert.deepEqual(dry.map(({ endDevice, replayed }) => [endDevice, replayed]), [['mended', false]]);
  for (const queue of ['rejected', 'poison']) {
    const lines = await replay('replayed', azurite.connection, '--queue', queue);
    assert.deepEqual(lines.map(({ replayed }) => replayed), [true], JSON.stringify(lines));
  }
  const messages = await received(hub, 3);
  assert.deepEqual(messages.map(({ deviceId }) => deviceId).sort(), ['first', 'mended', 'patient']);
  await uplinks.reaches(0);
  assert.deepEqual([await poison.count(), await rejected.count()], [0, 0], 'poison and rejected messages');
});

test('a wrong key of the storage account is told, and not printed', { timeout: PATIENCE }, async () => {
  const connection = azurite.connection.replace(/AccountKey=[^;]+/, 'AccountKey=aHVudGVyMg==');
  const failed = await replay('replayed', connection, '--queue', 'poison').catch((error) => error);
  assert.match(failed.stderr, /refused access to queue replayed-poison \(403, .*check AzureStorageConnectionString/);
  assert.doesNotMatch(failed.stderr, /aHVudGVyMg|sig=/);
});

test('the storage client by itself: its ignored test', { timeout: CARGOS_PATIENCE }, async () => {
  const name = 'queues::tests::a_queue_and_a_container_of_a_real_account';
  const env = { ...process.env, QUEUES_ACCOUNT: azurite.connection };
  const args = ['test', '--workspace', '--lib', '--', '--ignored', '--exact', name];
  const cargo = new Process('cargo', 'cargo', args, { cwd: ROOT, env });
  await cargo.ended;
  assert.equal(cargo.child.exitCode, 0, cargo.lines.join('\n'));
  assert.equal(cargo.count(/^test result: ok\. 1 passed/), 1, cargo.lines.join('\n'));
});
