//! Messages of any kind into a Zenith connection, in each format, from a client or a back end.

use crate::machine::{Machine, config};
use crate::peer::{Received, framed, handshake};
use polycast::codec::Format;
use polycast::codec::json::Scratch;
use polycast::codec::value::{DecodeLimits, decode};
use polycast::ws::Opcode;

const CONFIG: &str = "[zenith]\nservices = [{ token = 'SERVICE' }]\n\
    tokens = [{ token = 'T', user = 'u', scopes = ['M'] }]\n\
    topics = [{ controller = 'Market', kind = 'S', scope = 'M' }, \
    { controller = 'Market', kind = 'D', retain = 'log' }, \
    { controller = 'Market', kind = 'Q', reply = '[1]' }]\n";

pub(crate) fn run(data: &[u8]) {
    let Some((&shape, rest)) = data.split_first() else { return };
    let format = Format::ALL[usize::from(shape) % 3];
    let mut machine = Machine::new(config(CONFIG));
    let (us, other) = (machine.open(), machine.open());
    let protocol = ["ZenithJson", "ZenithBson", "ZenithMsgPack"][format.index()];
    let token = if shape & 64 == 0 { "T" } else { "SERVICE" };
    let fields = format!("Sec-WebSocket-Protocol: {protocol}\r\nAuthorization: Bearer {token}\r\n");
    machine.receive(us, &handshake("/Zenith", &fields));
    // The other side, so that calls have somewhere to go.
    let token = if shape & 64 == 0 { "SERVICE" } else { "T" };
    let fields = format!("Authorization: Bearer {token}\r\n");
    machine.receive(other, &handshake("/Zenith", &fields));
    let register = br#"{"Action":"Register","Data":{"Controllers":["News"],"Authorises":true}}"#;
    machine.receive(other, &framed(Opcode::Text, register));
    let opcode = if format.is_text() { Opcode::Text } else { Opcode::Binary };
    for message in rest.split(|&byte| byte == 0xff) {
        if !format.is_text() || str::from_utf8(message).is_ok() {
            machine.receive(us, &framed(opcode, message));
        }
    }
    machine.wait(40_000);
    for received in std::mem::take(&mut machine.wire(us).received).into_iter().skip(1) {
        let mut payload = match received {
            Received::Text(text) if format.is_text() => text.into_bytes(),
            Received::Binary(payload) if !format.is_text() => payload,
            Received::Ping(_) | Received::Close(Some(1007 | 1009), _) => continue,
            other => panic!("{other:?}"),
        };
        let value = decode(format, &mut payload, &DecodeLimits::default(), &mut Scratch::default());
        let value = value.unwrap_or_else(|error| panic!("{error}"));
        assert!(value.get("Controller").is_some(), "{value:?}");
    }
    machine.end();
}
