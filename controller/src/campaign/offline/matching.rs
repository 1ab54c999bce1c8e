//! From a question in a person's words to a row of the catalogue: which subject, which program, which levels, what
//! sort of plan. Words are brought to one form first (lower case, American spelling, singular), so that the table
//! holds each once; a subject whose word is common outside the field ("deep", "width", "adam") counts only where the
//! question is about training a network.
//!
//! What is not covered is refused with what is. An answer about digits to a question about ImageNet would be worse
//! than none, so a model or a data set that the rules do not have refuses the question too.

use super::super::plan::Kind;
use super::catalogue::{CATALOGUE, Design, Entry, Expected, Level, Sort};
use super::data;
use super::program::{ProgramName, program};

/// What a question asks, in the catalogue's terms.
#[derive(Debug, Clone)]
pub struct Topic {
    /// The subject.
    pub entry: &'static Entry,
    /// How the program that answers it does so.
    pub design: &'static Design,
    /// Two or three, the control first; empty for the learning rate.
    pub levels: Vec<Level>,
    /// What sort of plan.
    pub kind: Kind,
    /// What is expected, the question's own wording heard.
    pub expected: Expected,
    /// The question is about speed, which the plan answers only beside.
    pub asks_speed: bool,
}

/// Why a question is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotCovered {
    /// No subject of the catalogue.
    NoSubject,
    /// A subject, but of a model or data set that we do not have.
    Foreign {
        /// As in the question.
        word: String,
    },
    /// The subject has no design for the program that the question names.
    OtherProgram {
        /// "batch normalisation".
        subject: &'static str,
        /// "MLP on digits".
        covered: String,
    },
    /// The data set of `--dataset` is none of ours, or not the program's.
    DataSet {
        /// As wished.
        name: String,
        /// What would do.
        covered: String,
    },
}

const TEXT_WORDS: &[&str] = &[
    "transformer",
    "attention",
    "language model*",
    "char*",
    "text",
    "austen",
    "decoder",
    "sublayer",
    "next token",
];
const MLP_WORDS: &[&str] = &[
    "mlp",
    "multilayer perceptron",
    "multi layer perceptron",
    "perceptron",
    "digit",
    "tabular",
    "feedforward",
    "feed forward",
    "fully connected",
    "dense net*",
    "dense layer",
    "image*",
    "classif*",
];
/// What makes a question one about training a network.
const FIELD_WORDS: &[&str] = &[
    "network",
    "neural",
    "net",
    "train*",
    "accura*",
    "loss",
    "converg*",
    "generaliz*",
    "overfit*",
    "test error",
    "gradient",
    "hidden",
    "layer",
    "deep learning",
    "machine learning",
    "regulariz*",
    "minibatch",
    "batch",
    "epoch",
    "model",
    "learning rate",
    "optimizer",
];
/// Models and data that the rules do not have: to answer with another would be to answer another question.
const FOREIGN_WORDS: &[&str] = &[
    "mnist",
    "cifar*",
    "imagenet",
    "coco",
    "svhn",
    "resnet*",
    "vgg*",
    "cnn",
    "convnet*",
    "convolution*",
    "lstm",
    "gru",
    "rnn",
    "recurrent",
    "diffusion",
    "gan",
    "vae",
    "autoencoder",
    "gpt*",
    "bert",
    "llama*",
    "mistral",
    "vit",
    "vision transformer",
    "reinforcement",
    "graph neural",
    "gnn",
    "gnns",
    "xgboost",
    "random forest",
    "svm",
    "speech",
    "translation",
    "wikitext*",
    "wikipedia",
    "iris",
    "titanic",
    "boston",
    "lora",
    "quantiz*",
    "distill*",
    "llm",
    "large language model*",
    "whisper",
    "stable diffusion",
];
const STABILITY_WORDS: &[&str] = &[
    "stab*",
    "instab*",
    "unstab*",
    "diverg*",
    "blow up",
    "blow* up",
    "explod*",
    "sensitiv* to the learning rate",
    "sensitiv* to learning rate",
    "sensitiv* to its learning rate",
    "robust* to the learning rate",
    "robust* to learning rate",
    "learning rate sensitiv*",
];
const SENSITIVE_WORDS: &[&str] = &["sensitiv*", "robust*"];
const SPEED_WORDS: &[&str] = &["fast*", "speed*", "quick*", "slow*", "converg*", "accelerat*"];
const HARM_WORDS: &[&str] = &["hurt", "harm", "worse", "worsen*", "degrad*", "damag*"];
const EQUAL_WORDS: &[&str] = &[
    "equivalent",
    "perform as well as",
    "work as well as",
    "do as well as",
    "as good as",
    "interchangeable",
    "make no difference",
    "no difference",
    "equally good",
];

impl Topic {
    /// Reads a question, and `--dataset` where it is given.
    ///
    /// # Errors
    /// [`NotCovered`], whose text says what is.
    pub fn of(question: &str, wished_data: Option<&str>) -> Result<Self, NotCovered> {
        let words = words(question);
        let entry = subject(&words).ok_or(NotCovered::NoSubject)?;
        if let Some(word) = first_of(FOREIGN_WORDS, &words) {
            return Err(NotCovered::Foreign { word });
        }
        let design = design(entry, &words, wished_data)?;
        let levels = levels(design, &words);
        let kind = match entry.sort {
            _ if any(STABILITY_WORDS, &words) && entry.sort != Sort::LearningRate => Kind::Stability,
            Sort::LearningRate => Kind::Sensitivity,
            _ if any(EQUAL_WORDS, &words) => Kind::Equivalence,
            Sort::Part => Kind::Ablation,
            Sort::Choice | Sort::Size => Kind::Comparison,
        };
        let named = levels.get(1).map(|level| level.value);
        let usual = design.levels.get(1).map(|level| level.value);
        let expected = match design.expected {
            Expected::Better if any(HARM_WORDS, &words) => Expected::Worse,
            // What the table expects is said of its own pair of levels.
            _ if named != usual => Expected::Changed,
            expected => expected,
        };
        Ok(Self { entry, design, levels, kind, expected, asks_speed: any(SPEED_WORDS, &words) })
    }
}

/// The first subject by place in the question, phrases that can mean nothing else before the others; the learning
/// rate only where nothing else is asked about, since it stands in questions about everything, or where the question is
/// what is sensitive to it.
fn subject(words: &[String]) -> Option<&'static Entry> {
    let in_field =
        [FIELD_WORDS, MLP_WORDS, TEXT_WORDS, FOREIGN_WORDS].iter().any(|phrases| any(phrases, words));
    let about_sensitivity = any(SENSITIVE_WORDS, words);
    let found: Vec<(usize, usize, usize, &'static Entry)> = CATALOGUE
        .iter()
        .filter_map(|entry| {
            let strong = place_of(entry.strong, words).map(|(at, length)| (0, at, length));
            let weak = place_of(entry.weak, words).map(|(at, length)| (1, at, length));
            let (rank, at, length) = strong.or(if in_field { weak } else { None })?;
            let rank = if entry.sort == Sort::LearningRate && !about_sensitivity { rank + 1 } else { rank };
            Some((rank, at, usize::MAX - length, entry))
        })
        .collect();
    let together = CATALOGUE.iter().find(|entry| {
        let asked = |id: &&str| found.iter().any(|(.., other)| other.id == *id);
        !entry.instead_of.is_empty() && entry.instead_of.iter().all(asked)
    });
    let lost = |entry: &Entry| {
        found.iter().any(|(rank, .., other)| *rank == 0 && other.wins_over.contains(&entry.id))
    };
    let standing = found.iter().filter(|found| !lost(found.3));
    together
        .or_else(|| standing.min_by_key(|(rank, at, length, _)| (*rank, *at, *length)).map(|found| found.3))
}

fn design(
    entry: &'static Entry,
    words: &[String],
    wished_data: Option<&str>,
) -> Result<&'static Design, NotCovered> {
    let covered = || {
        let models: Vec<String> = entry.designs.iter().map(|design| on_data(design.program)).collect();
        models.join(" and the ")
    };
    let named = match (any(TEXT_WORDS, words), any(MLP_WORDS, words)) {
        (true, false) => Some(ProgramName::CharTransformer),
        (false, true) => Some(ProgramName::Mlp),
        // "the feed-forward layers of a transformer" is about a transformer.
        (true, true) if any(&["transformer", "attention"], words) => Some(ProgramName::CharTransformer),
        _ => None,
    };
    let Some(wished) = wished_data else {
        let Some(named) = named else { return Ok(&entry.designs[0]) };
        let found = entry.designs.iter().find(|design| design.program == named);
        return found.ok_or_else(|| NotCovered::OtherProgram { subject: entry.name, covered: covered() });
    };
    let refused = |covered: String| NotCovered::DataSet { name: wished.to_owned(), covered };
    if data::data_set(wished).is_none() {
        return Err(refused(data_set_names()));
    }
    let found = entry.designs.iter().find(|design| program(design.program).data_set == wished);
    match found {
        Some(design) if named.is_none_or(|named| named == design.program) => Ok(design),
        _ => Err(refused(covered())),
    }
}

/// "MLP on digits".
fn on_data(name: ProgramName) -> String {
    let program = program(name);
    format!("{} on {}", program.model, program.data_set)
}

/// "digits or austen".
fn data_set_names() -> String {
    let names: Vec<&str> = data::data_sets().iter().map(|set| set.name).collect();
    names.join(" or ")
}

/// The levels that the question names, in the table's order; one alone is compared with the control; none: the usual.
fn levels(design: &Design, words: &[String]) -> Vec<Level> {
    let mut named: Vec<Level> = Vec::new();
    for level in design.levels {
        // "sgd with momentum" and "leaky relu" contain the words of other levels, which they are not.
        let shadowed = level.words.iter().all(|word| {
            let longer = design
                .levels
                .iter()
                .flat_map(|other| other.words)
                .filter(|other| contains_words(other, word));
            place_of(&[word], words).is_none_or(|(at, _)| {
                longer.into_iter().any(|other| {
                    place_of(&[other], words).is_some_and(|(start, n)| start <= at && at < start + n)
                })
            })
        });
        if !level.words.is_empty() && !shadowed {
            named.push(*level);
        }
    }
    named.truncate(3);
    match named.len() {
        0 => design.levels.iter().take(design.usual).copied().collect(),
        1 => match design.levels.first() {
            Some(control) if control.value != named[0].value => vec![*control, named[0]],
            _ => design.levels.iter().take(design.usual).copied().collect(),
        },
        _ => named,
    }
}

fn contains_words(longer: &str, shorter: &str) -> bool {
    longer != shorter && longer.split(' ').any(|word| word == shorter)
}

/// A question's words in the table's form.
fn words(question: &str) -> Vec<String> {
    question
        .to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(plain)
        .collect()
}

/// One word: American spelling, singular.
fn plain(word: &str) -> String {
    let mut word = word.to_owned();
    for (british, american) in
        [("isation", "ization"), ("iser", "izer"), ("ising", "izing"), ("ised", "ized"), ("ise", "ize")]
    {
        // Not "noise", "precise", "otherwise": only the endings that a verb of the field can have.
        let stem = word.strip_suffix('s').unwrap_or(&word);
        let verb = ["normal", "optim", "regular", "general", "initial", "quant", "minim", "maxim"];
        if let Some(root) = stem.strip_suffix(british)
            && verb.iter().any(|verb| root.ends_with(verb))
        {
            word = format!("{root}{american}");
            break;
        }
    }
    let singular = word.len() > 3 && word.ends_with('s') && !word.ends_with("ss") && !word.ends_with("us");
    if singular {
        word.pop();
    }
    word
}

/// Where one of the phrases stands first, and how many words it has (the longest of those that stand there).
fn place_of(phrases: &[&str], words: &[String]) -> Option<(usize, usize)> {
    (0..words.len()).find_map(|at| {
        let lengths = phrases.iter().filter_map(|phrase| stands_at(phrase, &words[at..]));
        lengths.max().map(|length| (at, length))
    })
}

fn stands_at(phrase: &str, words: &[String]) -> Option<usize> {
    let mut length = 0;
    for wanted in phrase.split(' ') {
        let word = words.get(length)?;
        let fits = match wanted.strip_suffix('*') {
            Some(start) => word.starts_with(start),
            None => word == wanted,
        };
        if !fits {
            return None;
        }
        length += 1;
    }
    Some(length)
}

fn any(phrases: &[&str], words: &[String]) -> bool {
    place_of(phrases, words).is_some()
}

fn first_of(phrases: &[&str], words: &[String]) -> Option<String> {
    place_of(phrases, words).map(|(at, length)| words[at..at + length].join(" "))
}

/// What the rules cover, for a person.
#[must_use]
pub fn coverage() -> String {
    let mut text = String::from("it covers, by real training on data that ships with it:\n");
    for entry in CATALOGUE {
        let models: Vec<String> = entry.designs.iter().map(|design| on_data(design.program)).collect();
        text.push_str(&format!("  {} ({})\n", entry.name, models.join("; ")));
    }
    text.push_str(
        "Each is asked by its effect on the result, or on how stable training is. For any other question name a \
         language model: --llm anthropic:MODEL, openai:MODEL, ollama:MODEL or compatible:MODEL",
    );
    text
}

impl std::fmt::Display for NotCovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoSubject => {
                write!(f, "offline, the rule-based researcher, cannot answer this question; {}", coverage())
            }
            Self::Foreign { word } => write!(
                f,
                "offline, the rule-based researcher, cannot answer this question: it has neither model nor data for \
                 \"{word}\"; {}",
                coverage()
            ),
            Self::OtherProgram { subject, covered } => write!(
                f,
                "offline, the rule-based researcher, cannot answer this question: it knows {subject} for the {covered} \
                 only; {}",
                coverage()
            ),
            Self::DataSet { name, covered } => write!(
                f,
                "--dataset {name}: offline, the rule-based researcher, cannot answer this question with it; it can with \
                 {covered}, or leave --dataset out"
            ),
        }
    }
}

#[cfg(test)]
#[path = "matching_tests.rs"]
mod tests;
