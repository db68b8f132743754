// Lets an unmodified pusher-js (version 7 or 8, also below laravel-echo) resume its channels after
// a reconnect: events that a channel with a history has missed arrive before new ones, each once.
//
//   browser, worker: load this file after pusher-js
//   Node, bundlers:  require("./polycast-resume")(require("pusher-js"))
//
// After a reconnect a channel emits "polycast:recovered" if nothing was lost, before the missed
// events, or "polycast:gap" if it must load its state again; both with { from, to } positions.
;(function (install) {
  if (typeof module === "object" && module.exports) module.exports = install
  else install(self.Pusher)
})(function (Pusher) {
  const runtime = Pusher.Runtime
  const connect = runtime.createWebSocket
  // The last positions of each client, by channel.
  const known = new WeakMap()

  function positionsOf(socket) {
    const isOwner = ({ connection }) => connection.connection?.transport?.socket === socket
    const owner = Pusher.instances.find(isOwner)
    if (owner && !known.has(owner)) known.set(owner, {})
    return owner ? known.get(owner) : {}
  }

  runtime.createWebSocket = function (url) {
    const socket = connect.call(runtime, url)
    const send = socket.send.bind(socket)
    let deliver = null // what pusher-js does with a message
    let positions = null // null until the first message is sent
    let sent = {} // the positions that wait for their subscription

    // The server wants the positions as the first message. pusher-js sends its first one after it
    // has seen the connection established, when the socket is known to be its client's.
    socket.send = function (data) {
      if (!positions) {
        positions = positionsOf(socket)
        sent = { ...positions }
        send(JSON.stringify({ event: "polycast:resume", data: { channel_positions: sent } }))
      }
      if (typeof data === "string" && data.startsWith('{"event":"pusher:unsubscribe"')) {
        delete positions[JSON.parse(data).data.channel]
      }
      return send(data)
    }

    function emit(event, channel, data) {
      deliver?.call(socket, { type: "message", data: JSON.stringify({ event, channel, data }) })
    }

    socket.addEventListener("message", function (event) {
      const { data } = event
      const has = positions && typeof data === "string" && data.includes('"stream_id":')
      const message = has ? JSON.parse(data) : {}
      const { channel, stream_id, serial, recovered } = message
      if (stream_id === undefined) return deliver?.call(socket, event)
      const from = sent[channel]
      const before = positions[channel]
      if (recovered === undefined) {
        // A live or a missed event.
        if (before?.stream_id === stream_id && serial <= before.serial) return
        positions[channel] = { stream_id, serial }
        return deliver?.call(socket, event)
      }
      const to = { stream_id, serial }
      positions[channel] = to
      delete sent[channel]
      deliver?.call(socket, event)
      if (from) emit(recovered ? "polycast:recovered" : "polycast:gap", channel, { from, to })
    })
    Object.defineProperty(socket, "onmessage", {
      get: () => undefined, // faye-websocket, which pusher-js has in Node, would call it too
      set: (handler) => { deliver = handler },
    })
    return socket
  }
})
