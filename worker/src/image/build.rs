//! One build through the engine's classic builder, which every engine of API 1.41 and later has: a context in memory,
//! the host's network, and the settings of the host for as long as it takes.

use std::collections::HashMap;

use bollard::{Docker, errors::Error as EngineError, query_parameters::BuildImageOptionsBuilder};
use futures_util::StreamExt as _;
use kit::{digest::Digest, task::CancellationToken};

use super::{
    base::RECIPE_LABEL,
    error::ImageError,
    handover::Handover,
    progress::{Lines, Progress, Tail},
    recipe::Recipe,
    settings::HostSettings,
};

/// Of an image of ours: its name on the allow-list.
pub(super) const NAME_LABEL: &str = "autoresearch.image";

/// What a build may reach while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// The host's, with the host's settings for it.
    Host,
    /// Nothing.
    None,
}

/// What is to be built.
#[derive(Debug)]
pub(super) struct Order<'a> {
    /// On the allow-list, for people.
    pub(super) name: &'a str,
    /// What it is known by, with the digest.
    pub(super) label: &'a str,
    pub(super) digest: Digest,
    pub(super) tag: String,
    /// What the Dockerfile's `FROM` names.
    pub(super) base: &'a str,
    pub(super) context: Vec<u8>,
    pub(super) network: Network,
}

impl<'a> Order<'a> {
    pub(super) fn of_recipe(recipe: &'a Recipe, base: &'a str) -> Result<Self, ImageError> {
        Ok(Self {
            name: recipe.name,
            label: recipe.name,
            digest: recipe.digest(),
            tag: recipe.tag(),
            base,
            context: recipe.context().map_err(|e| ImageError::io("make the context of", recipe.name, e))?,
            network: Network::Host,
        })
    }
}

/// Builds an image under its tag.
///
/// # Errors
/// [`ImageError::Build`] with the last lines where a step fails.
pub(super) async fn build(
    docker: &Docker,
    order: Order<'_>,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(), ImageError> {
    let mut arguments = HashMap::from([("BASE".to_owned(), order.base.to_owned())]);
    // Serves until the build is over.
    let mut _handover = None;
    let network = match order.network {
        Network::None => "none",
        Network::Host => {
            let settings = HostSettings::read();
            let handover = Handover::start(&settings).await?;
            arguments.extend(settings.proxies().clone());
            arguments.insert(Handover::VARIABLE.to_owned(), handover.address().to_owned());
            _handover = Some(handover);
            "host"
        }
    };
    let labels = HashMap::from([
        (NAME_LABEL.to_owned(), order.label.to_owned()),
        (RECIPE_LABEL.to_owned(), order.digest.to_string()),
    ]);
    let options = BuildImageOptionsBuilder::new()
        .dockerfile("Dockerfile")
        .t(&order.tag)
        .rm(true)
        .forcerm(true)
        .networkmode(network)
        .buildargs(&arguments)
        .labels(&labels)
        .build();
    let mut answers = docker.build_image(options, None, Some(bollard::body_full(order.context.into())));
    let mut output = Output::new();
    loop {
        // Dropping the stream closes the connection, and the engine then stops the build.
        let stopped = || ImageError::Stopped { name: order.name.to_owned() };
        match stop.run_until_cancelled(answers.next()).await.ok_or_else(stopped)? {
            None => return Ok(()),
            Some(Ok(info)) => {
                for line in output.take(info.stream.as_deref().unwrap_or_default()) {
                    progress.step("build", output.done, output.total, &line);
                }
            }
            Some(Err(EngineError::DockerStreamError { error })) => {
                return Err(ImageError::Build {
                    name: order.name.to_owned(),
                    step: output.step.clone(),
                    message: kit::text::one_line(&error, 500),
                    output: output.tail.text(),
                });
            }
            Some(Err(error)) => return Err(ImageError::engine("build", &order.tag, error)),
        }
    }
}

/// What the builder printed so far.
struct Output {
    lines: Lines,
    tail: Tail,
    step: String,
    done: u64,
    total: u64,
}

impl Output {
    fn new() -> Self {
        Self {
            lines: Lines::default(),
            tail: Tail::new(),
            step: "the first step".to_owned(),
            done: 0,
            total: 0,
        }
    }

    fn take(&mut self, piece: &str) -> Vec<String> {
        let lines = self.lines.take(piece);
        for line in &lines {
            if let Some((step, total)) = parse_step(line) {
                // The step begins: those before it are done.
                (self.done, self.total) = (step.saturating_sub(1), total);
                self.step.clone_from(line);
            }
            self.tail.push(line);
        }
        lines
    }
}

/// `Step 4/8 : COPY build/ /opt/autoresearch/build/`.
fn parse_step(line: &str) -> Option<(u64, u64)> {
    let (step, total) = line.strip_prefix("Step ")?.split_once(" : ")?.0.split_once('/')?;
    Some((step.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_become_progress() {
        let mut output = Output::new();
        assert_eq!(output.take("Step 2/8 : RUN a").len(), 0);
        assert_eq!(output.take("pt\n ---> Running in 1\n\nStep 3").len(), 2);
        assert_eq!((output.done, output.total, output.step.as_str()), (1, 8, "Step 2/8 : RUN apt"));
        assert_eq!(parse_step("Step x/8 : RUN"), None);
        assert_eq!(parse_step("Stepping 1/2 : RUN"), None);
    }
}
