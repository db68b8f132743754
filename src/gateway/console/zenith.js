// A client of Zenith over the browser's WebSocket: signs in, subscribes, and merges updates into
// the picture (the current state) of each topic.

import { FORMATS } from "./formats.js"

const RETRY_FIRST_MS = 500
const RETRY_MOST_MS = 10_000
/** The maximum number of elements that are kept of a list. */
const ELEMENTS_MOST = 100

/**
 * Splits a name such as `Market/Security!ABC.XYZ` into controller and topic; without a slash the
 * controller is `Zenith`.
 */
export function split(name) {
  const at = name.indexOf("/")
  return at < 0 ? ["Zenith", name] : [name.slice(0, at), name.slice(at + 1)]
}

const isMap = (value) => typeof value === "object" && value !== null && !Array.isArray(value)
const isChange = (element) => isMap(element) && ("O" in element || "Operation" in element)
const clears = ({ O, Operation }) => O === "C" || O === "I" || Operation === "Clear"

/**
 * The picture of a topic after an update. A map is merged into the picture. A list of changes is
 * appended; then all elements before the last clearing one are dropped, and all but the last
 * `ELEMENTS_MOST`. Any other data replaces the picture.
 */
export function merged(picture, data) {
  if (isMap(picture) && isMap(data)) return { ...picture, ...data }
  if (Array.isArray(data) && data.length > 0 && data.every(isChange)) {
    const all = [...(Array.isArray(picture) ? picture : []), ...data]
    return all.slice(Math.max(all.findLastIndex(clears), all.length - ELEMENTS_MOST, 0))
  }
  return data
}

/** One connection that reconnects automatically; the Zenith counterpart of `Client`. */
export class ZenithClient {
  /** `on` has the callbacks of `Client`, and `picture(channel)` after a change of a picture. */
  constructor({ path, protocol, token }, on) {
    Object.assign(this, { path, protocol, token, on, format: FORMATS[protocol] })
    /** The subscribed topics by name: `{name, state, members, picture}`. */
    this.channels = new Map()
    this.wanted = false
    this.ready = false
    this.retryMs = RETRY_FIRST_MS
    this.lastNumber = 0
  }

  kindOf(name) {
    return split(name)[0]
  }

  connect() {
    this.wanted = true
    clearTimeout(this.timer)
    this.on.state("connecting")
    const scheme = location.protocol === "https:" ? "wss:" : "ws:"
    const url = `${scheme}//${location.host}${this.path}?version=2.0`
    const socket = new WebSocket(url, [this.protocol])
    socket.binaryType = "arraybuffer"
    this.socket = socket
    socket.onopen = () => socket === this.socket && this.opened()
    socket.onmessage = ({ data }) => socket === this.socket && this.take(data)
    socket.onclose = (event) => socket === this.socket && this.closed(event)
  }

  disconnect(code = 1000) {
    this.wanted = false
    clearTimeout(this.timer)
    this.socket?.close(code, "NoReconnect")
    this.forget()
    this.socket = null
    this.on.state("disconnected")
  }

  forget() {
    this.ready = false
    for (const channel of this.channels.values()) {
      channel.state = "waiting"
      channel.picture = undefined
    }
    this.on.channels()
  }

  closed({ code, reason }) {
    this.forget()
    this.socket = null
    const detail = [code === 1006 ? "" : code, reason].filter(Boolean).join(" ")
    if (!this.wanted) return
    if (code >= 4000) {
      this.wanted = false
      this.on.state("disconnected", detail)
      this.on.error(`The server has ended the session: ${detail}`)
      return
    }
    this.on.state("waiting", detail)
    this.timer = setTimeout(() => this.connect(), this.retryMs)
    this.retryMs = Math.min(this.retryMs * 2, RETRY_MOST_MS)
  }

  opened() {
    if (!this.token) return this.start("anonymous")
    const Data = { Provider: "Bearer", AccessToken: this.token }
    this.signIn = ++this.lastNumber
    this.say({ Controller: "Auth", Topic: "AuthToken", TransactionID: this.signIn, Data })
  }

  start(who) {
    this.ready = true
    this.retryMs = RETRY_FIRST_MS
    this.on.state("connected", `${this.protocol}, ${who}`)
    for (const name of this.channels.keys()) this.ask(name, "Sub")
  }

  say(container) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(this.format.encode(container))
  }

  ask(name, Action) {
    const [Controller, Topic] = split(name)
    this.say({ Controller, Topic, Action, Confirm: true })
  }

  take(data) {
    try {
      this.hear(this.format.decode(data))
    } catch (error) {
      this.disconnect(3000)
      this.on.error(`A message of the server is invalid: ${error.message}`)
    }
  }

  hear(container) {
    const { Controller, Topic, Action, Data, Confirm, TransactionID } = container
    if (TransactionID !== undefined && TransactionID === this.signIn) {
      if (Action === "Error") return this.on.error(`Signing in failed: ${Data}`)
      if (Data?.Result === "Success") return this.start(Data.DisplayName ?? Data.UserID ?? "")
      this.disconnect()
      return this.on.error("The server does not accept the token")
    }
    const name = `${Controller}/${Topic}`
    const channel = this.channels.get(name)
    const tell = (event, data) => this.on.message({ event, channel: name, data })
    switch (Action) {
      case "Error":
        tell("error", Data)
        return this.on.error(`${Topic === undefined ? Controller : name}: ${JSON.stringify(Data)}`)
      case "Sub":
        if (!channel) return
        if (Confirm) channel.state = "subscribed"
        else this.channels.delete(name)
        return this.on.channels()
      case "Unsub":
        if (!Confirm || !this.channels.delete(name)) return
        tell("ended by the server")
        return this.on.channels()
    }
    if (!channel) return
    tell(channel.state === "subscribed" ? "update" : "picture", Data)
    channel.picture = channel.picture === undefined ? Data : merged(channel.picture, Data)
    this.on.picture(channel)
  }

  subscribe(written) {
    const name = split(written).join("/")
    if (this.channels.has(name)) return
    this.channels.set(name, { name, state: "waiting", members: new Map() })
    this.on.channels()
    if (this.ready) this.ask(name, "Sub")
  }

  unsubscribe(name) {
    this.channels.delete(name)
    if (this.ready) this.ask(name, "Unsub")
    this.on.channels()
  }
}
