//! A small certificate authority with ACME (RFC 8555), TLS-ALPN-01 (RFC 8737) and renewal
//! information (RFC 9773). It checks signatures, nonces and URLs, and validates challenges by
//! connecting to the server under test. Its faults can be chosen.

use crate::certs::{Authority, folder};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use polycast::crypto::sha256;
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use ring::{hmac, signature};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{ring as provider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig};
use rustls::{ServerConnection, SignatureScheme, StreamOwned};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

/// How many connections validate one challenge: as from several places of the network, so that all
/// reactors of the server are asked.
const VALIDATIONS: usize = 8;
const PROBLEM: &str = "urn:ietf:params:acme:error:";

/// What the authority does wrong, and what it demands.
pub(super) struct Faults {
    /// Where domains lead to; validations wait as long as it is `None`.
    pub(super) leads_to: Option<SocketAddr>,
    /// How many valid nonces are refused.
    pub(super) bad_nonces: usize,
    /// The response to new orders: status, Retry-After, and whether it has a problem document.
    pub(super) refusal: Option<(u16, &'static str, bool)>,
    /// The name in certificates, in place of the domain.
    pub(super) wrong_name: Option<&'static str>,
    /// The lifetime of certificates in seconds.
    pub(super) lifetime_s: i64,
    /// The key of external account bindings, if they are required.
    pub(super) binding: Option<(&'static str, Vec<u8>)>,
    /// The window of renewals in seconds from now, if there is renewal information.
    pub(super) window_s: Option<(i64, i64)>,
}

struct Ordered {
    domain: String,
    status: &'static str,
    token: String,
    error: Value,
    certificate: Option<String>,
    replaces: Value,
}

struct State {
    faults: Faults,
    nonces: HashSet<String>,
    count: u64,
    /// The account's key, as the two coordinates in base64url.
    key: Option<(String, String)>,
    contact: Value,
    orders: Vec<Ordered>,
}

/// The authority, in threads of this process.
pub(super) struct Ca {
    address: SocketAddr,
    pub(super) folder: PathBuf,
    issuing: Authority,
    state: Mutex<State>,
}

type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

impl Ca {
    /// Starts an authority, whose files are in a folder of this name.
    pub(super) fn start(name: &str) -> Arc<Ca> {
        let folder = folder(&format!("acme-{name}"));
        let _ = std::fs::remove_dir_all(folder.join("store"));
        let https = Authority::new();
        let leaf = https.leaf(&["localhost"]);
        std::fs::write(folder.join("ca.pem"), https.pem()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(provider::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.cert.der().clone()], leaf.key_der())
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let faults = Faults {
            leads_to: None,
            bad_nonces: 0,
            refusal: None,
            wrong_name: None,
            lifetime_s: 90 * 86_400,
            binding: None,
            window_s: None,
        };
        let state = State {
            faults,
            nonces: HashSet::new(),
            count: 0,
            key: None,
            contact: Value::Null,
            orders: Vec::new(),
        };
        let address = listener.local_addr().unwrap();
        let ca =
            Arc::new(Ca { address, folder, issuing: Authority::new(), state: Mutex::new(state) });
        let (theirs, config) = (ca.clone(), Arc::new(config));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (ca, config) = (theirs.clone(), config.clone());
                std::thread::spawn(move || {
                    let _ = ca.serve(stream, config);
                });
            }
        });
        ca
    }

    pub(super) fn directory(&self) -> String {
        self.url("directory")
    }

    /// The configuration of a client that trusts the issued certificates.
    pub(super) fn client(&self) -> ClientConfig {
        self.issuing.client(None)
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.state().faults);
    }

    /// The domains of all orders with their final status, and the certificates that they replace.
    pub(super) fn orders(&self) -> Vec<(String, &'static str, Value)> {
        let state = self.state();
        state.orders.iter().map(|it| (it.domain.clone(), it.status, it.replaces.clone())).collect()
    }

    pub(super) fn contact(&self) -> Value {
        self.state().contact.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.address.port())
    }

    fn serve(self: &Arc<Ca>, stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let conn = ServerConnection::new(config).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(conn, stream);
        let (head, body) = read_message(&mut stream)?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let (status, mut fields, body) = self.answer(method, path.trim_start_matches('/'), &body);
        fields.push(("Replay-Nonce", self.nonce()));
        let fields: String =
            fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status} x\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        if method != "HEAD" {
            stream.write_all(&body)?;
        }
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn nonce(&self) -> String {
        let mut state = self.state();
        state.count += 1;
        let nonce = format!("nonce-{}", state.count);
        state.nonces.insert(nonce.clone());
        nonce
    }

    fn answer(self: &Arc<Ca>, method: &str, path: &str, body: &[u8]) -> Reply {
        match (method, path) {
            ("GET", "directory") => (200, Vec::new(), self.directory_object()),
            ("HEAD", "nonce") => (200, vec![("Cache-Control", "no-store".to_owned())], Vec::new()),
            ("GET", path) if path.starts_with("renewal/") => self.renewal_info(),
            ("POST", path) => match self.open(path, body) {
                Ok(payload) => self.post(path, &payload),
                Err(reply) => reply,
            },
            _ => problem(404, "malformed", "no such resource"),
        }
    }

    fn directory_object(&self) -> Vec<u8> {
        let mut object = json!({
            "newNonce": self.url("nonce"),
            "newAccount": self.url("account"),
            "newOrder": self.url("order"),
            "revokeCert": self.url("revoke"),
            "keyChange": self.url("key"),
            "meta": { "termsOfService": self.url("terms") },
        });
        let state = self.state();
        object["meta"]["externalAccountRequired"] = state.faults.binding.is_some().into();
        if state.faults.window_s.is_some() {
            object["renewalInfo"] = self.url("renewal").into();
        }
        object.to_string().into_bytes()
    }

    /// Verifies a request (RFC 8555 section 6.2) and returns its payload.
    fn open(&self, path: &str, body: &[u8]) -> Result<Value, Reply> {
        let malformed = |text: &str| problem(400, "malformed", text);
        let jws: Value = serde_json::from_slice(body).map_err(|_| malformed("no JWS"))?;
        let part = |name: &str| jws[name].as_str().unwrap_or_default().to_owned();
        let (protected, payload) = (part("protected"), part("payload"));
        let header: Value = serde_json::from_slice(&decode(&protected))
            .map_err(|_| malformed("no protected header"))?;
        let mut state = self.state();
        if header["url"] != self.url(path) {
            return Err(problem(401, "unauthorized", "the URL of the request is another"));
        }
        let nonce = header["nonce"].as_str().unwrap_or_default();
        if !state.nonces.remove(nonce) || state.faults.bad_nonces > 0 {
            state.faults.bad_nonces = state.faults.bad_nonces.saturating_sub(1);
            return Err(problem(400, "badNonce", "the nonce was not accepted"));
        }
        let key = match path {
            "account" => {
                let at = |name: &str| header["jwk"][name].as_str().unwrap_or_default().to_owned();
                (at("x"), at("y"))
            }
            _ if header["kid"] != self.url("account/1") => {
                return Err(problem(400, "accountDoesNotExist", "no such account"));
            }
            _ => state.key.clone().ok_or(problem(400, "accountDoesNotExist", "no account"))?,
        };
        let point = [vec![4], decode(&key.0), decode(&key.1)].concat();
        let public = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
        let signed = format!("{protected}.{payload}");
        public
            .verify(signed.as_bytes(), &decode(&part("signature")))
            .map_err(|_| malformed("the signature is wrong"))?;
        let payload = match payload.as_str() {
            "" => Value::Null,
            text => serde_json::from_slice(&decode(text)).map_err(|_| malformed("no JSON"))?,
        };
        if path == "account" {
            if payload["termsOfServiceAgreed"] != Value::Bool(true) {
                return Err(problem(403, "userActionRequired", "agree to the terms of service"));
            }
            if let Some(binding) = &state.faults.binding
                && !is_bound(&payload["externalAccountBinding"], binding, &header, &self.url(path))
            {
                return Err(problem(403, "externalAccountRequired", "the binding is wrong"));
            }
            state.key = Some(key);
        }
        Ok(payload)
    }

    fn post(self: &Arc<Ca>, path: &str, payload: &Value) -> Reply {
        let (kind, number) = path.split_once('/').unwrap_or((path, ""));
        let number: usize = number.parse().unwrap_or(usize::MAX);
        let mut state = self.state();
        match kind {
            "account" => {
                state.contact = payload["contact"].clone();
                let fields = vec![("Location", self.url("account/1"))];
                let status = if path == "account" { 201 } else { 200 };
                (status, fields, json!({ "status": "valid" }).to_string().into_bytes())
            }
            "order" if path == "order" => self.new_order(&mut state, payload),
            _ if number >= state.orders.len() => problem(404, "malformed", "no such object"),
            "order" => {
                let order = &mut state.orders[number];
                let object = self.order(number, order);
                // The certificate is ready when the client asks for the second time.
                if order.status == "processing" {
                    order.status = "valid";
                }
                object
            }
            "authz" => {
                let object = self.authorization(number, &state.orders[number]);
                (200, Vec::new(), object.to_string().into_bytes())
            }
            "tls" | "http" => {
                let order = &state.orders[number];
                let (ca, tls) = (self.clone(), kind == "tls");
                if order.status == "pending" {
                    std::thread::spawn(move || ca.validate(number, tls));
                }
                let object = self.challenge(kind, number, order);
                (200, Vec::new(), object.to_string().into_bytes())
            }
            "finalize" => self.finalize(&mut state, number, payload),
            "cert" => match &state.orders[number].certificate {
                Some(chain) => {
                    let kind = ("Content-Type", "application/pem-certificate-chain".to_owned());
                    (200, vec![kind], chain.clone().into_bytes())
                }
                None => problem(404, "malformed", "no certificate"),
            },
            _ => problem(404, "malformed", "no such resource"),
        }
    }

    fn new_order(&self, state: &mut State, payload: &Value) -> Reply {
        if let Some((status, retry_after, has_document)) = state.faults.refusal {
            let (kind, text) = ("rateLimited", "too many new orders recently");
            let (_, mut fields, document) = problem(status, kind, text);
            fields.push(("Retry-After", retry_after.to_owned()));
            let body = if has_document { document } else { b"<html>busy</html>".to_vec() };
            return (status, fields, body);
        }
        let identifiers = payload["identifiers"].as_array().map_or(&[][..], Vec::as_slice);
        let [identifier] = identifiers else {
            return problem(400, "malformed", "this authority certifies one name");
        };
        let number = state.orders.len();
        state.orders.push(Ordered {
            domain: identifier["value"].as_str().unwrap_or_default().to_owned(),
            status: "pending",
            token: format!("token-{number}-{}", "x".repeat(22)),
            error: Value::Null,
            certificate: None,
            replaces: payload["replaces"].clone(),
        });
        let (_, mut fields, body) = self.order(number, &state.orders[number]);
        fields.push(("Location", self.url(&format!("order/{number}"))));
        (201, fields, body)
    }

    fn order(&self, number: usize, order: &Ordered) -> Reply {
        let mut object = json!({
            "status": order.status,
            "expires": "2099-01-01T00:00:00Z",
            "identifiers": [{ "type": "dns", "value": order.domain }],
            "authorizations": [self.url(&format!("authz/{number}"))],
            "finalize": self.url(&format!("finalize/{number}")),
        });
        if order.status == "valid" {
            object["certificate"] = self.url(&format!("cert/{number}")).into();
        }
        if !order.replaces.is_null() {
            object["replaces"] = order.replaces.clone();
        }
        (200, Vec::new(), object.to_string().into_bytes())
    }

    fn authorization(&self, number: usize, order: &Ordered) -> Value {
        let status = match order.status {
            "pending" | "invalid" => order.status,
            _ => "valid",
        };
        json!({
            "status": status,
            "expires": "2099-01-01T00:00:00Z",
            "identifier": { "type": "dns", "value": order.domain },
            "challenges": [
                self.challenge("http", number, order),
                self.challenge("tls", number, order),
                { "type": "dns-01", "url": self.url("dns"), "status": "pending", "token": "t" },
            ],
        })
    }

    fn challenge(&self, kind: &str, number: usize, order: &Ordered) -> Value {
        let status = match order.status {
            "pending" | "invalid" => order.status,
            _ => "valid",
        };
        let mut object = json!({
            "type": if kind == "tls" { "tls-alpn-01" } else { "http-01" },
            "url": self.url(&format!("{kind}/{number}")),
            "status": status,
            "token": order.token,
        });
        if !order.error.is_null() {
            object["error"] = order.error.clone();
        }
        object
    }

    /// Validates a challenge by connecting to where the domain leads.
    fn validate(&self, number: usize, is_tls: bool) {
        let address = loop {
            if let Some(address) = self.state().faults.leads_to {
                break address;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let (domain, authorization) = {
            let state = self.state();
            let (order, (x, y)) = (&state.orders[number], state.key.clone().unwrap());
            // RFC 7638: the required members in their order, without spaces.
            let jwk = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
            let thumbprint = URL_SAFE_NO_PAD.encode(sha256(&[jwk.as_bytes()]));
            (order.domain.clone(), format!("{}.{thumbprint}", order.token))
        };
        let check = if is_tls { validate_tls } else { validate_http };
        let outcome = (0..VALIDATIONS).try_for_each(|_| check(address, &domain, &authorization));
        let mut state = self.state();
        let order = &mut state.orders[number];
        match outcome {
            Ok(()) => order.status = "ready",
            Err(text) => {
                order.status = "invalid";
                let kind = format!("{PROBLEM}unauthorized");
                order.error = json!({ "type": kind, "detail": text, "status": 403 });
            }
        }
    }

    fn finalize(&self, state: &mut State, number: usize, payload: &Value) -> Reply {
        let (name, lifetime_s) = {
            let (faults, order) = (&state.faults, &state.orders[number]);
            if order.status != "ready" {
                return problem(403, "orderNotReady", "the order is not ready");
            }
            (faults.wrong_name.unwrap_or(&order.domain).to_owned(), faults.lifetime_s)
        };
        let csr = decode(payload["csr"].as_str().unwrap_or_default());
        let Some(key) = key_of_request(&csr, &state.orders[number].domain) else {
            return problem(400, "badCSR", "the request is not for the names of the order");
        };
        let now = OffsetDateTime::now_utc();
        let certificate = self.issuing.leaf_of(&name, &key, |params| {
            params.not_before = now;
            params.not_after = now + time::Duration::seconds(lifetime_s);
        });
        let order = &mut state.orders[number];
        order.certificate = Some(format!("{}{}", certificate.pem(), self.issuing.pem()));
        order.status = "processing";
        let (status, mut fields, body) = self.order(number, order);
        fields.push(("Retry-After", "1".to_owned()));
        (status, fields, body)
    }

    fn renewal_info(&self) -> Reply {
        let Some((from_s, until_s)) = self.state().faults.window_s else {
            return problem(404, "malformed", "no renewal information");
        };
        let at = |seconds| {
            let at = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
            at.format(&Rfc3339).unwrap()
        };
        let window = json!({ "suggestedWindow": { "start": at(from_s), "end": at(until_s) } });
        (200, vec![("Retry-After", "21600".to_owned())], window.to_string().into_bytes())
    }
}

fn problem(status: u16, kind: &str, text: &str) -> Reply {
    let document = json!({ "type": format!("{PROBLEM}{kind}"), "detail": text, "status": status });
    let kind = ("Content-Type", "application/problem+json".to_owned());
    (status, vec![kind], document.to_string().into_bytes())
}

fn decode(base64url: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(base64url).unwrap_or_default()
}

/// Whether an external account binding is right (RFC 8555 section 7.3.4).
fn is_bound(binding: &Value, key: &(&str, Vec<u8>), outer: &Value, url: &str) -> bool {
    let part = |name: &str| binding[name].as_str().unwrap_or_default().to_owned();
    let (protected, payload) = (part("protected"), part("payload"));
    let header: Value = serde_json::from_slice(&decode(&protected)).unwrap_or_default();
    let bound: Value = serde_json::from_slice(&decode(&payload)).unwrap_or_default();
    let mac = hmac::Key::new(hmac::HMAC_SHA256, &key.1);
    let signed = format!("{protected}.{payload}");
    header["alg"] == "HS256"
        && header["kid"] == key.0
        && header["url"] == url
        && bound["x"] == outer["jwk"]["x"]
        && hmac::verify(&mac, signed.as_bytes(), &decode(&part("signature"))).is_ok()
}

/// The public key of a certificate signing request.
struct RequestKey(Vec<u8>);

impl PublicKeyData for RequestKey {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// The key of a signed request, if its only name is `domain`.
fn key_of_request(der: &[u8], domain: &str) -> Option<RequestKey> {
    let (_, request) = X509CertificationRequest::from_der(der).ok()?;
    let info = &request.certification_request_info;
    let key = info.subject_pki.subject_public_key.data.to_vec();
    let algorithm = &signature::ECDSA_P256_SHA256_ASN1;
    let public = signature::UnparsedPublicKey::new(algorithm, &key);
    public.verify(info.raw, &request.signature_value.data).ok()?;
    let names = request.requested_extensions()?.find_map(|it| match it {
        ParsedExtension::SubjectAlternativeName(names) => Some(names),
        _ => None,
    })?;
    let is_right =
        matches!(&names.general_names[..], [GeneralName::DNSName(name)] if *name == domain);
    is_right.then_some(RequestKey(key))
}

/// Accepts any certificate whose key the server has; the challenge checks the certificate.
#[derive(Debug)]
struct KeyOnly;

impl ServerCertVerifier for KeyOnly {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("only TLS 1.3 is offered")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
        let key = SubjectPublicKeyInfoDer::from(parsed.tbs_certificate.subject_pki.raw);
        let algorithms = provider::default_provider().signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &key, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// RFC 8737 section 3.
fn validate_tls(address: SocketAddr, domain: &str, authorization: &str) -> Result<(), String> {
    let config = ClientConfig::builder_with_provider(Arc::new(provider::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(KeyOnly));
    let mut config = config.with_no_client_auth();
    config.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let mut stream = TcpStream::connect(address).map_err(|it| format!("Connection: {it}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let name = ServerName::try_from(domain.to_owned()).unwrap();
    let mut conn = ClientConnection::new(Arc::new(config), name).unwrap();
    while conn.is_handshaking() {
        conn.complete_io(&mut stream).map_err(|it| format!("the handshake has failed: {it}"))?;
    }
    if conn.alpn_protocol() != Some(b"acme-tls/1") {
        return Err("the server does not have the protocol acme-tls/1".to_owned());
    }
    let der = conn.peer_certificates().unwrap()[0].to_vec();
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    let is_named =
        matches!(&names.value.general_names[..], [GeneralName::DNSName(name)] if *name == domain);
    let extension = certificate.extensions().iter();
    let mut extension = extension.filter(|it| it.oid.to_id_string() == "1.3.6.1.5.5.7.1.31");
    let digest = [&[4, 32][..], &sha256(&[authorization.as_bytes()])].concat();
    let is_right = extension.next().is_some_and(|it| it.critical && it.value == digest);
    if !is_named || !is_right || certificate.subject() != certificate.issuer() {
        return Err("the certificate of the challenge is wrong".to_owned());
    }
    // The connection ends without a byte of an application, whatever the client sends.
    let mut stream = StreamOwned::new(conn, stream);
    let _ = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    match stream.read(&mut [0; 16]) {
        Ok(n @ 1..) => Err(format!("the server has sent {n} bytes")),
        _ => Ok(()),
    }
}

/// RFC 8555 section 8.3.
fn validate_http(address: SocketAddr, domain: &str, authorization: &str) -> Result<(), String> {
    let token = authorization.split('.').next().unwrap();
    let mut stream = TcpStream::connect(address).map_err(|it| format!("Connection: {it}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let request = format!(
        "GET /.well-known/acme-challenge/{token} HTTP/1.1\r\nHost: {domain}\r\n\
         Connection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(|it| it.to_string())?;
    let (head, body) = read_message(&mut stream).map_err(|it| it.to_string())?;
    match head.starts_with("HTTP/1.1 200") && body == authorization.as_bytes() {
        true => Ok(()),
        false => Err(format!("the response is {:?}", head.lines().next())),
    }
}

/// The head and the body of an HTTP message.
fn read_message(stream: &mut impl Read) -> io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some(end) = text.find("\r\n\r\n") {
            let field = text.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok())?
            });
            let from = end + 4;
            if bytes.len() >= from + field.unwrap_or(0) {
                return Ok((text[..end].to_owned(), bytes[from..].to_vec()));
            }
        }
        match stream.read(&mut piece)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&piece[..n]),
        }
    }
}
