//! The data that ships: two small files, what is in them, and what is known of them before any run (METHOD §3.2 and
//! §3.3 ask for a stored spread and a table of smallest effects). `data/README.md` says where they come from.
//!
//! The bytes are embedded, so that a first run needs no network and no installed folder.

/// A data set that ships with the program.
#[derive(Debug)]
pub struct DataSet {
    /// What a plan, `--dataset` and `ar.dataset` call it.
    pub name: &'static str,
    /// What is in it, for a person and for a model that plans or writes code.
    pub description: &'static str,
    /// File names and contents, as the worker is to lay them. `ar.dataset(name)` is the path of the only file.
    pub files: &'static [(&'static str, &'static [u8])],
    /// What is to be learnt.
    pub task: Task,
    /// Examples (for `austen`: characters) for training, where a seed draws the split as our programs do.
    pub train_size: u32,
    /// The same for validation.
    pub validation_size: u32,
    /// The same for the test.
    pub test_size: u32,
    /// What is known of each metric.
    pub metrics: &'static [MetricFacts],
}

/// What is to be learnt from a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// A class from numbers.
    Classification {
        /// How many.
        classes: u32,
    },
    /// The next character of a text.
    NextCharacter {
        /// Different characters, in lower case.
        alphabet: u32,
    },
}

/// What is known of a metric on a data set, whatever the split is called ("accuracy" is `val_accuracy` and
/// `test_accuracy`).
#[derive(Debug, Clone, Copy)]
pub struct MetricFacts {
    /// "accuracy" or "loss".
    pub name: &'static str,
    /// "fraction" or "nats".
    pub unit: &'static str,
    /// The smallest effect of interest: the table of METHOD §3.3.
    pub smallest_effect: f64,
    /// Why so much.
    pub why: &'static str,
    /// Standard deviation over seeds of one variant, split drawn anew; measured with our programs.
    pub deviation: f64,
    /// Chance, or the loss of a model that knows nothing.
    pub trivial: f64,
}

impl DataSet {
    /// What is known of a metric, by its name with or without the split before it.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&'static MetricFacts> {
        self.metrics.iter().find(|facts| name == facts.name || name.ends_with(&format!("_{}", facts.name)))
    }
}

/// Every data set that ships.
#[must_use]
pub fn data_sets() -> &'static [DataSet] {
    DATA_SETS
}

/// One by name.
#[must_use]
pub fn data_set(name: &str) -> Option<&'static DataSet> {
    DATA_SETS.iter().find(|set| set.name == name)
}

/// The natural logarithm of the ten classes: the loss of a model that knows nothing.
const LN_CLASSES: f64 = std::f64::consts::LN_10;

/// The natural logarithm of the fifty characters.
const LN_ALPHABET: f64 = 3.912_023_005_428_146;

static DATA_SETS: &[DataSet] = &[
    DataSet {
        name: "digits",
        description: "1,797 handwritten digits of 8 by 8 pixels. One CSV file without a header: each line is 64 whole \
            numbers (pixels, 0 to 16), then the class (0 to 9).",
        files: &[("digits.csv", include_bytes!("data/digits.csv"))],
        task: Task::Classification { classes: 10 },
        train_size: 1257,
        validation_size: 180,
        test_size: 360,
        metrics: &[
            MetricFacts {
                name: "accuracy",
                unit: "fraction",
                smallest_effect: 0.005,
                why: "half a point of accuracy is about two of the 360 test digits, and less would change no choice \
                    between two models of this size",
                deviation: 0.009,
                trivial: 0.1,
            },
            MetricFacts {
                name: "loss",
                unit: "nats",
                smallest_effect: 0.02,
                why: "about 1 % of the way from chance (2.3 nats) to a trained network (0.1)",
                deviation: 0.025,
                trivial: LN_CLASSES,
            },
        ],
    },
    DataSet {
        name: "austen",
        description: "The first 29 chapters of Jane Austen's Pride and Prejudice (1813): one text file of 292,642 \
            ASCII characters, 50 different ones in lower case.",
        files: &[("pride_and_prejudice.txt", include_bytes!("data/pride_and_prejudice.txt"))],
        task: Task::NextCharacter { alphabet: 50 },
        train_size: 234_114,
        validation_size: 29_264,
        test_size: 29_264,
        metrics: &[MetricFacts {
            name: "loss",
            unit: "nats",
            smallest_effect: 0.015,
            why: "about 1 % of the way from an untrained network (3.9 nats) to a trained one (2.4)",
            deviation: 0.015,
            trivial: LN_ALPHABET,
        }],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_digits_are_all_there_and_well_formed() {
        let set = data_set("digits").unwrap();
        let (name, bytes) = set.files[0];
        assert_eq!(name, "digits.csv");
        let text = std::str::from_utf8(bytes).unwrap();
        let mut per_class = [0_u32; 10];
        for line in text.lines() {
            let cells: Vec<u32> = line.split(',').map(|cell| cell.parse().unwrap()).collect();
            assert_eq!(cells.len(), 65, "{line}");
            assert!(cells[..64].iter().all(|pixel| *pixel <= 16), "{line}");
            per_class[cells[64] as usize] += 1;
        }
        assert_eq!(per_class.iter().sum::<u32>(), 1797);
        assert_eq!(set.train_size + set.validation_size + set.test_size, 1797);
        assert!(per_class.iter().all(|count| (170..190).contains(count)), "{per_class:?}");
    }

    #[test]
    fn the_text_has_the_alphabet_that_its_trivial_loss_comes_from() {
        let set = data_set("austen").unwrap();
        let text = std::str::from_utf8(set.files[0].1).unwrap();
        assert!(text.is_ascii() && text.len() > 200_000);
        let alphabet: BTreeSet<char> = text.to_lowercase().chars().collect();
        assert_eq!(set.task, Task::NextCharacter { alphabet: u32::try_from(alphabet.len()).unwrap() });
        let trivial = set.metric("test_loss").unwrap().trivial;
        assert!((trivial - (alphabet.len() as f64).ln()).abs() < 1e-12);
        let sizes = set.train_size + set.validation_size + set.test_size;
        assert_eq!(usize::try_from(sizes).unwrap(), text.len());
    }

    #[test]
    fn metrics_are_found_with_and_without_their_split() {
        let set = data_set("digits").unwrap();
        assert_eq!(set.metric("accuracy").unwrap().name, "accuracy");
        assert_eq!(set.metric("val_loss").unwrap().unit, "nats");
        assert!(set.metric("xaccuracy").is_none());
        assert!(data_set("cifar").is_none());
        assert_eq!(data_sets().len(), 2);
    }
}
