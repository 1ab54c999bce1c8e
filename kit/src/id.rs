//! Ids are types. An id on disk or on the wire is a UUID in lower case; v7, so that ids sort by time.

pub use uuid::Uuid;

/// A new UUID v7: what every id of ours is made of.
#[allow(clippy::disallowed_methods, reason = "this is the one place that makes ids")]
#[must_use]
pub fn new_uuid() -> Uuid {
    Uuid::now_v7()
}

/// The text is not a UUID.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a {1} id (a UUID is wanted)")]
pub struct ParseIdError(pub String, pub &'static str);

/// Declares an id: a UUID newtype that parses, prints, serialises and compares, and nothing else.
#[macro_export]
macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name($crate::id::Uuid);

        impl $name {
            /// A new one.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "two are never equal, so there is no default")]
            pub fn new() -> Self {
                Self($crate::id::new_uuid())
            }
            /// As a UUID.
            #[must_use]
            pub fn uuid(&self) -> $crate::id::Uuid {
                self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::id::ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let wrong = || $crate::id::ParseIdError(text.chars().take(64).collect(), $what);
                let id = $crate::id::Uuid::try_parse(text).map_err(|_| wrong())?;
                // One spelling only: an id names files and is compared as text.
                if id.hyphenated().to_string() == text { Ok(Self(id)) } else { Err(wrong()) }
            }
        }
    };
}

#[cfg(test)]
mod tests {
    id_type!(
        /// Of a thing.
        ThingId,
        "thing"
    );

    #[test]
    fn one_spelling_only() {
        let id = ThingId::new();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(id.to_string().to_uppercase().parse::<ThingId>().is_err());
        assert!(id.uuid().simple().to_string().parse::<ThingId>().is_err());
        assert!("../etc".parse::<ThingId>().is_err());
        assert!(ThingId::new() > id);
    }
}
