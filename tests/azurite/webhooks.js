// Webhooks: those of tests/fixtures/things_network, and some that are hard on whoever encodes and decodes them.
'use strict';

const fs = require('node:fs');
const path = require('node:path');

const FOLDER = path.resolve(__dirname, '../fixtures/things_network');

// What a message with a webhook has in Base64 fills 64 KiB.
const LARGEST_TEXT = 48 * 1024;
const ENVELOPE = '{"ReceivedAtUTC":"2026-01-31T12:00:00.125125Z","Webhook":}'.length;

// Each with its name, the body as text, and `expected`: the device, whether it is an uplink, and the hub's message.
function fixtures() {
  const names = fs.readdirSync(FOLDER).flatMap((file) => /^(.*)\.expected\.json$/.exec(file)?.[1] ?? []);
  const read = (name, ending) => fs.readFileSync(path.join(FOLDER, name + ending), 'utf8');
  // Whitespace around the body is not passed on.
  return names.map((name) => ({
    name,
    body: read(name, '.json').trim(),
    expected: JSON.parse(read(name, '.expected.json')),
  }));
}

// A V3 uplink; `decoded` is JSON as text, so that it goes out as it is.
function uplink(device, decoded) {
  const ids = `"end_device_ids":{"device_id":"${device}","application_ids":{"application_id":"app"}}`;
  return `{${ids},"uplink_message":{"f_port":1,"f_cnt":7,"frm_payload":"AQ==","decoded_payload":${decoded}}}`;
}

// A V3 uplink of so many bytes, most of them in characters of two bytes.
function ofSize(device, bytes) {
  const fill = bytes - Buffer.byteLength(uplink(device, '{"text":""}'));
  return uplink(device, `{"text":"${'ü'.repeat(Math.floor(fill / 2))}${'x'.repeat(fill % 2)}"}`);
}

// Each with its name, the body, the device and the decoded payload.
function hard() {
  const cases = {
    'non-ascii': '{"größe":"12 µm, €, 水位, Ω\u0301, 😀","\u202e":"\u2028"}',
    quotes: '{"say \\"hi\\"":"\\"\'\\\\ \\u00e4\\ud83d\\ude00\\u0000\\n</MessageText>]]>&amp;<!-- %41+ \\/"}',
    numbers: '{ "a" : 1.0,\n\t"b":[1e2 , -0.50],"c":{ } \r\n}',
  };
  const hard = Object.entries(cases).map(([name, text]) => ({ name, body: uplink(name, text) }));
  hard.push({ name: 'largest', body: ofSize('largest', LARGEST_TEXT - ENVELOPE) });
  return hard.map(({ name, body }) => ({ name, body, decoded: JSON.parse(body).uplink_message.decoded_payload }));
}

// Each with its name and the body: nothing of this size fits into a message.
function tooLarge() {
  return [
    { name: 'a byte too large', body: ofSize('large', LARGEST_TEXT - ENVELOPE + 1) },
    { name: 'over 64 KiB', body: ofSize('large', 65 * 1024) },
    { name: 'over a megabyte', body: ofSize('large', 1024 * 1024 + 1) },
  ];
}

module.exports = { LARGEST_TEXT, fixtures, hard, tooLarge, uplink };
