// What the details of a channel show: its names, if it is linked, and its history.

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`

function place({ kind, app, name, publish, subscribers }) {
  const where = app === undefined ? kind : `${kind}, application ${app}`
  const may = publish ? ", may publish" : ""
  return `${name} (${where}${may}): ${plural(subscribers, "subscriber")}`
}

/**
 * The lines about a channel, each a term and a text. `facts` is the answer of the HTTP API with the
 * attributes `history` and `link`.
 */
export function detailLines({ link, history }) {
  const lines = []
  if (link) {
    lines.push(["source", place(link.source)])
    for (const view of link.views) lines.push(["view", place(view)])
    const others = link.unlisted_subscribers
    if (others) lines.push(["other views", plural(others, "subscriber")])
  } else {
    lines.push(["link", "none"])
  }
  if (history) {
    lines.push(["stream", history.stream_id])
    lines.push(["offset", String(history.serial)])
    lines.push(["kept", `${plural(history.events, "event")}, ${plural(history.bytes, "byte")}`])
    const { resumes, recovered, not_recovered: lost } = history
    lines.push(["resumes", `${resumes} asked, ${recovered} recovered, ${lost} not recovered`])
  } else {
    lines.push(["history", "none"])
  }
  return lines
}
