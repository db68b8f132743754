// Signatures for subscriptions and HTTP requests, as the vendor's server libraries compute them.
// HMAC-SHA256 is Web Crypto's, which a browser has only in a secure context (https or localhost).
// Web Crypto has no MD5, so MD5 is implemented here.

const encoder = new TextEncoder()

/** Whether the browser has Web Crypto, which signatures need. */
export const canSign = () => Boolean(globalThis.crypto?.subtle)

const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")

async function hmac(secret, text) {
  const [raw, data] = [secret, text].map((it) => encoder.encode(it))
  const algorithm = { name: "HMAC", hash: "SHA-256" }
  const key = await crypto.subtle.importKey("raw", raw, algorithm, false, ["sign"])
  return hex(new Uint8Array(await crypto.subtle.sign("HMAC", key, data)))
}

/** The `auth` value of a subscription to a private or presence channel: `key:signature`. */
export async function channelAuth({ key, secret }, socketId, channel, channelData) {
  const text = [socketId, channel, ...(channelData === undefined ? [] : [channelData])].join(":")
  return `${key}:${await hmac(secret, text)}`
}

/** The query string of a signed HTTP request, with `auth_signature` as its last parameter. */
export async function signedQuery({ key, secret }, method, path, parameters = {}, body) {
  const all = {
    ...parameters,
    auth_key: key,
    auth_timestamp: String(Math.floor(Date.now() / 1000)),
    auth_version: "1.0",
  }
  if (body !== undefined) all.body_md5 = md5(body)
  const names = Object.keys(all).sort()
  const plain = names.map((name) => `${name}=${all[name]}`).join("&")
  const signature = await hmac(secret, `${method}\n${path}\n${plain}`)
  const escaped = names.map((name) => `${name}=${encodeURIComponent(all[name])}`).join("&")
  return `${escaped}&auth_signature=${signature}`
}

// RFC 1321 section 3.4: the rotations of each round, and the table of sines.
const SHIFTS = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]]
const SINES = Array.from({ length: 64 }, (_, n) => Math.floor(Math.abs(Math.sin(n + 1)) * 2 ** 32))

// For each round: the function of three state words, and the index of the block's word by step.
const ROUNDS = [
  [(b, c, d) => (b & c) | (~b & d), (n) => n],
  [(b, c, d) => (d & b) | (~d & c), (n) => (5 * n + 1) % 16],
  [(b, c, d) => b ^ c ^ d, (n) => (3 * n + 5) % 16],
  [(b, c, d) => c ^ (b | ~d), (n) => (7 * n) % 16],
]

/** The MD5 digest of a text in UTF-8, as hex digits. */
export function md5(text) {
  const message = encoder.encode(text)
  const padded = new Uint8Array(Math.ceil((message.length + 9) / 64) * 64)
  padded.set(message)
  padded[message.length] = 0x80
  const view = new DataView(padded.buffer)
  view.setBigUint64(padded.length - 8, BigInt(message.length) * 8n, true)
  let state = [0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476]
  for (let block = 0; block < padded.length; block += 64) {
    let [a, b, c, d] = state
    for (let step = 0; step < 64; step++) {
      const round = step >> 4
      const [mix, place] = ROUNDS[round]
      const word = view.getUint32(block + 4 * place(step), true)
      const sum = (a + mix(b, c, d) + SINES[step] + word) | 0
      const shift = SHIFTS[round][step % 4]
      const turned = (sum << shift) | (sum >>> (32 - shift))
      ;[a, b, c, d] = [d, (b + turned) | 0, b, c]
    }
    state = [a, b, c, d].map((word, at) => (word + state[at]) | 0)
  }
  const digest = new DataView(new ArrayBuffer(16))
  state.forEach((word, at) => digest.setInt32(4 * at, word, true))
  return hex(new Uint8Array(digest.buffer))
}
