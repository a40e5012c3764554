# Keys and JSON Web Tokens of PyJWT and python3-cryptography, for Token.pm: a
# request in JSON a line, an answer in JSON a line.

import base64
import json
import sys

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

CURVES = {'P-256': ec.SECP256R1(), 'P-384': ec.SECP384R1(),
          'P-521': ec.SECP521R1()}

keys = {}


def b64(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b'=').decode()


def number(n, size=None):
    return b64(n.to_bytes(size or (n.bit_length() + 7) // 8, 'big'))


def new_key(name, kind, size=2048):
    if kind == 'RSA':
        keys[name] = rsa.generate_private_key(65537, size)
        n = keys[name].public_key().public_numbers()
        return {'kty': 'RSA', 'n': number(n.n), 'e': number(n.e)}

    if kind == 'Ed25519':
        keys[name] = ed25519.Ed25519PrivateKey.generate()
        raw = keys[name].public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return {'kty': 'OKP', 'crv': kind, 'x': b64(raw)}

    keys[name] = ec.generate_private_key(CURVES[kind])
    n = keys[name].public_key().public_numbers()
    size = (CURVES[kind].key_size + 7) // 8
    return {'kty': 'EC', 'crv': kind, 'x': number(n.x, size),
            'y': number(n.y, size)}


def pem(name):
    return keys[name].public_key().public_bytes(
        serialization.Encoding.PEM,
        serialization.PublicFormat.SubjectPublicKeyInfo).decode()


def sign(key, alg, claims, header):
    secret = keys.get(key, key)
    return jwt.encode(claims, secret, algorithm=alg, headers=header)


for line in sys.stdin:
    request = json.loads(line)
    call = {'key': new_key, 'pem': pem, 'sign': sign}[request.pop('call')]
    print(json.dumps(call(**request)), flush=True)
