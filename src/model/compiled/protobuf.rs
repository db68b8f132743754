//! Protocol Buffers messages in the binary encoding and in the JSON mapping.

use crate::model::{BadSchema, Invalid};
use prost_reflect::prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, SerializeOptions};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};

/// The file name under which the schema is compiled.
const FILE: &str = "schema.proto";

/// Rules for a Protocol Buffers message.
#[derive(Debug)]
pub struct Protobuf {
    record: MessageDescriptor,
    /// Whether the configuration names the record, so that no other message type is accepted.
    is_named: bool,
}

/// Resolves the schema's file and the files that it may import, and no other file.
struct Texts {
    text: String,
    others: Vec<(String, String)>,
}

impl FileResolver for Texts {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let other = || self.others.iter().find(|(other, _)| other == name);
        match (name, other()) {
            (FILE, _) => File::from_source(FILE, &self.text),
            (_, Some((name, text))) => File::from_source(name, text),
            _ => Err(protox::Error::file_not_found(name)),
        }
    }
}

impl Protobuf {
    /// Accepts messages of the type `record` of a `.proto` file: its full name, or its last part
    /// where that is unambiguous. Without a record, it is the first message type of the file. The
    /// file may import Google's well-known types and no others.
    ///
    /// # Errors
    /// The text is not a valid `.proto` file, or it does not declare the message type.
    pub fn new(schema: &str, record: Option<&str>) -> Result<Protobuf, BadSchema> {
        Protobuf::with(schema, &[], record)
    }

    /// As [`Protobuf::new`], with the files that the schema may import: the path in the import, and
    /// the text.
    ///
    /// # Errors
    /// As for [`Protobuf::new`], for any of the texts.
    pub fn with(
        schema: &str,
        others: &[(String, String)],
        record: Option<&str>,
    ) -> Result<Protobuf, BadSchema> {
        let pool = compile(Texts { text: schema.to_owned(), others: others.to_vec() })?;
        let file = pool
            .get_file_by_name(FILE)
            .ok_or_else(|| BadSchema::new("the compiler returned no file"))?;
        let Some(record) = record else {
            let record = file.messages().next();
            let record = record.ok_or_else(|| BadSchema::new("it declares no message"))?;
            return Ok(Protobuf { record, is_named: false });
        };
        let full = pool.get_message_by_name(record);
        let mut named = file.messages().filter(|message| message.name() == record);
        let by_last = || named.next().filter(|_| named.next().is_none());
        let unknown = || BadSchema::new(format_args!("it declares no message `{record}`"));
        Ok(Protobuf { record: full.or_else(by_last).ok_or_else(unknown)?, is_named: true })
    }

    /// The message indexes of the record: its index in the file, then in each enclosing message.
    pub(in crate::model) fn indexes(&self) -> Vec<usize> {
        let mut indexes = Vec::new();
        let mut record = Some(self.record.clone());
        while let Some(it) = record {
            let parent = it.parent_message();
            let at = match &parent {
                Some(parent) => parent.child_messages().position(|child| child == it),
                None => it.parent_file().messages().position(|message| message == it),
            };
            indexes.push(at.unwrap_or_default());
            record = parent;
        }
        indexes.reverse();
        indexes
    }

    /// The model of the message type at these message indexes.
    pub(in crate::model) fn at(&self, indexes: &[usize]) -> Result<Protobuf, Invalid> {
        if self.is_named && self.indexes() != indexes {
            return Err(Invalid::broken("the message index is another record's"));
        }
        let none = || Invalid::broken("the schema has no message at that index");
        let (first, further) = indexes.split_first().ok_or_else(none)?;
        let mut record = self.record.parent_file().messages().nth(*first).ok_or_else(none)?;
        for index in further {
            let child = record.child_messages().nth(*index);
            record = child.ok_or_else(none)?;
        }
        Ok(Protobuf { record, is_named: self.is_named })
    }

    pub(in crate::model) fn check(&self, message: &[u8]) -> Result<(), Invalid> {
        self.decode(message).map(drop)
    }

    fn decode(&self, message: &[u8]) -> Result<DynamicMessage, Invalid> {
        let decoded = DynamicMessage::decode(self.record.clone(), message);
        decoded.map_err(|error| Invalid::malformed(format_args!("not Protobuf: {error}")))
    }

    pub(in crate::model) fn to_json(&self, message: &[u8]) -> Result<Vec<u8>, Invalid> {
        let decoded = self.decode(message)?;
        let mut json = Vec::with_capacity(message.len() * 2);
        let mut serializer = serde_json::Serializer::new(&mut json);
        let written = decoded.serialize_with_options(&mut serializer, &SerializeOptions::default());
        written.map_err(|error| Invalid::broken(format_args!("not JSON: {error}")))?;
        Ok(json)
    }

    pub(in crate::model) fn encode_json(&self, json: &[u8]) -> Result<Vec<u8>, Invalid> {
        if let Err(error) = serde_json::from_slice::<serde::de::IgnoredAny>(json) {
            return Err(Invalid::malformed(format_args!("not JSON: {error}")));
        }
        let mut parser = serde_json::Deserializer::from_slice(json);
        let message = DynamicMessage::deserialize(self.record.clone(), &mut parser);
        let message = message.map_err(|error| Invalid::broken(error.to_string()))?;
        Ok(message.encode_to_vec())
    }
}

fn compile(texts: Texts) -> Result<DescriptorPool, BadSchema> {
    let mut files = ChainFileResolver::new();
    files.add(GoogleFileResolver::new());
    files.add(texts);
    let mut compiler = protox::Compiler::with_file_resolver(files);
    compiler.include_imports(true);
    compiler.open_file(FILE).map_err(BadSchema::new)?;
    Ok(compiler.descriptor_pool())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: &str = r#"
        syntax = "proto3";
        package market;
        import "google/protobuf/timestamp.proto";
        message Tick {
            string code = 1;
            double price = 2;
            repeated int64 sizes = 3;
            google.protobuf.Timestamp at = 4;
            Tick before = 5;
        }
        message Other { bool flag = 1; }
    "#;

    #[test]
    fn protobuf_message_and_its_json_view() {
        let tick = Protobuf::new(SCHEMA, Some("Tick")).unwrap();
        let json = br#"{"code":"XYZ","price":10.5,"sizes":["1","2"],"at":"2020-01-02T03:04:05Z"}"#;
        let bytes = tick.encode_json(json).unwrap();
        // Field 1, length 3, "XYZ"; field 2, 64 bits.
        assert_eq!(&bytes[..6], b"\x0a\x03XYZ\x11");
        assert_eq!(tick.check(&bytes), Ok(()));
        let again = tick.to_json(&bytes).unwrap();
        assert_eq!(String::from_utf8(again).unwrap(), str::from_utf8(json).unwrap());
    }

    #[test]
    fn protobuf_refuses_malformed_messages() {
        let tick = Protobuf::new(SCHEMA, Some("market.Tick")).unwrap();
        for bad in [&b"\x0a\x05XYZ"[..], b"\x0a", b"\xff\xff", b"\x0a\x01\xff"] {
            assert!(tick.check(bad).is_err_and(|error| error.malformed), "{bad:x?}");
        }
        assert_eq!(tick.check(b""), Ok(()), "every field is optional");
        assert!(tick.encode_json(b"{").is_err_and(|error| error.malformed));
        for bad in [&b"[]"[..], br#"{"price":"x"}"#, br#"{"none":1}"#] {
            assert!(tick.encode_json(bad).is_err_and(|error| !error.malformed));
        }
    }

    #[test]
    fn protobuf_message_by_its_index_in_the_file() {
        let text = "syntax = \"proto3\"; message A { message B { message C { bool c = 1; } } } \
                    message D { bool d = 1; message E {} message F { bool f = 1; } }";
        for (record, indexes) in [("A", &[0][..]), ("A.B.C", &[0, 0, 0]), ("D.F", &[1, 1])] {
            let named = Protobuf::new(text, Some(record)).unwrap();
            assert_eq!(named.indexes(), indexes);
            assert!(named.at(indexes).is_ok() && named.at(&[1, 0]).is_err());
        }
        let any = Protobuf::new(text, None).unwrap();
        assert_eq!(any.indexes(), [0]);
        assert_eq!(any.at(&[1, 1]).unwrap().to_json(b"\x08\x01").unwrap(), br#"{"f":true}"#);
        for bad in [&[2][..], &[1, 2], &[0, 0, 0, 0], &[usize::MAX], &[]] {
            assert!(any.at(bad).is_err_and(|error| !error.malformed), "{bad:?}");
        }
    }

    #[test]
    fn protobuf_nesting_is_bounded() {
        let tick = Protobuf::new(SCHEMA, Some("Tick")).unwrap();
        let nested = |levels: usize| {
            let mut message = Vec::new();
            for _ in 0..levels {
                let mut outer = b"\x2a".to_vec();
                prost_reflect::prost::encoding::encode_varint(message.len() as u64, &mut outer);
                outer.extend_from_slice(&message);
                message = outer;
            }
            message
        };
        assert_eq!(tick.check(&nested(99)), Ok(()));
        assert!(tick.check(&nested(2000)).is_err());
        let json = r#"{"before":"#.repeat(5000) + "{}" + &"}".repeat(5000);
        assert!(tick.encode_json(json.as_bytes()).is_err());
    }

    #[test]
    fn protobuf_schemas_and_records() {
        assert!(Protobuf::new(SCHEMA, Some("Other")).unwrap().check(b"\x08\x01").is_ok());
        assert!(Protobuf::new(SCHEMA, None).unwrap().to_json(b"\x0a\x01a").is_ok());
        assert!(Protobuf::new(SCHEMA, Some("None")).is_err());
        let importing = "import \"a/b.proto\"; message A { optional m.B b = 1; }";
        let other = "package m; message B { required int32 c = 1; }".to_owned();
        let others = [("a/b.proto".to_owned(), other)];
        let record = Protobuf::with(importing, &others, Some("A")).unwrap();
        assert_eq!(record.to_json(b"\x0a\x02\x08\x05").unwrap(), br#"{"b":{"c":5}}"#);
        assert!(Protobuf::new(importing, None).is_err());
        for bad in ["", "message {", "import \"other.proto\";\nmessage A {}"] {
            assert!(Protobuf::new(bad, None).is_err(), "{bad}");
        }
    }
}
