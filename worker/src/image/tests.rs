//! Over the real engine: builds `lite` for real where it is not built yet. Tests are left out, with a line that says
//! so, only where no engine answers.

use std::{collections::HashMap, time::Duration};

use bollard::models::{ImageConfig, ImageInspect};

use super::{entry::check, *};

fn labelled(recipe: &Recipe, config: ImageConfig) -> ImageInspect {
    let labels = HashMap::from([
        (base::RECIPE_LABEL.to_owned(), recipe.digest().to_string()),
        (build::NAME_LABEL.to_owned(), recipe.name.to_owned()),
    ]);
    ImageInspect {
        id: Some(Digest::of(b"image").to_string()),
        size: Some(7),
        config: Some(ImageConfig { labels: Some(labels), ..config }),
        ..ImageInspect::default()
    }
}

#[test]
fn an_image_that_weakens_a_sandbox_is_refused_and_a_strangers_is_not_ours() {
    let [lite, torch] = &RECIPES;
    let good = check(&Entry::Recipe(lite), labelled(lite, ImageConfig::default())).unwrap().unwrap();
    assert_eq!((good.name.as_str(), good.size_bytes), ("lite", 7));
    let volumes = ImageConfig { volumes: Some(vec!["/data".to_owned()]), ..ImageConfig::default() };
    assert!(check(&Entry::Recipe(lite), labelled(lite, volumes)).unwrap_err().contains("/data"));
    for variable in ["LD_PRELOAD=/x.so", "NVIDIA_VISIBLE_DEVICES=all"] {
        let env = ImageConfig { env: Some(vec![variable.to_owned()]), ..ImageConfig::default() };
        let reason = check(&Entry::Recipe(lite), labelled(lite, env)).unwrap_err();
        assert!(reason.contains(variable.split('=').next().unwrap()), "{reason}");
    }
    assert_eq!(check(&Entry::Recipe(lite), labelled(torch, ImageConfig::default())), Ok(None));
    assert_eq!(check(&Entry::Recipe(lite), ImageInspect::default()), Ok(None));
    let mut nameless = labelled(lite, ImageConfig::default());
    nameless.id = Some("latest".to_owned());
    assert!(check(&Entry::Recipe(lite), nameless).is_err());
}

pub(super) async fn engine() -> Option<Docker> {
    let docker = Docker::connect_with_socket_defaults().ok()?;
    match docker.negotiate_version().await {
        Ok(docker) => Some(docker),
        Err(error) => {
            println!("left out: no container engine answers: {error}");
            None
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_callers_share_one_build_and_get_the_same_image() {
    let Some(docker) = engine().await else { return };
    let cache = kit::folder::cache().unwrap();
    let images = Images::new(docker.clone(), cache, CancellationToken::new());
    let (sender, mut steps) = mpsc::channel(1024);
    let (first, second) =
        tokio::join!(images.prepare("lite", sender.clone()), images.prepare("lite", sender));
    let first = first.unwrap();
    assert_eq!(first, second.unwrap());
    let mut seen = Vec::new();
    while let Some(step) = steps.recv().await {
        seen.push(step);
    }
    println!("{} steps, {first:?}", seen.len());
    let listed = images.list().await;
    let lite = listed.iter().find(|info| info.name == "lite").unwrap();
    assert_eq!(lite.image.as_ref(), Some(&first));
    assert!(lite.packages.iter().any(|package| package.name == "numpy"));
    // Nothing of the host is kept: neither the address of the settings nor the bundle.
    let history = docker.image_history(&first.id).await.unwrap();
    assert!(history.iter().all(|layer| !layer.created_by.contains("127.0.0.1")), "{history:?}");
}

#[tokio::test]
async fn an_unknown_name_is_told_with_the_known_ones() {
    let Some(docker) = engine().await else { return };
    let folder = tempfile::tempdir().unwrap();
    let images = Images::new(docker, folder.path().to_owned(), CancellationToken::new());
    let (sender, _steps) = mpsc::channel(1);
    let error = images.prepare("../torch", sender).await.unwrap_err().to_string();
    assert!(error.contains("../torch") && error.contains("lite, torch"), "{error}");
    assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_of_another_process_is_waited_for_and_a_stop_ends_the_wait() {
    let Some(docker) = engine().await else { return };
    let folder = tempfile::tempdir().unwrap();
    kit::folder::create_private(&folder.path().join("images")).unwrap();
    let held = kit::folder::Lock::take(&folder.path().join("images/torch.lock")).unwrap();
    let stop = CancellationToken::new();
    let images = Images::new(docker, folder.path().to_owned(), stop.clone());
    let recipe = Recipe::named("torch").unwrap();
    let mut stages = images.join(Entry::Recipe(recipe));
    let waiting =
        stages.wait_for(|stage| matches!(stage, Stage::Step(step) if step.line.contains("process")));
    tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(images.shared.jobs.len(), 1);
    stop.cancel();
    let ended = stages.wait_for(|stage| matches!(stage, Stage::Ended(Err(ImageError::Stopped { .. }))));
    tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap().unwrap();
    assert_eq!(images.shared.jobs.len(), 0);
    drop(held);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "downloads 2.5 GB where it is not built yet; the end-to-end tests need it and build it themselves"]
async fn torch_is_built() {
    let Some(docker) = engine().await else { return };
    let images = Images::new(docker, kit::folder::cache().unwrap(), CancellationToken::new());
    let (sender, mut steps) = mpsc::channel(64);
    let looking = kit::task::spawn("steps", async move {
        let mut last = ImageStep::default();
        while let Some(step) = steps.recv().await {
            last = step;
        }
        last
    });
    let image = images.prepare("torch", sender).await.unwrap();
    println!("{image:?}, last step {:?}", looking.await);
    assert_eq!(images.find("torch").await.unwrap(), Some(image));
}
