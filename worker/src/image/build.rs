//! One build through the engine's classic builder, which every engine of API 1.41 and later has: a context in memory,
//! the host's network, and the settings of the host for as long as it takes.

use std::collections::HashMap;

use bollard::{Docker, errors::Error as EngineError, query_parameters::BuildImageOptionsBuilder};
use futures_util::StreamExt as _;
use kit::task::CancellationToken;

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

/// Builds the recipe on `base` under its tag.
///
/// # Errors
/// [`ImageError::Build`] with the last lines where a step fails.
pub(super) async fn build(
    docker: &Docker,
    recipe: &Recipe,
    base: &str,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<(), ImageError> {
    let settings = HostSettings::read();
    let handover = Handover::start(&settings).await?;
    let mut arguments = settings.proxies().clone();
    arguments.insert("BASE".to_owned(), base.to_owned());
    arguments.insert(Handover::VARIABLE.to_owned(), handover.address().to_owned());
    let labels = HashMap::from([
        (NAME_LABEL.to_owned(), recipe.name.to_owned()),
        (RECIPE_LABEL.to_owned(), recipe.digest().to_string()),
    ]);
    let options = BuildImageOptionsBuilder::new()
        .dockerfile("Dockerfile")
        .t(&recipe.tag())
        .rm(true)
        .forcerm(true)
        .networkmode("host")
        .buildargs(&arguments)
        .labels(&labels)
        .build();
    let context = recipe.context().map_err(|e| ImageError::io("make the context of", recipe.name, e))?;
    let mut answers = docker.build_image(options, None, Some(bollard::body_full(context.into())));
    let mut output = Output::new();
    loop {
        // Dropping the stream closes the connection, and the engine then stops the build.
        let stopped = || ImageError::Stopped { name: recipe.name.to_owned() };
        match stop.run_until_cancelled(answers.next()).await.ok_or_else(stopped)? {
            None => return Ok(()),
            Some(Ok(info)) => {
                for line in output.take(info.stream.as_deref().unwrap_or_default()) {
                    progress.step("build", output.done, output.total, &line);
                }
            }
            Some(Err(EngineError::DockerStreamError { error })) => {
                return Err(ImageError::Build {
                    name: recipe.name.to_owned(),
                    step: output.step.clone(),
                    message: kit::text::one_line(&error, 500),
                    output: output.tail.text(),
                });
            }
            Some(Err(error)) => return Err(ImageError::engine("build", &recipe.tag(), error)),
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
