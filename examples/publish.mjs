// Publishes over one authenticated WebSocket in place of a signed HTTP request for each event; see
// docs/publishing.md. Node looks for `ws` beside this file: copy it into an empty folder, and there
//   npm install ws && node publish.mjs [ws://127.0.0.1:6001/app/app-key [app-secret [count]]]

import { createHmac } from "node:crypto"
import WebSocket from "ws"

const [url = "ws://127.0.0.1:6001/app/app-key", secret = "app-secret", count = "1000"] =
  process.argv.slice(2)
const key = new URL(url).pathname.split("/").pop()
const socket = new WebSocket(`${url}?protocol=7`)
const unanswered = new Map()
let lastId = 0

const send = (event, data) => socket.send(JSON.stringify({ event, data }))

/** Publishes an event; resolves when all its channels have it in their order. */
function publish(event) {
  if (socket.readyState !== WebSocket.OPEN) return Promise.reject(new Error("not connected"))
  const id = ++lastId
  send("polycast:publish", { id, ...event })
  return new Promise((resolve, reject) => unanswered.set(id, { resolve, reject }))
}

function answered(id) {
  const promise = unanswered.get(id)
  unanswered.delete(id)
  return promise
}

const authenticated = new Promise((resolve, reject) => {
  socket.on("error", reject)
  socket.on("close", (code) => {
    // Whether an unanswered event was published is not known.
    const lost = new Error(`the connection was closed with ${code}`)
    for (const promise of [{ reject }, ...unanswered.values()]) promise.reject(lost)
  })
  socket.on("message", (text) => {
    const { event, data } = JSON.parse(text)
    if (event === "pusher:connection_established") {
      const signed = `${JSON.parse(data).socket_id}:polycast:publisher`
      const signature = createHmac("sha256", secret).update(signed).digest("hex")
      send("polycast:authenticate", { auth: `${key}:${signature}`, role: "publisher" })
    } else if (event === "polycast:authenticated") resolve()
    else if (event === "polycast:published") answered(data.id)?.resolve(data)
    else if (event === "polycast:publish_failed")
      answered(data.id)?.reject(new Error(`${data.status} ${data.message}`))
    else if (event === "pusher:ping") send("pusher:pong", {})
    else if (event === "pusher:error") reject(new Error(data.message))
  })
})

await authenticated
// All of them are sent before the first answer arrives.
const events = Array.from({ length: Number(count) }, (_, n) =>
  publish({ name: "tick", channel: "news", data: { n } }),
)
await Promise.all(events)
console.log(`${events.length} events were published`)
socket.close()
