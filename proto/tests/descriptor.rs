//! The protocol as it is committed: services, messages, fields with their numbers, enums. A change shows here, where a
//! number that is used again would be seen. `UPDATE_GOLDEN=1 cargo test -p autoresearch-proto` writes it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by ending")]

use std::{fmt::Write as _, path::Path};

use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};

fn message(out: &mut String, message: &DescriptorProto) {
    let mut fields: Vec<String> = message
        .field
        .iter()
        .map(|f| {
            let kind = f.type_name.clone().unwrap_or_else(|| format!("{:?}", f.r#type()));
            format!("  {} = {} {:?} {kind}", f.name(), f.number(), f.label())
        })
        .collect();
    fields.sort();
    writeln!(out, "message {}\n{}", message.name(), fields.join("\n")).unwrap();
}

#[test]
fn the_protocol_is_as_committed() {
    let set = FileDescriptorSet::decode(autoresearch_proto::DESCRIPTORS).unwrap();
    let file = set.file.iter().find(|f| f.package() == "autoresearch.worker.v1").unwrap();
    let mut out = String::new();
    for service in &file.service {
        writeln!(out, "service {}", service.name()).unwrap();
        for m in &service.method {
            let stream = |yes| if yes { "stream " } else { "" };
            let (from, to) = (stream(m.client_streaming()), stream(m.server_streaming()));
            writeln!(out, "  {} ({from}{}) -> {to}{}", m.name(), m.input_type(), m.output_type()).unwrap();
        }
    }
    let mut messages: Vec<_> = file.message_type.iter().collect();
    messages.sort_by_key(|m| m.name().to_owned());
    for each in messages {
        message(&mut out, each);
    }
    for each in &file.enum_type {
        writeln!(out, "enum {}", each.name()).unwrap();
        for value in &each.value {
            writeln!(out, "  {} = {}", value.name(), value.number()).unwrap();
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/descriptor.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &out).unwrap();
    }
    assert_eq!(
        out,
        std::fs::read_to_string(&path).unwrap(),
        "the protocol has changed: see the head of this file"
    );
}
