//! The two texts that people copy from one machine to the other. One line of letters, digits, `.`, `-` and `_`, so that
//! neither a shell nor a chat window changes it; a version in front; a checksum at the end, so that half of one is
//! noticed.
//!
//! Inside: fields with their length (u16, big-endian), then the first 4 bytes of SHA-256 over kind and fields.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use super::{Address, AddressError, Fingerprint, Secret};

/// No text of ours comes near it.
const LONGEST: usize = 4096;
/// Under which a worker may look for its controller.
const ADDRESSES_MAX: usize = 8;
const CHECKSUM: usize = 4;
const JOIN: &str = "autoresearch-join";
const INVITE: &str = "autoresearch-invite";
const VERSION: &str = "1";

/// Why a text cannot be used. The text itself is not repeated: it holds a secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TextError {
    /// Something else was pasted.
    #[error("this is no {wanted} string: it must begin with `{prefix}.`; `{command}` prints one")]
    Other {
        /// "join", "invite".
        wanted: &'static str,
        /// How it begins.
        prefix: &'static str,
        /// Where it comes from.
        command: &'static str,
    },
    /// The other one of the two.
    #[error(
        "this string is of the other kind ({0}): `autoresearch worker add` takes one of kind join, `autoresearch-worker serve --dial` one of kind invite"
    )]
    Swapped(&'static str),
    /// Of a newer or older program.
    #[error(
        "this string has version `{0}`, and this program reads version {VERSION}: use the same version on both machines"
    )]
    Version(String),
    /// Cut off, or changed on the way.
    #[error("this string is cut off or was changed on the way: copy it again, whole")]
    Damaged,
    /// More than any that is printed.
    #[error("this string is longer than any that is printed (over {LONGEST} characters)")]
    TooLong,
    /// What it holds makes no sense, although it is whole.
    #[error("this string is whole, and its {0} is not right: print a new one")]
    Field(&'static str),
    /// An address in it.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// What `autoresearch-worker init` prints and `autoresearch worker add NAME …` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinString {
    /// Where the worker listens.
    pub address: Address,
    /// Of the worker.
    pub fingerprint: Fingerprint,
    /// Works once.
    pub secret: Secret,
}

/// What `autoresearch worker invite NAME` prints and `autoresearch-worker serve --dial …` takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InviteString {
    /// Where the controller listens; tried in this order. At most 8.
    pub addresses: Vec<Address>,
    /// Of the controller.
    pub fingerprint: Fingerprint,
    /// Works once.
    pub secret: Secret,
    /// How the controller calls this worker.
    pub name: String,
}

impl fmt::Display for JoinString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.address.to_string();
        let fields = [self.fingerprint.bytes().as_slice(), self.secret.bytes(), address.as_bytes()];
        f.write_str(&encode(JOIN, &fields))
    }
}

impl FromStr for JoinString {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let other = || TextError::Other { wanted: "join", prefix: JOIN, command: "autoresearch-worker init" };
        let fields = decode(text, JOIN, INVITE, other)?;
        let [fingerprint, secret, address] = fields.as_slice() else {
            return Err(TextError::Field("number of fields"));
        };
        Ok(Self {
            address: utf8(address, "address")?.parse()?,
            fingerprint: read_fingerprint(fingerprint)?,
            secret: read_secret(secret)?,
        })
    }
}

impl fmt::Display for InviteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<String> =
            self.addresses.iter().take(ADDRESSES_MAX).map(ToString::to_string).collect();
        let mut fields = vec![self.fingerprint.bytes().as_slice(), self.secret.bytes(), self.name.as_bytes()];
        fields.extend(addresses.iter().map(|address| address.as_bytes()));
        f.write_str(&encode(INVITE, &fields))
    }
}

impl FromStr for InviteString {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let other = || TextError::Other {
            wanted: "invite",
            prefix: INVITE,
            command: "autoresearch worker invite NAME",
        };
        let fields = decode(text, INVITE, JOIN, other)?;
        let [fingerprint, secret, name, addresses @ ..] = fields.as_slice() else {
            return Err(TextError::Field("number of fields"));
        };
        let name = utf8(name, "name")?;
        crate::name::check_name(name).map_err(|_| TextError::Field("name"))?;
        if !(1..=ADDRESSES_MAX).contains(&addresses.len()) {
            return Err(TextError::Field("number of addresses"));
        }
        let addresses = addresses
            .iter()
            .map(|address| Ok(utf8(address, "address")?.parse()?))
            .collect::<Result<_, TextError>>()?;
        Ok(Self {
            addresses,
            fingerprint: read_fingerprint(fingerprint)?,
            secret: read_secret(secret)?,
            name: name.to_owned(),
        })
    }
}

fn read_fingerprint(bytes: &[u8]) -> Result<Fingerprint, TextError> {
    bytes.try_into().map(Fingerprint::from_bytes).map_err(|_| TextError::Field("fingerprint"))
}

fn read_secret(bytes: &[u8]) -> Result<Secret, TextError> {
    Secret::from_bytes(bytes).ok_or(TextError::Field("secret"))
}

fn utf8<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str, TextError> {
    std::str::from_utf8(bytes).map_err(|_| TextError::Field(what))
}

fn checksum(kind: &str, body: &[u8]) -> [u8; CHECKSUM] {
    let digest = Sha256::new().chain_update(kind).chain_update(body).finalize();
    let mut first = [0; CHECKSUM];
    first.copy_from_slice(&digest[..CHECKSUM]);
    first
}

fn encode(kind: &str, fields: &[&[u8]]) -> String {
    let mut body = Vec::new();
    for field in fields {
        // No field of ours comes near it.
        let length = u16::try_from(field.len()).unwrap_or(u16::MAX);
        body.extend(length.to_be_bytes());
        body.extend(&field[..usize::from(length)]);
    }
    body.extend(checksum(kind, &body));
    format!("{kind}.{VERSION}.{}", URL_SAFE_NO_PAD.encode(&body))
}

fn decode(
    text: &str,
    kind: &'static str,
    sibling: &'static str,
    other: impl Fn() -> TextError,
) -> Result<Vec<Vec<u8>>, TextError> {
    let text = text.trim();
    if text.len() > LONGEST {
        return Err(TextError::TooLong);
    }
    let mut parts = text.splitn(3, '.');
    match parts.next() {
        Some(found) if found == kind => {}
        Some(found) if found == sibling => {
            return Err(TextError::Swapped(if sibling == JOIN { "join" } else { "invite" }));
        }
        _ => return Err(other()),
    }
    match parts.next() {
        Some(VERSION) => {}
        Some(version) => return Err(TextError::Version(crate::text::one_line(version, 10))),
        None => return Err(TextError::Damaged),
    }
    let bytes = URL_SAFE_NO_PAD.decode(parts.next().unwrap_or_default()).map_err(|_| TextError::Damaged)?;
    let (mut body, sum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(TextError::Damaged)?;
    if checksum(kind, body) != *sum {
        return Err(TextError::Damaged);
    }
    let mut fields = Vec::new();
    while !body.is_empty() {
        let (length, rest) = body.split_first_chunk::<2>().ok_or(TextError::Damaged)?;
        let (field, rest) =
            rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(TextError::Damaged)?;
        fields.push(field.to_vec());
        body = rest;
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join() -> JoinString {
        JoinString {
            address: "gpu-box.example:7433".parse().unwrap(),
            fingerprint: Fingerprint::of_key(b"key"),
            secret: Secret::new(),
        }
    }

    fn invite() -> InviteString {
        InviteString {
            addresses: vec!["10.0.0.7:7434".parse().unwrap(), "[::1]:7434".parse().unwrap()],
            fingerprint: Fingerprint::of_key(b"key"),
            secret: Secret::new(),
            name: "gpu-box".to_owned(),
        }
    }

    #[test]
    fn each_reads_what_it_prints_on_one_safe_line() {
        let (join, invite) = (join(), invite());
        for text in [join.to_string(), invite.to_string()] {
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{text}");
            assert!(text.len() < 250, "{text}");
        }
        assert_eq!(format!(" {join}\n").parse(), Ok(join));
        assert_eq!(invite.to_string().parse(), Ok(invite));
        assert!(!format!("{:?}", self::join()).contains(&self::join().secret.hex()));
    }

    #[test]
    fn what_is_wrong_is_told_and_no_secret_with_it() {
        let text = join().to_string();
        let error = |text: &str| text.parse::<JoinString>().unwrap_err();
        assert_eq!(error(&text[..text.len() - 3]), TextError::Damaged);
        assert_eq!(error(&text.replace(".1.", ".2.")), TextError::Version("2".to_owned()));
        assert_eq!(error(&invite().to_string()), TextError::Swapped("invite"));
        assert_eq!(join().to_string().parse::<InviteString>().unwrap_err(), TextError::Swapped("join"));
        assert!(matches!(error("ssh://me@gpu"), TextError::Other { .. }));
        assert!(matches!(error(""), TextError::Other { .. }));
        assert_eq!(error("autoresearch-join"), TextError::Damaged);
        assert_eq!(error(&"a".repeat(5000)), TextError::TooLong);
        let other = error("x").to_string();
        assert!(
            other.contains("autoresearch-join.") && other.contains("autoresearch-worker init"),
            "{other}"
        );
        // Every single character that is changed is noticed.
        for at in "autoresearch-join.1.".len()..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert!(changed.parse::<JoinString>().is_err(), "{at}");
        }
    }

    #[test]
    fn a_whole_text_with_wrong_fields_is_refused() {
        let short = encode(JOIN, &[&[1; 32], &[2; 19], b"gpu:1"]);
        assert_eq!(short.parse::<JoinString>().unwrap_err(), TextError::Field("secret"));
        let address = encode(JOIN, &[&[1; 32], &[2; 20], b"gpu"]);
        assert!(matches!(address.parse::<JoinString>(), Err(TextError::Address(_))));
        let many: Vec<&[u8]> = [&[1; 32][..], &[2; 20], b"gpu"].into_iter().chain([&b"a:1"[..]; 9]).collect();
        let error = encode(INVITE, &many).parse::<InviteString>().unwrap_err();
        assert_eq!(error, TextError::Field("number of addresses"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}", body in proptest::collection::vec(0_u8.., 0..300)) {
            text.parse::<JoinString>().ok();
            let mut whole = body.clone();
            whole.extend(checksum(INVITE, &body));
            format!("{INVITE}.1.{}", URL_SAFE_NO_PAD.encode(whole)).parse::<InviteString>().ok();
        }
    }
}
