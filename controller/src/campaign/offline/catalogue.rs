//! What the rules can answer, as a table: the words that ask for it, the parameter, its levels, which program trains
//! it, what is expected, and what to try next. Reading a question against the table is `matching.rs`'s business;
//! making a plan of an entry is `planning/`'s.
//!
//! Words are written in lower case, American spelling and the singular; `*` at the end of a word stands for any
//! ending. `matching.rs` brings a question into the same form first.

use super::program::ProgramName::{self, CharTransformer, Mlp};
use super::program::Setting;
use super::program::Value::{Count, Flag, Number, Word};

/// One subject that the rules know.
#[derive(Debug)]
pub struct Entry {
    /// For tests and for `instead_of`.
    pub id: &'static str,
    /// For sentences: "batch normalisation".
    pub name: &'static str,
    /// Phrases that can mean nothing else.
    pub strong: &'static [&'static str],
    /// Phrases that count only where the question is about training a network.
    pub weak: &'static [&'static str],
    /// This entry stands where all of these are asked about at once.
    pub instead_of: &'static [&'static str],
    /// Subjects whose words stand in questions about this one ("where should layer norm stand: pre or post?").
    pub wins_over: &'static [&'static str],
    /// How it is asked; decides the plan's kind where the question does not.
    pub sort: Sort,
    /// One for each program that can answer it; the first where the question names neither model.
    pub designs: &'static [Design],
}

/// How an entry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// With or without.
    Part,
    /// One or another.
    Choice,
    /// How much of it, with at most three sizes.
    Size,
    /// The learning rate itself: no control.
    LearningRate,
}

/// How one program answers an entry.
#[derive(Debug)]
pub struct Design {
    /// Which program.
    pub program: ProgramName,
    /// The factor; for the learning rate "lr", whose levels come from the program's grid.
    pub param: &'static str,
    /// All levels that a question may name.
    pub levels: &'static [Level],
    /// How many of them, from the first, are taken where the question names none. The first is the control.
    pub usual: usize,
    /// What differs from the program's defaults, for every variant.
    pub fixed: &'static [Setting],
    /// What the second level is expected to do to the metric.
    pub expected: Expected,
    /// Why, in half a sentence that goes on "because …".
    pub because: &'static str,
    /// What to try next, best first.
    pub follow_ups: &'static [FollowUp],
}

/// A value of the factor.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    /// For `ar.params`.
    pub value: super::program::Value,
    /// For sentences.
    pub label: &'static str,
    /// Words that name it in a question.
    pub words: &'static [&'static str],
}

/// What is expected of a level against the control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The metric gets better.
    Better,
    /// The metric gets worse.
    Worse,
    /// It changes, either way.
    Changed,
}

/// The same comparison somewhere else.
#[derive(Debug, Clone, Copy)]
pub struct FollowUp {
    /// When it is the one to try.
    pub after: After,
    /// What is changed for every variant.
    pub change: Setting,
    /// What is to be learnt: "whether it holds in …".
    pub to_learn: &'static str,
}

/// The last verdict that a follow-up goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// A difference was found, whichever way.
    Difference,
    /// None was found, or it stayed open.
    NoDifference,
}

const fn level(value: super::program::Value, label: &'static str, words: &'static [&'static str]) -> Level {
    Level { value, label, words }
}

const fn follow(after: After, change: Setting, to_learn: &'static str) -> FollowUp {
    FollowUp { after, change, to_learn }
}

const MLP_NEXT: &[FollowUp] = &[
    follow(After::Difference, ("width", Count(64)), "whether it holds in a network of twice the width"),
    follow(
        After::NoDifference,
        ("depth", Count(4)),
        "whether it shows in a network twice as deep, which is harder to train",
    ),
    follow(
        After::Difference,
        ("steps", Count(400)),
        "whether it is still there after four times as many steps",
    ),
    follow(After::NoDifference, ("steps", Count(400)), "whether it shows after four times as many steps"),
    follow(After::Difference, ("depth", Count(4)), "whether it holds in a network twice as deep"),
];

/// For what is asked of a wider and longer training: see [`LONG`].
const MLP_LONG_NEXT: &[FollowUp] = &[
    follow(After::Difference, ("width", Count(256)), "whether it holds in a network of twice the width"),
    follow(
        After::NoDifference,
        ("width", Count(512)),
        "whether it shows in a network of four times the width",
    ),
    follow(After::Difference, ("depth", Count(3)), "whether it holds in a deeper network"),
    follow(After::NoDifference, ("depth", Count(3)), "whether it shows in a deeper network"),
];

/// What regularises can help only where a network is large and trained long enough to fit its data by heart.
const LONG: &[Setting] = &[("width", Count(128)), ("steps", Count(600))];

const TEXT_OTHER: &[FollowUp] = &[
    follow(After::Difference, ("depth", Count(2)), "whether it holds in a transformer of half the depth"),
    follow(
        After::NoDifference,
        ("warmup", Count(30)),
        "whether it shows where the learning rate is warmed up",
    ),
    follow(After::Difference, ("warmup", Count(30)), "whether it holds where the learning rate is warmed up"),
    follow(After::NoDifference, ("depth", Count(2)), "whether it shows in a transformer of half the depth"),
];

const NORM_BECAUSE: &str = "it keeps the scale of the activations steady, so that a network of this size learns more in the same steps";

/// Every subject that the rules know.
pub static CATALOGUE: &[Entry] = &[
    Entry {
        id: "batch_norm",
        name: "batch normalisation",
        strong: &["batch norm*", "batchnorm*", "bn layer"],
        weak: &["bn"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Part,
        designs: &[Design {
            program: Mlp,
            param: "batch_norm",
            levels: &[
                level(Flag(false), "without batch normalisation", &[]),
                level(Flag(true), "with batch normalisation", &[]),
            ],
            usual: 2,
            fixed: &[],
            expected: Expected::Better,
            because: NORM_BECAUSE,
            follow_ups: MLP_NEXT,
        }],
    },
    Entry {
        id: "layer_norm",
        name: "layer normalisation",
        strong: &["layer norm*", "layernorm*"],
        weak: &["ln"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Part,
        designs: &[
            Design {
                program: Mlp,
                param: "layer_norm",
                levels: &[
                    level(Flag(false), "without layer normalisation", &[]),
                    level(Flag(true), "with layer normalisation", &[]),
                ],
                usual: 2,
                fixed: &[],
                expected: Expected::Better,
                because: NORM_BECAUSE,
                follow_ups: MLP_NEXT,
            },
            Design {
                program: CharTransformer,
                param: "layer_norm",
                levels: &[
                    level(Flag(false), "without layer normalisation", &[]),
                    level(Flag(true), "with layer normalisation", &[]),
                ],
                usual: 2,
                fixed: &[],
                expected: Expected::Better,
                because: "it keeps the scale of the activations steady from layer to layer",
                follow_ups: TEXT_OTHER,
            },
        ],
    },
    Entry {
        id: "normalisation",
        name: "the kind of normalisation",
        strong: &[
            "normalization layer",
            "normalization method",
            "kind of normalization",
            "type of normalization",
        ],
        weak: &["normalization"],
        instead_of: &["batch_norm", "layer_norm"],
        wins_over: &[],
        sort: Sort::Choice,
        designs: &[Design {
            program: Mlp,
            param: "normalisation",
            levels: &[
                level(Word("batch"), "with batch normalisation", &["batch norm*", "batchnorm*", "bn"]),
                level(Word("layer"), "with layer normalisation", &["layer norm*", "layernorm*", "ln"]),
                level(Word("none"), "without normalisation", &["no normalization", "none"]),
            ],
            usual: 2,
            fixed: &[],
            expected: Expected::Changed,
            because: "the two take their means over different things, examples and units",
            follow_ups: MLP_NEXT,
        }],
    },
    Entry {
        id: "schedule",
        name: "the learning-rate schedule",
        strong: &[
            "learning rate schedul*",
            "lr schedul*",
            "learning rate decay",
            "lr decay",
            "learning rate warmup",
            "learning rate warm up",
            "cosine schedul*",
            "cosine decay",
            "cosine anneal*",
            "linear decay",
            "step decay",
            "constant learning rate",
            "warmup",
            "decaying the learning rate",
            "decay the learning rate",
            "anneal* the learning rate",
            "learning rate anneal*",
            "schedule of the learning rate",
        ],
        weak: &["schedul*", "warm up", "anneal*"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Choice,
        designs: &[
            Design {
                program: Mlp,
                param: "schedule",
                levels: SCHEDULES,
                usual: 2,
                fixed: &[],
                expected: Expected::Better,
                because: "smaller steps at the end leave less of the noise of single batches in the weights",
                follow_ups: MLP_NEXT,
            },
            Design {
                program: CharTransformer,
                param: "schedule",
                levels: SCHEDULES,
                usual: 2,
                fixed: &[],
                expected: Expected::Better,
                because: "smaller steps at the end leave less of the noise of single batches in the weights",
                follow_ups: &[
                    follow(
                        After::Difference,
                        ("depth", Count(2)),
                        "whether it holds in a transformer of half the depth",
                    ),
                    follow(
                        After::NoDifference,
                        ("depth", Count(2)),
                        "whether it shows in a transformer of half the depth",
                    ),
                ],
            },
        ],
    },
    Entry {
        id: "learning_rate",
        name: "the learning rate",
        strong: &["learning rate", "lr", "step size"],
        weak: &[],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::LearningRate,
        designs: &[
            Design {
                program: Mlp,
                param: "lr",
                levels: &[],
                usual: 0,
                fixed: &[],
                expected: Expected::Better,
                because: "a rate ten times too low learns too little in the steps given, and one ten times too high \
                    overshoots",
                follow_ups: MLP_NEXT,
            },
            Design {
                program: CharTransformer,
                param: "lr",
                levels: &[],
                usual: 0,
                fixed: &[],
                expected: Expected::Better,
                because: "a rate ten times too low learns too little in the steps given, and one ten times too high \
                    overshoots",
                follow_ups: TEXT_OTHER,
            },
        ],
    },
    Entry {
        id: "optimizer",
        name: "the optimiser",
        strong: &[
            "optimizer",
            "optimization algorithm",
            "adamw",
            "rmsprop",
            "sgd",
            "stochastic gradient descent",
        ],
        weak: &["adam", "momentum", "gradient descent"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Choice,
        designs: &[
            Design {
                program: Mlp,
                param: "optimizer",
                levels: OPTIMIZERS,
                usual: 2,
                fixed: &[],
                expected: Expected::Changed,
                because: "Adam gives every weight a step size of its own",
                follow_ups: MLP_NEXT,
            },
            Design {
                program: CharTransformer,
                param: "optimizer",
                levels: OPTIMIZERS,
                usual: 2,
                fixed: &[],
                expected: Expected::Better,
                because: "the gradients of a transformer's parts differ much in size, and Adam gives every weight a step \
                    size of its own",
                follow_ups: TEXT_OTHER,
            },
        ],
    },
    Entry {
        id: "activation",
        name: "the activation function",
        strong: &[
            "activation function",
            "relu",
            "gelu",
            "silu",
            "swish",
            "leaky relu",
            "tanh",
            "sigmoid",
            "elu",
            "nonlinearity",
            "non linearity",
        ],
        weak: &["activation"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Choice,
        designs: &[
            Design {
                program: Mlp,
                param: "activation",
                levels: ACTIVATIONS,
                usual: 2,
                fixed: &[],
                expected: Expected::Changed,
                because: "they pass gradients on differently where a unit's input is under zero",
                follow_ups: MLP_NEXT,
            },
            Design {
                program: CharTransformer,
                param: "activation",
                levels: ACTIVATIONS,
                usual: 2,
                fixed: &[],
                expected: Expected::Changed,
                because: "they pass gradients on differently where a unit's input is under zero",
                follow_ups: TEXT_OTHER,
            },
        ],
    },
    Entry {
        id: "dropout",
        name: "dropout",
        strong: &["dropout rate", "dropout layer", "dropout regularization"],
        weak: &["dropout", "drop out"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Part,
        designs: &[
            Design {
                program: Mlp,
                param: "dropout",
                levels: &[
                    level(Number(0.0), "without dropout", &[]),
                    level(Number(0.2), "with a dropout rate of 0.2", &[]),
                ],
                usual: 2,
                fixed: LONG,
                expected: Expected::Better,
                because: "it keeps units from leaning on each other, where there are few examples and many steps",
                follow_ups: MLP_LONG_NEXT,
            },
            Design {
                program: CharTransformer,
                param: "dropout",
                levels: &[
                    level(Number(0.0), "without dropout", &[]),
                    level(Number(0.1), "with a dropout rate of 0.1", &[]),
                ],
                usual: 2,
                fixed: &[],
                expected: Expected::Changed,
                because: "it keeps units from leaning on each other, but a network that has not seen its data often has \
                    little to gain from that",
                follow_ups: TEXT_OTHER,
            },
        ],
    },
    Entry {
        id: "weight_decay",
        name: "weight decay",
        strong: &["weight decay", "weight decaying", "l2 regularization", "l2 penalty", "ridge penalty"],
        weak: &["l2"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Part,
        designs: &[
            Design {
                program: Mlp,
                param: "weight_decay",
                levels: &[
                    level(Number(0.0), "without weight decay", &[]),
                    level(Number(0.001), "with a weight decay of 0.001", &[]),
                ],
                usual: 2,
                fixed: LONG,
                expected: Expected::Better,
                because: "small weights make smoother functions, where there are few examples and many steps",
                follow_ups: MLP_LONG_NEXT,
            },
            Design {
                program: CharTransformer,
                param: "weight_decay",
                levels: &[
                    level(Number(0.0), "without weight decay", &[]),
                    level(Number(0.1), "with a weight decay of 0.1", &[]),
                ],
                usual: 2,
                fixed: &[("optimizer", Word("adamw"))],
                expected: Expected::Changed,
                because: "small weights make smoother functions, but a network that has not seen its data often has little \
                    to gain from that",
                follow_ups: TEXT_OTHER,
            },
        ],
    },
    Entry {
        id: "placement",
        name: "the placement of residual connections",
        strong: &[
            "residual connection placement",
            "residual placement",
            "placement of residual",
            "placement of the residual",
            "placement of skip",
            "skip connection placement",
            "post norm",
            "pre norm",
            "post ln",
            "pre ln",
            "postnorm",
            "prenorm",
            "post layer norm*",
            "pre layer norm*",
            "norm* placement",
            "placement of layer norm*",
            "placement of the layer norm*",
            "placement of norm*",
            "position of the residual",
            "position of residual",
            "position of the layer norm*",
            "pre activation",
            "layer norm* placement",
            "layernorm* placement",
            "post or pre norm*",
            "pre or post norm*",
            "pre and post norm*",
            "post and pre norm*",
        ],
        weak: &["placement"],
        instead_of: &[],
        wins_over: &["layer_norm", "residual"],
        sort: Sort::Choice,
        designs: &[
            Design {
                program: CharTransformer,
                param: "placement",
                levels: &[
                    level(Word("pre"), "with the norm before each sublayer", &[]),
                    level(Word("post"), "with the norm after each residual sum", &[]),
                ],
                usual: 2,
                fixed: &[],
                expected: Expected::Worse,
                because: "with the norm after each residual sum the gradients near the output are large at the start, and \
                    no warm-up keeps the first steps small",
                follow_ups: PLACEMENT_NEXT,
            },
            Design {
                program: Mlp,
                param: "residual",
                levels: &[
                    level(Word("pre"), "with the norm before each block", &[]),
                    level(Word("post"), "with the norm after each residual sum", &[]),
                ],
                usual: 2,
                fixed: &[("depth", Count(8)), ("layer_norm", Flag(true))],
                expected: Expected::Changed,
                because: "only with the norm first is there a path from the output to the input that nothing rescales",
                follow_ups: &[
                    follow(
                        After::Difference,
                        ("depth", Count(4)),
                        "whether it holds in a network of half the depth",
                    ),
                    follow(
                        After::NoDifference,
                        ("depth", Count(16)),
                        "whether it shows in a network twice as deep",
                    ),
                ],
            },
        ],
    },
    Entry {
        id: "residual",
        name: "residual connections",
        strong: &[
            "residual connection",
            "skip connection",
            "residual link",
            "shortcut connection",
            "residual block",
        ],
        weak: &["residual", "shortcut"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Part,
        designs: &[
            Design {
                program: Mlp,
                param: "residual",
                levels: &[
                    level(Word("none"), "without residual connections", &[]),
                    level(Word("pre"), "with residual connections", &[]),
                ],
                usual: 2,
                fixed: &[("depth", Count(8))],
                expected: Expected::Better,
                because: "eight layers without a short way back to the first lose most of the gradient",
                follow_ups: &[
                    follow(
                        After::Difference,
                        ("depth", Count(4)),
                        "whether it holds in a network of half the depth",
                    ),
                    follow(
                        After::NoDifference,
                        ("depth", Count(16)),
                        "whether it shows in a network twice as deep",
                    ),
                    follow(
                        After::Difference,
                        ("batch_norm", Flag(true)),
                        "whether anything of it is left where batch normalisation is there too",
                    ),
                ],
            },
            Design {
                program: CharTransformer,
                param: "placement",
                levels: &[
                    level(Word("none"), "without residual connections", &[]),
                    level(Word("pre"), "with residual connections", &[]),
                ],
                usual: 2,
                fixed: &[],
                expected: Expected::Better,
                because: "without a short way past them every sublayer has to pass on all that it was given",
                follow_ups: TEXT_OTHER,
            },
        ],
    },
    Entry {
        id: "depth",
        name: "depth",
        strong: &["number of layer", "number of hidden layer", "more layer", "network depth", "layer count"],
        weak: &["depth", "deeper", "deep", "shallow*", "how many layer", "extra layer", "additional layer"],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Size,
        designs: &[
            Design {
                program: Mlp,
                param: "depth",
                levels: &[
                    level(Count(1), "with one hidden layer", &[]),
                    level(Count(2), "with two hidden layers", &[]),
                    level(Count(4), "with four hidden layers", &[]),
                ],
                usual: 3,
                fixed: &[],
                expected: Expected::Changed,
                because: "more layers can say more and are harder to train in the same steps",
                follow_ups: &[
                    follow(
                        After::Difference,
                        ("batch_norm", Flag(true)),
                        "whether it holds with batch normalisation",
                    ),
                    follow(After::NoDifference, ("width", Count(64)), "whether it shows at twice the width"),
                ],
            },
            Design {
                program: CharTransformer,
                param: "depth",
                levels: &[
                    level(Count(1), "with one layer", &[]),
                    level(Count(2), "with two layers", &[]),
                    level(Count(4), "with four layers", &[]),
                ],
                usual: 3,
                fixed: &[],
                expected: Expected::Changed,
                because: "more layers can say more and are harder to train in the same steps",
                follow_ups: &[
                    follow(After::Difference, ("width", Count(16)), "whether it holds at half the width"),
                    follow(After::NoDifference, ("warmup", Count(30)), "whether it shows with a warm-up"),
                ],
            },
        ],
    },
    Entry {
        id: "width",
        name: "width",
        strong: &[
            "hidden size",
            "number of hidden unit",
            "hidden unit",
            "layer width",
            "network width",
            "number of unit",
        ],
        weak: &[
            "width",
            "wider",
            "wide",
            "narrow*",
            "number of neuron",
            "more neuron",
            "more unit",
            "hidden dimension",
        ],
        instead_of: &[],
        wins_over: &[],
        sort: Sort::Size,
        designs: &[
            Design {
                program: Mlp,
                param: "width",
                levels: &[
                    level(Count(16), "16 units wide", &[]),
                    level(Count(64), "64 units wide", &[]),
                    level(Count(256), "256 units wide", &[]),
                ],
                usual: 3,
                fixed: &[],
                expected: Expected::Better,
                because: "a wider layer has more features to choose from",
                follow_ups: &[
                    follow(After::Difference, ("depth", Count(3)), "whether it holds in a deeper network"),
                    follow(
                        After::NoDifference,
                        ("depth", Count(1)),
                        "whether it shows with a single hidden layer",
                    ),
                ],
            },
            Design {
                program: CharTransformer,
                param: "width",
                levels: &[
                    level(Count(16), "16 units wide", &[]),
                    level(Count(32), "32 units wide", &[]),
                    level(Count(48), "48 units wide", &[]),
                ],
                usual: 3,
                fixed: &[("depth", Count(2))],
                expected: Expected::Better,
                because: "a wider layer has more features to choose from",
                follow_ups: &[
                    follow(After::Difference, ("depth", Count(1)), "whether it holds with a single layer"),
                    follow(After::NoDifference, ("warmup", Count(30)), "whether it shows with a warm-up"),
                ],
            },
        ],
    },
];

const PLACEMENT_NEXT: &[FollowUp] = &[
    follow(
        After::Difference,
        ("warmup", Count(40)),
        "whether a warm-up, the usual cure of the norm after the sum, takes the difference away",
    ),
    follow(After::NoDifference, ("depth", Count(8)), "whether it shows in a transformer twice as deep"),
    follow(After::Difference, ("depth", Count(2)), "whether it holds in a transformer of half the depth"),
];

const SCHEDULES: &[Level] = &[
    level(Word("constant"), "with a constant learning rate", &["constant"]),
    level(Word("cosine"), "with a cosine schedule", &["cosine"]),
    level(Word("linear"), "with a linear decay to zero", &["linear decay", "linear schedul*", "linear"]),
    level(Word("step"), "with a tenfold drop near the end", &["step decay", "step schedul*"]),
    level(Word("warmup"), "with a warm-up", &["warmup", "warm up"]),
];

const OPTIMIZERS: &[Level] = &[
    level(
        Word("momentum"),
        "with SGD and momentum",
        &["momentum", "sgd with momentum", "sgd momentum", "momentum sgd", "sgd plus momentum"],
    ),
    level(Word("adam"), "with Adam", &["adam"]),
    level(Word("sgd"), "with plain SGD", &["sgd", "stochastic gradient descent", "gradient descent"]),
    level(Word("adamw"), "with AdamW", &["adamw"]),
    level(Word("rmsprop"), "with RMSprop", &["rmsprop"]),
];

const ACTIVATIONS: &[Level] = &[
    level(Word("relu"), "with ReLU", &["relu"]),
    level(Word("gelu"), "with GELU", &["gelu"]),
    level(Word("tanh"), "with tanh", &["tanh"]),
    level(Word("sigmoid"), "with the logistic sigmoid", &["sigmoid", "logistic"]),
    level(Word("silu"), "with SiLU", &["silu", "swish"]),
    level(Word("leaky_relu"), "with leaky ReLU", &["leaky relu"]),
    level(Word("elu"), "with ELU", &["elu"]),
];
