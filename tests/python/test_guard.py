"""Random JWTs made by PyJWT: a guard of the server accepts exactly those that PyJWT decodes."""

import http.client
import random
import time
import unittest

import jwt
import support
from cryptography.hazmat.primitives.serialization import load_pem_private_key

KEYS = support.ROOT / "tests" / "keys"
ISSUER = "https://auth.example.com"
AUDIENCE = "api"
SECRET = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
FAMILIES = {
    "rsa": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"],
    "p256": ["ES256"],
    "p384": ["ES384"],
    "ed25519": ["EdDSA"],
    "secret": ["HS256", "HS384", "HS512"],
}
TOKENS = 600
SEED = 7


def public(name):
    return SECRET if name == "secret" else (KEYS / f"{name}.pub").read_text()


def private(name):
    if name == "secret":
        return SECRET
    return load_pem_private_key((KEYS / f"{name}.pem").read_bytes(), None)


def entry(name):
    value = public(name)
    form = "secret" if name == "secret" else "pem"
    return f"{{ kid = \"{name}\", {form} = '''{value}''' }}"


CONFIG = (
    f'[[guards]]\nname = "g"\nissuer = "{ISSUER}"\naudience = "{AUDIENCE}"\nroles = "r"\n'
    f"keys = [{', '.join(entry(name) for name in FAMILIES)}]\n"
    '[[routes]]\nwhen = [{ path = "/live" }]\nguarded = { g = [] }\nendpoint = "health"\n'
    + support.APPS
)


def claims(rng, now):
    """Random claims, most of them valid. Times are about 1000 s from `now`, so that a slow machine
    does not change the outcome."""
    made = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada"}
    for name in ("exp", "nbf", "iat"):
        if rng.random() < 0.4:
            ahead = rng.choice([-1000, 1000]) if rng.random() < 0.3 else 1000
            made[name] = now + (ahead if name == "exp" else -ahead)
            if rng.random() < 0.2:
                made[name] += 0.5
    if rng.random() < 0.2:
        made["aud"] = rng.choice([[AUDIENCE], ["other", AUDIENCE], ["other"], "other", []])
    if rng.random() < 0.1:
        made["iss"] = rng.choice(["other", ISSUER + "/", ""])
    if rng.random() < 0.1:
        del made[rng.choice(["iss", "aud", "sub"])]
    if rng.random() < 0.3:
        made["é" * rng.randrange(1, 40)] = rng.choice([None, 1.5, "x\n", [1, {"a": []}], True])
    return made


def mangled(rng, token):
    """The token with one character replaced, removed or inserted."""
    at = rng.randrange(len(token))
    letter = rng.choice("ABCxyz019-_.=+/ ")
    return rng.choice([
        token[:at] + letter + token[at + 1 :],
        token[:at] + token[at + 1 :],
        token[:at] + letter + token[at:],
    ])


def decodes(token, name):
    """Whether PyJWT accepts the token with the key and the algorithms of `name`."""
    try:
        jwt.decode(
            token,
            public(name),
            algorithms=FAMILIES[name],
            audience=AUDIENCE,
            issuer=ISSUER,
        )
    except jwt.PyJWTError:
        return False
    return True


class Guard(support.WithServer):
    config = CONFIG

    def setUp(self):
        host, port = self.server.host, self.server.port
        self.connection = http.client.HTTPConnection(host, port, timeout=support.EVENT_S)
        self.addCleanup(self.connection.close)

    def status(self, token):
        """The status of a request with the token. Repeats the request for up to 10 s while the
        status is 429: the server checks at most 32 refused tokens a second from one address."""
        connection = self.connection
        deadline = time.monotonic() + 10
        while True:
            connection.request("GET", "/live", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            if answer.status != 429 or time.monotonic() > deadline:
                return answer.status
            time.sleep(0.1)

    def test_random_tokens(self):
        rng = random.Random(SEED)
        counts = {True: 0, False: 0}
        for number in range(TOKENS):
            name = rng.choice(list(FAMILIES))
            algorithm = rng.choice(FAMILIES[name])
            made = claims(rng, int(time.time()))
            headers = {"kid": name}
            if rng.random() < 0.1:
                headers[rng.choice(["jku", "x5u", "cty", "extra"])] = "https://evil.example"
            token = jwt.encode(made, private(name), algorithm=algorithm, headers=headers)
            if rng.random() < 0.3:
                token = mangled(rng, token)
                # Spaces around the token would belong to the header field, not to the token.
                token = token.strip()
            want = decodes(token, name)
            got = self.status(token)
            self.assertEqual(got, 200 if want else 403, f"{number}: {algorithm} {made} {token}")
            counts[want] += 1
        self.assertGreater(min(counts.values()), TOKENS // 5, counts)

    def test_every_algorithm_under_every_key(self):
        """A guard accepts a token only if its algorithm belongs to the key that `kid` names,
        whatever algorithm the token's header names."""
        for name, family in FAMILIES.items():
            for signer in FAMILIES:
                for algorithm in FAMILIES[signer]:
                    headers = {"kid": name}
                    made = {"iss": ISSUER, "aud": AUDIENCE}
                    token = jwt.encode(made, private(signer), algorithm, headers)
                    want = 200 if algorithm in family else 403
                    self.assertEqual(self.status(token), want, f"{name} {algorithm}")


if __name__ == "__main__":
    unittest.main()
