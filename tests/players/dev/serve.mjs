// Serves the page, a stand-in for the API and an ffmpeg-made live ladder, to work on the page without
// the server.
//
//   node dev/serve.mjs [--port 8090] [--seconds 600] [--film ../../fixtures/media/bbb_720p30_12s.mp4]
//
// The ladder is encoded once into a temporary folder and then looped in real time. What the API says
// is chosen while it runs: GET /dev/scenario?name=one|many|empty|starting|stalled|ended|warnings|hostile
// and GET /dev/fail?on=1 makes every other address answer 503. Ends by itself after --seconds.

import { spawn } from 'node:child_process';
import { mkdtemp, readFile, rm, mkdir } from 'node:fs/promises';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const here = path.dirname(fileURLToPath(import.meta.url));
const { values: args } = parseArgs({
  options: {
    port: { type: 'string', default: '8090' },
    seconds: { type: 'string', default: '600' },
    film: { type: 'string', default: path.join(here, '../../../fixtures/media/bbb_720p30_12s.mp4') },
  },
});
const page = path.join(here, '../../../src/serve/page');
const work = await mkdtemp(path.join(os.tmpdir(), 'headwater-dev-'));
const live = path.join(work, 'live');
const started = new Date().toISOString();
let scenario = 'one';
let failing = false;
let received = 0;

const RUNGS = [
  { name: 'v720', width: 1280, height: 720, bps: 2_800_000, codec: 'avc1.64001f' },
  { name: 'v480', width: 854, height: 480, bps: 1_200_000, codec: 'avc1.64001f' },
  { name: 'v360', width: 640, height: 360, bps: 700_000, codec: 'avc1.64001e' },
];

function run(argv, seconds) {
  const child = spawn('ffmpeg', ['-nostdin', '-v', 'error', '-y', ...argv], {
    stdio: ['ignore', 'inherit', 'inherit'],
    cwd: work,
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), seconds * 1000);
  const done = new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => {
      clearTimeout(timer);
      resolve(code);
    });
  });
  return { child, done };
}

async function encodeOnce() {
  const scale = RUNGS.slice(1)
    .map((r, i) => `[s${i + 1}]scale=${r.width}:${r.height}[v${i + 1}]`)
    .join(';');
  const rates = RUNGS.flatMap((r, i) => [
    `-b:v:${i}`, `${r.bps}`, `-maxrate:v:${i}`, `${r.bps * 1.1}`, `-bufsize:v:${i}`, `${r.bps}`,
  ]);
  const { done } = run([
    '-i', path.resolve(args.film), '-filter_complex', `[0:v]split=3[v0][s1][s2];${scale}`,
    '-map', '[v0]', '-map', '[v1]', '-map', '[v2]', '-map', '0:a',
    '-c:v', 'libx264', '-preset', 'ultrafast', '-g', '60', '-keyint_min', '60',
    '-sc_threshold', '0', '-bf', '0', ...rates, '-c:a', 'aac', '-b:a', '128k', 'ladder.mp4',
  ], 180);
  if ((await done) !== 0) throw new Error('ffmpeg could not make the ladder');
}

function loopForever(seconds) {
  const groups = RUNGS.map((r, i) => `v:${i},agroup:sound,name:${r.name}`).join(' ');
  const maps = ['-map', '0:0', '-map', '0:1', '-map', '0:2', '-map', '0:3', '-c', 'copy'];
  return run([
    '-re', '-stream_loop', '-1', '-i', 'ladder.mp4',
    ...maps, '-f', 'hls', '-hls_time', '2', '-hls_list_size', '10', '-hls_segment_type', 'fmp4',
    '-hls_flags', 'delete_segments+program_date_time+independent_segments',
    '-master_pl_name', 'index.m3u8',
    '-var_stream_map', `${groups} a:0,agroup:sound,name:a128,default:yes`,
    '-hls_fmp4_init_filename', 'init.mp4', '-hls_segment_filename', 'live/%v/%d.m4s',
    'live/%v/index.m3u8',
    ...maps, '-f', 'dash', '-seg_duration', '2', '-window_size', '10', '-extra_window_size', '5',
    '-use_template', '1', '-use_timeline', '0', '-adaptation_sets', 'id=0,streams=v id=1,streams=a',
    'live/dash/manifest.mpd',
  ], seconds);
}

function broadcast(name, state = 'live', more = {}) {
  return {
    name,
    state,
    started_at: started,
    hls: `/live/${name}/index.m3u8`,
    dash: `/live/${name}/manifest.mpd`,
    publisher: {
      address: '203.0.113.7:51544',
      encoder: 'obs-output module (libobs version 29.0.2)',
      connected_at: started,
    },
    source: {
      video: { codec: 'avc1.640020', width: 1280, height: 720, frame_rate: '30.000' },
      audio: { codec: 'mp4a.40.2', sample_rate: 48000, channels: 2 },
    },
    renditions: [
      ...RUNGS.map((r) => ({
        name: r.name, kind: 'video', codec: r.codec, width: r.width, height: r.height,
        frame_rate: '30.000', target_bps: r.bps, peak_bps: Math.round(r.bps * 1.17),
        average_bps: Math.round(r.bps * 0.94),
      })),
      {
        name: 'a128', kind: 'audio', codec: 'mp4a.40.2', sample_rate: 48000, channels: 2,
        target_bps: 128_000, peak_bps: 131_000, average_bps: 128_200,
      },
    ],
    ingest: {
      received_bytes: received,
      received_bps: 2_640_000 + Math.round(Math.random() * 90_000),
      repairs: 0,
      warnings: [],
      health: { state: 'good', findings: [], repairs: {} },
    },
    ...more,
  };
}

const SCENARIOS = {
  one: () => [broadcast('demo')],
  many: () => [
    broadcast('demo'), broadcast('main-stage'), broadcast('garden.cam'),
    broadcast('workshop', 'starting', { renditions: [], source: { video: null, audio: null } }),
    broadcast('yesterday', 'ended', { publisher: null }),
  ],
  empty: () => [],
  starting: () => [
    broadcast('demo', 'starting', { renditions: [], source: { video: null, audio: null } }),
  ],
  stalled: () => [broadcast('demo', 'stalled')],
  ended: () => [broadcast('demo', 'ended', { publisher: null })],
  warnings: () => [
    broadcast('demo', 'live', {
      ingest: {
        received_bytes: received, received_bps: 2_100_000, repairs: 14,
        warnings: [],
        health: {
          state: 'poor',
          findings: [
            {
              id: 'no_sound', severity: 'serious', problem: 'No sound arrives: viewers hear silence',
              found: 'none since the stream began', expected: 'sound all the time',
              obs: 'Look at the Audio Mixer: is a source there, and not muted? Settings > Audio > Desktop Audio and Mic: choose a device',
            },
            {
              id: 'keyframe_interval', severity: 'warning',
              problem: 'Key frames are too far apart: after every hiccup viewers wait for the next one',
              found: 'one every 8.3 s', expected: '2 s, at most 4 s',
              obs: 'Settings > Output > Streaming > Keyframe interval: set 2 s (not 0, which is automatic)',
            },
            {
              id: 'b_frames', severity: 'hint', problem: 'B-frames delay the picture',
              found: '58 % B-frames, which delay the picture by up to 67 ms', expected: 'none where delay matters',
              obs: 'Settings > Output > Streaming > Tune: zerolatency, or Max B-frames: 0. Leave it if two frames more of delay do not matter',
            },
            { severity: 'exploded', problem: 7 }, null,
          ],
          repairs: {},
        },
      },
    }),
  ],
  hostile: () => [
    broadcast('demo', 'live', {
      publisher: {
        address: '<img src=x onerror=alert(1)>', encoder: '<script>alert(1)</script>'.repeat(12),
        connected_at: 'never',
      },
      source: null, ingest: null,
      renditions: [{ name: '<b>v720</b>', kind: 'video' }, null, { kind: 'audio' }],
    }),
    { name: '"><svg onload=alert(2)>', state: 'exploded' },
    broadcast('a'.repeat(64), 'starting'),
  ],
};

const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8', '.svg': 'image/svg+xml', '.txt': 'text/plain; charset=utf-8',
  '.m3u8': 'application/vnd.apple.mpegurl', '.mpd': 'application/dash+xml',
  '.m4s': 'video/mp4', '.mp4': 'video/mp4',
};

/** ffmpeg says that a segment is there some seconds before it is, and names no clock. */
function honest(mpd) {
  return mpd
    .replace(/availabilityStartTime="([^"]+)"/, (_, t) => `availabilityStartTime="${new Date(Date.parse(t) + 2500).toISOString()}"`)
    .replace(/suggestedPresentationDelay="[^"]+"/, 'suggestedPresentationDelay="PT4S"')
    .replace('</MPD>', '<UTCTiming schemeIdUri="urn:mpeg:dash:utc:http-iso:2014" value="/time"/></MPD>');
}

async function body(url) {
  if (url.pathname === '/') return ['.html', await readFile(path.join(page, 'index.html'))];
  const asset = /^\/assets\/([\w.-]+)$/.exec(url.pathname);
  if (asset) {
    const own = await readFile(path.join(page, asset[1])).catch(() => null);
    return [path.extname(asset[1]), own ?? (await readFile(path.join(page, 'vendor', asset[1])))];
  }
  // Every name shows the same film.
  const media = /^\/live\/[\w.-]+\/((?:[\w-]+\/)?[\w.-]+)$/.exec(url.pathname);
  if (media) {
    const dash = /\.mpd$|^(init|chunk)-stream/.test(media[1]);
    const file = path.join(live, dash ? 'dash' : '', media[1]);
    const data = await readFile(file);
    return [path.extname(file), file.endsWith('.mpd') ? honest(data.toString()) : data];
  }
  return null;
}

async function answer(request, response) {
  const url = new URL(request.url, 'http://localhost');
  const json = (value) => {
    response.writeHead(200, { 'content-type': 'application/json', 'cache-control': 'no-store' });
    response.end(JSON.stringify(value));
  };
  if (url.pathname === '/dev/scenario') {
    scenario = url.searchParams.get('name') in SCENARIOS ? url.searchParams.get('name') : scenario;
    return json({ scenario });
  }
  if (url.pathname === '/dev/fail') {
    failing = url.searchParams.get('on') === '1';
    return json({ failing });
  }
  if (failing) {
    response.writeHead(503, { 'retry-after': '1' });
    return response.end();
  }
  if (url.pathname === '/api/v1/server') {
    return json({
      version: '0.1.0', rtmp: { port: 1935, app: 'live' }, now: new Date().toISOString(),
    });
  }
  if (url.pathname === '/api/v1/streams') {
    received += 640_000;
    return json({ streams: SCENARIOS[scenario]() });
  }
  if (url.pathname === '/time') {
    response.writeHead(200, { 'access-control-allow-origin': '*' });
    return response.end(new Date().toISOString());
  }
  const found = await body(url).catch(() => null);
  response.writeHead(found ? 200 : 404, {
    'content-type': found ? (TYPES[found[0]] ?? 'application/octet-stream') : 'text/plain',
    'cache-control': 'no-store',
    'access-control-allow-origin': '*',
  });
  return response.end(found ? found[1] : 'not found');
}

await mkdir(live, { recursive: true });
for (const name of [...RUNGS.map((r) => r.name), 'a128', 'dash']) {
  await mkdir(path.join(live, name), { recursive: true });
}
const seconds = Number(args.seconds);
await encodeOnce();
const film = loopForever(seconds);
const server = http.createServer((request, response) => {
  answer(request, response).catch(() => response.destroy());
});
server.listen(Number(args.port), '127.0.0.1', () => {
  console.log(`http://127.0.0.1:${server.address().port}/ for ${seconds} s`);
});

async function stop() {
  film.child.kill('SIGTERM');
  await film.done;
  await rm(work, { recursive: true, force: true });
  process.exit(0);
}
setTimeout(stop, seconds * 1000);
process.on('SIGINT', stop);
process.on('SIGTERM', stop);
