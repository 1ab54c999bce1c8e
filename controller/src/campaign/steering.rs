//! What another process may want of a campaign under way, in one type for both sides: the command line that leaves it in the
//! journal, and the owner that takes it. What comes of it is the driver's.

use serde_json::{Value, json};

use crate::journal::{CampaignId, CommandRow, Journal, JournalError};

/// Of a hint at most, in bytes: it goes into every prompt that plans.
pub const HINT_BYTES: usize = 2000;

/// One command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Nothing new is begun; what runs goes on to its end, and the time does not count.
    Pause,
    /// Lifts a pause.
    Resume,
    /// Ends the campaign with a report of what it has.
    Cancel,
    /// Words for the next plan.
    Hint(String),
    /// The journal has other limits: read them.
    Budget,
}

impl Command {
    /// As the journal has it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Cancel => "cancel",
            Self::Hint(_) => "hint",
            Self::Budget => "budget",
        }
    }

    fn body(&self) -> Value {
        match self {
            Self::Hint(text) => json!({ "text": text }),
            _ => json!({}),
        }
    }

    /// From the journal; `None` where a later version wrote it.
    #[must_use]
    pub fn of(row: &CommandRow) -> Option<Self> {
        match row.kind.as_str() {
            "pause" => Some(Self::Pause),
            "resume" => Some(Self::Resume),
            "cancel" => Some(Self::Cancel),
            "hint" => row.body["text"].as_str().map(|text| Self::Hint(text.to_owned())),
            "budget" => Some(Self::Budget),
            _ => None,
        }
    }

    /// Leaves it for the campaign's owner; its number.
    ///
    /// # Errors
    /// As [`Journal::put_command`].
    pub async fn leave(&self, journal: &Journal, campaign: CampaignId) -> Result<u64, JournalError> {
        journal.put_command(campaign, self.kind(), &self.body()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_what_is_taken() {
        for command in [
            Command::Pause,
            Command::Resume,
            Command::Cancel,
            Command::Hint("try GELU".into()),
            Command::Budget,
        ] {
            let row = CommandRow { number: 1, kind: command.kind().into(), body: command.body(), at_ns: 0 };
            assert_eq!(Command::of(&row), Some(command));
        }
        let row = CommandRow { number: 1, kind: "dance".into(), body: json!({}), at_ns: 0 };
        assert_eq!(Command::of(&row), None);
    }
}
