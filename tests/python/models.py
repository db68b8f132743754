"""Test helpers: a server with one route for each schema, whose messages the schema validates."""

import asyncio
import json
import pathlib
import tempfile
import unittest

from support import EVENT_S, Server
from websockets.asyncio.client import connect


def config(folder, schemas, model="json", more="", sent=False):
    """A configuration with the echo route `/N` for schema number N, which is stored in `folder`.
    The schema applies to received messages, and to sent messages too if `sent` is set."""
    catalog = '[[catalogs]]\nname = "files"\ntype = "filesystem"\n'
    routes = ""
    for number, schema in enumerate(schemas):
        path = pathlib.Path(folder) / f"{number}.schema"
        path.write_text(json.dumps(schema))
        catalog += f'[[catalogs.subjects]]\nname = "{number}"\npath = "{path}"\n'
        spec = f'model = "{model}", catalog = "files", subject = "{number}"{more}'
        kind = "text" if model == "json" else "binary"
        routes += f'[[routes]]\nwhen = [{{ path = "/{number}" }}]\nendpoint = "echo"\n'
        routes += f'[routes.model]\nreceived.{kind} = {{ {spec} }}\non_invalid = "reply"\n'
        if sent:
            routes += f"sent.{kind} = {{ {spec} }}\n"
    return catalog + routes + '[[apps]]\nid = "1"\nkey = "k"\nsecret = "s"\n'


async def ask(server, number, messages):
    """Sends all messages on one route and returns as many replies, in order."""
    async with connect(server.url(f"/{number}"), max_size=None) as client:
        for message in messages:
            await client.send(message)
        return [await asyncio.wait_for(client.recv(), EVENT_S) for _ in messages]


class WithFolder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="polycast-models-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def serve(self, text):
        server = Server(text)
        self.addCleanup(server.stop)
        return server
