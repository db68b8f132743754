// Tests an echo endpoint through the standard WebSocket interface of any runtime. Run by Deno with
// a URL, it uses Deno's WebSocket and prints the result as JSON.

const STEP_MS = 20000

/** Awaits `promise`; throws an error that names `what` if it takes longer than `STEP_MS`. */
async function within(what, promise) {
  let timer
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${STEP_MS} ms`)), STEP_MS)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** The texts and byte arrays to send; the random ones cannot be compressed. */
function messages() {
  const all = ["", new Uint8Array(0), "\u00e9\u4e2d\u{1f600}\u0000".repeat(1000)]
  for (const length of [1, 125, 126, 65535, 65536, 1 << 20]) {
    const random = new Uint8Array(length)
    for (let at = 0; at < length; at += 65536) {
      crypto.getRandomValues(random.subarray(at, Math.min(at + 65536, length)))
    }
    all.push("t".repeat(length), random, new Uint8Array(length))
  }
  for (let n = 0; n < 50; n++) all.push(`{"n":${n},"text":"${"again ".repeat(50)}"}`)
  return all
}

function equal(sent, back) {
  if (typeof sent === "string") return sent === back
  if (!(back instanceof ArrayBuffer) || back.byteLength !== sent.length) return false
  const bytes = new Uint8Array(back)
  return sent.every((byte, at) => byte === bytes[at])
}

/**
 * Sends each message after the echo of the previous one, then 1000 messages at once, then closes
 * the socket with 3001.
 */
export async function echoes(WebSocket, url) {
  const socket = new WebSocket(url)
  socket.binaryType = "arraybuffer"
  const closed = new Promise((resolve) => {
    socket.onclose = ({ code, wasClean }) => resolve({ code, wasClean })
  })
  const early = closed.then(({ code }) => Promise.reject(new Error(`was closed: ${code}`)))
  early.catch(() => {})
  const step = (what, promise) => within(what, Promise.race([promise, early]))
  await step("the opening", new Promise((resolve) => (socket.onopen = resolve)))
  const { extensions } = socket
  const changed = []
  const all = messages()
  for (const [n, message] of all.entries()) {
    const echo = new Promise((resolve) => (socket.onmessage = ({ data }) => resolve(data)))
    socket.send(message)
    if (!equal(message, await step(`echo ${n}`, echo))) changed.push(n)
  }
  const back = []
  const whole = new Promise((resolve) => {
    socket.onmessage = ({ data }) => back.push(data) === 1000 && resolve()
  })
  for (let n = 0; n < 1000; n++) socket.send(`${n}`.repeat(n % 100 + 1))
  await step("1000 echoes", whole)
  const ordered = back.every((data, n) => data === `${n}`.repeat(n % 100 + 1))
  socket.close(3001, "bye")
  const close = await within("the close", closed)
  return { count: all.length, changed, ordered, extensions, close }
}

if (globalThis.Deno) console.log(JSON.stringify(await echoes(WebSocket, Deno.args[0])))
