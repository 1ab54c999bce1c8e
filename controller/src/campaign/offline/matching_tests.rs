//! Questions in people's words, and what they are read as.

use super::*;
use crate::campaign::offline::program::Value::{self, Count, Flag, Number, Word};

const MLP: ProgramName = ProgramName::Mlp;
const TEXT: ProgramName = ProgramName::CharTransformer;

#[test]
fn questions_are_read_as_what_they_ask() {
    #[rustfmt::skip]
    let table: &[(&str, &str, ProgramName, Kind)] = &[
        ("Does batch normalisation help a small MLP on digits?", "batch_norm", MLP, Kind::Ablation),
        ("Does batch normalization help a small MLP on digits?", "batch_norm", MLP, Kind::Ablation),
        ("does BATCH-NORM improve accuracy", "batch_norm", MLP, Kind::Ablation),
        ("Is batchnorm worth it?", "batch_norm", MLP, Kind::Ablation),
        ("Does BN speed up training of a small network?", "batch_norm", MLP, Kind::Ablation),
        ("Does batch norm allow higher learning rates?", "batch_norm", MLP, Kind::Ablation),
        ("Does batch normalisation make an MLP more stable?", "batch_norm", MLP, Kind::Stability),
        ("Does layer normalisation help a multilayer perceptron?", "layer_norm", MLP, Kind::Ablation),
        ("Do transformers need layer norm?", "layer_norm", TEXT, Kind::Ablation),
        ("What do layer norms do for a small language model's loss?", "layer_norm", TEXT, Kind::Ablation),
        ("Is batch norm better than layer norm?", "normalisation", MLP, Kind::Comparison),
        ("Which normalisation method suits a small MLP?", "normalisation", MLP, Kind::Comparison),
        ("How sensitive is a small MLP to its learning rate?", "learning_rate", MLP, Kind::Sensitivity),
        ("How sensitive is Adam to the learning rate?", "learning_rate", MLP, Kind::Sensitivity),
        ("Is batch norm less sensitive to the learning rate?", "batch_norm", MLP, Kind::Stability),
        ("Does a cosine schedule make an MLP robust to the learning rate?", "schedule", MLP, Kind::Stability),
        ("What learning rates work for a character-level transformer?", "learning_rate", TEXT, Kind::Sensitivity),
        ("Does the learning rate affect stability of training?", "learning_rate", MLP, Kind::Sensitivity),
        ("Does a learning-rate schedule help?", "schedule", MLP, Kind::Comparison),
        ("Is cosine annealing better than a constant learning rate?", "schedule", MLP, Kind::Comparison),
        ("Do small transformers need warm-up?", "schedule", TEXT, Kind::Comparison),
        ("Does learning rate decay matter for tabular data?", "schedule", MLP, Kind::Comparison),
        ("Does the choice of optimiser matter for a small MLP?", "optimizer", MLP, Kind::Comparison),
        ("Which optimizers are best on digits?", "optimizer", MLP, Kind::Comparison),
        ("Is Adam better than SGD for transformers?", "optimizer", TEXT, Kind::Comparison),
        ("Adam or momentum: which trains a neural network faster?", "optimizer", MLP, Kind::Comparison),
        ("Are SGD with momentum and Adam equivalent on digits?", "optimizer", MLP, Kind::Equivalence),
        ("Is GELU better than ReLU?", "activation", MLP, Kind::Comparison),
        ("Do activation functions matter in small networks?", "activation", MLP, Kind::Comparison),
        ("Is tanh as good as relu for classification?", "activation", MLP, Kind::Equivalence),
        ("Does swish help the feed-forward layers of a transformer?", "activation", TEXT, Kind::Comparison),
        ("Does dropout help a small MLP?", "dropout", MLP, Kind::Ablation),
        ("Does dropout hurt small language models?", "dropout", TEXT, Kind::Ablation),
        ("Is dropout useful when there is batch norm too?", "batch_norm", MLP, Kind::Ablation),
        ("Does weight decay reduce overfitting?", "weight_decay", MLP, Kind::Ablation),
        ("Does L2 regularisation improve generalisation?", "weight_decay", MLP, Kind::Ablation),
        ("Are deeper networks better on digits?", "depth", MLP, Kind::Comparison),
        ("How does the number of layers affect a small transformer?", "depth", TEXT, Kind::Comparison),
        ("Does depth make training unstable in a plain MLP?", "depth", MLP, Kind::Stability),
        ("Does a wider hidden layer improve accuracy?", "width", MLP, Kind::Comparison),
        ("How many hidden units does an MLP need?", "width", MLP, Kind::Comparison),
        ("Do residual connections help a deep MLP?", "residual", MLP, Kind::Ablation),
        ("Can a transformer be trained without skip connections?", "residual", TEXT, Kind::Ablation),
        (
            "Does residual connection placement affect training stability in small transformers?",
            "placement", TEXT, Kind::Stability,
        ),
        ("Is pre-norm more stable than post-norm?", "placement", TEXT, Kind::Stability),
        ("Does Pre-LN beat Post-LN on final loss?", "placement", TEXT, Kind::Comparison),
        ("Where should layer normalisation stand: pre- or post-norm?", "placement", TEXT, Kind::Comparison),
    ];
    assert!(table.len() >= 40);
    for (question, id, program, kind) in table {
        let topic = Topic::of(question, None).unwrap_or_else(|error| panic!("{question}: {error}"));
        assert_eq!((topic.entry.id, topic.design.program, topic.kind), (*id, *program, *kind), "{question}");
    }
}

#[test]
fn what_is_not_covered_is_refused() {
    for question in [
        "What is the meaning of life?",
        "",
        "?!",
        "How deep is the ocean?",
        "When did Adam and Eve live?",
        "How wide is the river Thames?",
        "Did the school dropouts find work?",
        "Is it the norm to cook in batches?",
        "What is the best large language model?",
        "Does data augmentation help?",
        "Does label smoothing help a small MLP?",
        "Which momentum does a falling stone have?",
    ] {
        assert_eq!(Topic::of(question, None).unwrap_err(), NotCovered::NoSubject, "{question}");
    }
}

#[test]
fn a_model_or_data_that_we_do_not_have_is_named() {
    for (question, word) in [
        ("Does batch norm help ResNet-50 on ImageNet?", "resnet"),
        ("Does dropout help a CNN?", "cnn"),
        ("Is Adam better than SGD on CIFAR-10 networks?", "cifar"),
        ("Does weight decay help on MNIST?", "mnist"),
        ("Does layer normalisation help an LSTM?", "lstm"),
        ("Does batch norm help GANs?", "gan"),
    ] {
        match Topic::of(question, None) {
            Err(NotCovered::Foreign { word: found }) => assert_eq!(found, word, "{question}"),
            other => panic!("{question}: {other:?}"),
        }
    }
}

#[test]
fn a_subject_without_the_program_that_is_asked_for_says_which_it_has() {
    let error = Topic::of("Does batch norm help a small transformer?", None).unwrap_err();
    assert_eq!(
        error,
        NotCovered::OtherProgram { subject: "batch normalisation", covered: "MLP on digits".to_owned() }
    );
    assert!(error.to_string().contains("MLP on digits only"), "{error}");
}

#[test]
fn the_wished_data_set_chooses_the_program_or_is_refused() {
    let program = |question, data| Topic::of(question, Some(data)).map(|topic| topic.design.program);
    assert_eq!(program("Does layer norm help?", "austen"), Ok(TEXT));
    assert_eq!(program("Does layer norm help?", "digits"), Ok(MLP));
    for (question, data, covered) in [
        ("Does layer norm help?", "mnist", "digits or austen"),
        (
            "Does layer norm help a transformer?",
            "digits",
            "MLP on digits and the character-level transformer on austen",
        ),
        ("Does batch norm help?", "austen", "MLP on digits"),
    ] {
        let expected = NotCovered::DataSet { name: data.to_owned(), covered: covered.to_owned() };
        assert_eq!(program(question, data), Err(expected.clone()), "{question}");
        assert!(expected.to_string().starts_with(&format!("--dataset {data}")));
    }
}

#[test]
fn levels_that_are_named_are_taken() {
    #[rustfmt::skip]
    let table: &[(&str, &[Value])] = &[
        ("Is AdamW better than SGD for an MLP?", &[Word("sgd"), Word("adamw")]),
        ("Is Adam better than SGD with momentum for an MLP?", &[Word("momentum"), Word("adam")]),
        ("Does RMSprop beat momentum on digits?", &[Word("momentum"), Word("rmsprop")]),
        ("Does the optimiser matter on digits?", &[Word("momentum"), Word("adam")]),
        ("Is GELU better than tanh?", &[Word("gelu"), Word("tanh")]),
        ("Does leaky ReLU help?", &[Word("relu"), Word("leaky_relu")]),
        ("Is a linear decay better than a cosine schedule?", &[Word("cosine"), Word("linear")]),
        ("Does warm-up help small networks?", &[Word("constant"), Word("warmup")]),
        ("Does batch norm help?", &[Flag(false), Flag(true)]),
        ("Does dropout help an MLP?", &[Number(0.0), Number(0.2)]),
        ("Does depth matter on digits?", &[Count(1), Count(2), Count(4)]),
    ];
    for (question, levels) in table {
        let topic = Topic::of(question, None).unwrap_or_else(|error| panic!("{question}: {error}"));
        let values: Vec<Value> = topic.levels.iter().map(|level| level.value).collect();
        assert_eq!(values, *levels, "{question}");
    }
}

#[test]
fn the_wording_of_a_question_turns_what_is_expected() {
    let expected = |question| Topic::of(question, None).unwrap().expected;
    assert_eq!(expected("Does batch norm help an MLP?"), Expected::Better);
    assert_eq!(expected("Does batch norm hurt an MLP?"), Expected::Worse);
    // The table's expectation is about its own pair of levels.
    assert_eq!(expected("Is a linear decay better than a cosine schedule?"), Expected::Changed);
    assert!(Topic::of("Does batch norm speed up training?", None).unwrap().asks_speed);
    assert!(!Topic::of("Does batch norm help?", None).unwrap().asks_speed);
}

#[test]
fn the_table_is_written_in_the_form_that_questions_are_brought_to() {
    for entry in CATALOGUE {
        assert!(!entry.designs.is_empty());
        for phrase in entry.strong.iter().chain(entry.weak) {
            for word in phrase.split(' ') {
                let bare = word.trim_end_matches('*');
                assert!(bare.chars().all(char::is_alphanumeric), "{}: {phrase}", entry.id);
                assert!(word.ends_with('*') || plain(bare) == bare, "{}: {phrase} can never match", entry.id);
            }
        }
        for design in entry.designs {
            let learning_rate = entry.sort == Sort::LearningRate;
            assert_eq!(learning_rate, design.levels.is_empty(), "{}", entry.id);
            assert!(learning_rate || (2..=3).contains(&design.usual) && design.usual <= design.levels.len());
            for (name, _) in design.fixed.iter().chain(design.follow_ups.iter().map(|follow| &follow.change))
            {
                let source = program(design.program).source;
                assert!(source.contains(&format!("\"{name}\"")), "{}: no program reads {name}", entry.id);
            }
        }
        for other in entry.instead_of.iter().chain(entry.wins_over) {
            assert!(CATALOGUE.iter().any(|entry| entry.id == *other));
        }
        assert!(coverage().contains(entry.name));
    }
}
